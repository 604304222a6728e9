"""What a person may do to a run from outside: agree, refuse, answer, cancel."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from journeyman.runtime.flow.control import answer, cancel, decide
from journeyman.runtime.store.questions import Consent, Question
from journeyman.runtime.store.run_store import RunRecord, RunStatus, RunStore
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ConfigError
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import Outcome, Task

PAY = Question(id="1/1", kind="approve_call", agent="clerk", tool="pay", arguments={"sum": 5}, text="Pay 5?")
LEND = Question(id="2/1", kind="guardrail", agent="clerk", text="Lend?")
NAME = Question(id="3/2", kind="answer", agent="clerk", text="Whose name?")
YES = Consent(approved=True)


@pytest.fixture
async def runs(tmp_path: Path) -> AsyncIterator[RunStore]:
    store = await RunStore(tmp_path / "runs.db").open()
    yield store
    await store.aclose()


async def waiting(runs: RunStore, *questions: Question, status: RunStatus = "needs_input") -> RunRecord:
    record = RunRecord(id="r1", trace_id="t", crew="c", task=Task(id="q1", prompt="p"), status=status)
    return await runs.put(record.model_copy(update={"pending": questions}))


async def test_a_word_is_kept_for_the_question_that_wants_it(runs: RunStore) -> None:
    await waiting(runs, PAY, NAME)
    assert (await decide(runs, "r1", Consent(approved=False, reason="too much"))).open_questions == (NAME,)
    record = await answer(runs, "r1", "Ann")
    assert record.answers == {"1/1": {"approved": False, "reason": "too much"}, "3/2": "Ann"}
    assert record.open_questions == ()
    assert await runs.get("r1") == record


async def test_among_several_questions_one_is_named(runs: RunStore) -> None:
    await waiting(runs, PAY, LEND)
    with pytest.raises(ConfigError, match=r"asks 2 questions: say which, --question with one of 1/1, 2/1$"):
        await decide(runs, "r1", YES)
    await decide(runs, "r1", YES, question_id="2/1")
    assert (await decide(runs, "r1", YES)).open_questions == ()


async def test_a_word_can_be_taken_back_until_the_run_goes_on(runs: RunStore) -> None:
    await waiting(runs, PAY)
    await decide(runs, "r1", YES)
    with pytest.raises(ConfigError, match="asks nothing"):
        await decide(runs, "r1", YES)
    record = await decide(runs, "r1", Consent(approved=False), question_id="1/1")
    assert record.answers == {"1/1": {"approved": False, "reason": ""}}


async def test_a_question_gets_the_kind_of_word_that_it_wants(runs: RunStore) -> None:
    await waiting(runs, PAY)
    for question_id in (None, "1/1"):
        with pytest.raises(ConfigError, match="does not want an answer: `journeyman runs approve r1`"):
            await answer(runs, "r1", "Ann", question_id=question_id)
    await waiting(runs, NAME)
    for question_id in (None, "3/2"):
        with pytest.raises(ConfigError, match="does not want a yes or no: `journeyman runs answer r1`"):
            await decide(runs, "r1", YES, question_id=question_id)


async def test_what_nobody_asked_is_refused(runs: RunStore) -> None:
    with pytest.raises(ConfigError, match="no run 'r1'"):
        await decide(runs, "r1", YES)
    await waiting(runs, PAY)
    with pytest.raises(ConfigError, match="asks no question '9/9'"):
        await decide(runs, "r1", YES, question_id="9/9")
    await waiting(runs, status="ok")
    with pytest.raises(ConfigError, match=r"run r1 \(ok\) asks nothing"):
        await decide(runs, "r1", YES)


@pytest.mark.parametrize("status", ["needs_input", "paused", "running"])
async def test_a_run_at_which_nobody_works_is_cancelled_at_once(runs: RunStore, status: RunStatus) -> None:
    await waiting(runs, PAY, status=status)
    await runs.note_step("r1", "1", 1, {"begun": True})
    record = await cancel(runs, "r1", Tracer())
    assert (record.status, record.pending) == ("cancelled", ())
    assert record.outcome is not None
    assert (record.outcome.status, record.outcome.run_id, record.outcome.trace_id) == ("cancelled", "r1", "t")
    assert await runs.steps("r1", "1") == {}


async def test_a_cancelled_run_keeps_what_it_had_spent(runs: RunStore) -> None:
    known = await waiting(runs, PAY)
    spent = Outcome(task_id="q1", trace_id="t", run_id="r1", status="needs_input", error="it waits", model_calls=3)
    await runs.put(known.model_copy(update={"outcome": spent}))
    outcome = (await cancel(runs, "r1", Tracer())).outcome
    assert outcome == spent.model_copy(update={"status": "cancelled", "error": "it was cancelled while it waited"})


async def test_the_record_says_that_a_run_was_cancelled(runs: RunStore, tmp_path: Path) -> None:
    known = await waiting(runs, PAY)
    log = SpanLog(tmp_path / "spans")
    record = await cancel(runs, "r1", Tracer(log))
    log.close()
    (trace,) = TraceStore(tmp_path / "spans", tmp_path / "labels.jsonl").traces()
    assert (trace.trace_id, trace.crew, trace.task) == (known.trace_id, known.crew, known.task)
    assert trace.outcome == record.outcome


async def test_what_is_still_at_work_records_its_own_end(runs: RunStore, tmp_path: Path) -> None:
    await waiting(runs, status="running")
    log = SpanLog(tmp_path / "spans")
    async with runs.lock("r1"):
        await cancel(runs, "r1", Tracer(log))
    log.close()
    assert list(TraceStore(tmp_path / "spans", tmp_path / "labels.jsonl").traces()) == []


async def test_a_run_at_work_elsewhere_is_told_to_end(runs: RunStore) -> None:
    await waiting(runs, status="running")
    async with runs.lock("r1"):
        record = await cancel(runs, "r1", Tracer())
    assert (record.status, record.cancel) == ("running", True)


async def test_a_run_that_ended_stays_as_it_is(runs: RunStore) -> None:
    before = await waiting(runs, status="ok")
    with pytest.raises(ConfigError, match="has ended already: ok"):
        await cancel(runs, "r1", Tracer())
    assert await runs.get("r1") == before
    with pytest.raises(ConfigError, match="no run 'r2'"):
        await cancel(runs, "r2", Tracer())
