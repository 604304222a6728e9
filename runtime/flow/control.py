"""Interventions: what a person may do to a run from outside, while it waits or from another process."""

from pydantic import JsonValue

from journeyman.runtime.run.run import origin_attributes, run_attributes
from journeyman.runtime.store.database import check_text
from journeyman.runtime.store.locks import RunBusyError
from journeyman.runtime.store.questions import Consent, Question, read_word
from journeyman.runtime.store.run_store import WAITING, RunRecord, RunStore
from journeyman.traces import attributes as a
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Outcome


async def say(runs: RunStore, run_id: str, word: object, *, question_id: str) -> RunRecord:
    """`answer` or `decide`, whichever the question wants, of what `read_word` takes. Raises `ConfigError`."""
    record = await runs.get(run_id)
    asked = () if record is None else record.pending
    read = read_word(word, next((question for question in asked if question.id == question_id), None))
    if isinstance(read, Consent):
        return await decide(runs, run_id, read, question_id=question_id)
    return await answer(runs, run_id, read, question_id=question_id)


async def decide(runs: RunStore, run_id: str, consent: Consent, *, question_id: str | None = None) -> RunRecord:
    """Says yes or no to what the run wants to do; it takes that up when it is resumed. Raises `ConfigError`."""
    return await _say(runs, run_id, consent.model_dump(mode="json"), question_id, wants_text=False)


async def answer(runs: RunStore, run_id: str, text: str, *, question_id: str | None = None) -> RunRecord:
    """Answers a question of the run; it takes that up when it is resumed. Raises `ConfigError`."""
    return await _say(runs, run_id, text, question_id, wants_text=True)


async def cancel(runs: RunStore, run_id: str, tracer: Tracer) -> RunRecord:
    """Ends a run that waits or whose process died; one at work elsewhere is told to end. Raises `ConfigError`.

    `tracer` records the end of a run at which nobody works.
    """
    try:
        async with runs.lock(run_id):
            known = await runs.get(run_id)
            if known is None or known.status not in WAITING:
                return await runs.change(run_id, _not_cancellable)
            outcome = _cancelled(known)
            _record(known, outcome, tracer)
            await tracer.synced()
            ended = {"status": "cancelled", "cancel": True, "pending": (), "outcome": outcome}
            return await runs.finish(known.model_copy(update=ended))
    except RunBusyError:
        told = await runs.change(run_id, lambda record: record.model_copy(update={"cancel": True}))
        # One that has just ended, or stopped at a question, lets go of its lock at once.
        return told if told.status == "running" else await cancel(runs, run_id, tracer)


async def _say(runs: RunStore, run_id: str, word: JsonValue, question_id: str | None, *, wants_text: bool) -> RunRecord:
    check_text("the answer", word)

    def said(record: RunRecord) -> RunRecord:
        question = _asked(record, question_id, wants_text=wants_text)
        return record.model_copy(update={"answers": {**record.answers, question.id: word}})

    return await runs.change(run_id, said)


def _asked(record: RunRecord, question_id: str | None, *, wants_text: bool) -> Question:
    """The question that is meant: the one of that id, or the only open one of that kind."""
    kind, other = ("an answer", "approve") if wants_text else ("a yes or no", "answer")
    if question_id is None:
        found = [question for question in record.open_questions if (question.kind == "answer") == wants_text]
        if len(found) > 1:
            ids = ", ".join(question.id for question in found)
            raise ConfigError(f"run {record.id} asks {len(found)} questions: say which, --question with one of {ids}")
        if not found and record.open_questions:
            raise ConfigError(f"run {record.id} does not want {kind}: `journeyman runs {other} {record.id}`")
    else:
        found = [question for question in record.pending if question.id == question_id]
        if found and (found[0].kind == "answer") != wants_text:
            raise ConfigError(f"question {question_id} does not want {kind}: `journeyman runs {other} {record.id}`")
    if record.status != "needs_input" or not found:
        asked = "nothing" if question_id is None else f"no question {question_id!r}"
        raise ConfigError(f"run {record.id} ({record.status}) asks {asked}: `journeyman runs show {record.id}`")
    return found[0]


def _not_cancellable(record: RunRecord) -> RunRecord:
    raise ConfigError(f"run {record.id} has ended already: {record.status}")


def _cancelled(record: RunRecord) -> Outcome:
    why = "it was cancelled while it waited" if record.pending else "it was cancelled after it had been interrupted"
    before = record.outcome or Outcome(
        task_id=record.task.id, trace_id=record.trace_id, run_id=record.id, status="cancelled"
    )
    return before.model_copy(update={"status": "cancelled", "error": why})


def _record(record: RunRecord, outcome: Outcome, tracer: Tracer) -> None:
    """The last part of the run, in which nothing was done."""
    attributes = {
        a.OPERATION: "invoke_workflow",
        a.WORKFLOW_NAME: record.crew,
        **run_attributes(record.id, record.task),
        **origin_attributes(record.origin),
        a.TASK: record.task.model_dump_json(),
        a.OUTCOME: outcome.model_dump_json(),
        a.STATUS: outcome.status,
    }
    with tracer.span(
        f"invoke_workflow {record.crew}", parent=None, attributes=attributes, trace_id=record.trace_id
    ) as workflow:
        workflow.fail(outcome.status, outcome.error or outcome.status)
