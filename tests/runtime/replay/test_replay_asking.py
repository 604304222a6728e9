"""A replay asks nobody: what a person said then is part of the record, and what needs a person now is not done."""

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.budget import Budget
from journeyman.agents.decision import Point
from journeyman.agents.guards.guardrails import Guardrail
from journeyman.agents.model import ModelReply, ModelRequest, ModelTable
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.replay.fork import Fork, find_fork
from journeyman.runtime.replay.replay import Replay
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.questions import Consent, Question
from journeyman.runtime.store.run_store import RunStore
from journeyman.tools.ask import ask
from journeyman.tools.tool import tool
from journeyman.traces import attributes as a
from journeyman.traces.assemble import assemble
from journeyman.traces.capture.content import ContentPolicy
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ConfigError
from journeyman.traces.reports.diff import diff
from journeyman.traces.trace import CUT_OFF, Outcome, Task, Trace

called: list[str] = []


@tool(approve=True)
def order(item: str) -> str:
    """Orders something."""
    called.append(item)
    return f"{item} is on its way"


@tool
def sold_out(item: str) -> str:
    """Orders something in vain."""
    return f"no {item}"


WAITER = Agent(name="waiter", instructions="Serve.", tools=("boss", "order"), limits=Limits(turns=4))
CAFE = Crew(name="cafe", orchestrator=None, workers=(WAITER,), tools={"boss": ask().renamed("boss"), "order": order})


def serves(request: ModelRequest) -> str:
    last = request.messages[-1].content
    if last.startswith("boss: "):
        return write_call("order", {"item": last.removeprefix("boss: ")})
    return write_answer(last) if last.startswith("order: ") else write_call("boss", {"question": "Which?"})


class Spans:
    """A sink that keeps the spans."""

    def __init__(self) -> None:
        self.kept: list[SpanRecord] = []

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self.kept.append(span)


async def run(replay: Replay) -> tuple[Outcome, Trace]:
    spans = Spans()
    runtime = Runtime(replay.crew, model=replay.models, tracer=Tracer(spans), words=replay.words)
    outcome = await runtime.run(replay.task)
    return outcome, assemble(spans.kept)


async def asked(tmp_path: Path) -> Trace:
    """A run in which a person answered a question and approved a call."""
    spans = Spans()
    runs = RunStore(tmp_path / "runs.db")
    async with Runtime(CAFE, model=ScriptedModel(serves), tracer=Tracer(spans), runs=runs) as runtime:
        outcome = await runtime.run(Task(id="t", prompt="A drink"))
        for said in ("tea", Consent(approved=True)):
            known = await runs.get(outcome.run_id)
            assert known is not None
            outcome = await runtime.resume(outcome.run_id, {known.pending[0].id: said})
    assert outcome.answer == "order: tea is on its way"
    called.clear()
    return assemble(spans.kept)


async def test_what_a_person_said_is_part_of_the_record(tmp_path: Path) -> None:
    recorded = await asked(tmp_path)
    outcome, again = await run(Replay(recorded, CAFE))
    assert outcome.answer == "order: tea is on its way"
    assert called == []
    assert len(recorded.trajectories) == 3
    assert diff(recorded, again).first is None


@pytest.mark.parametrize("kept", [True, False])
async def test_what_was_asked_or_not_agreed_to_costs_nothing_in_a_replay_either(kept: bool, tmp_path: Path) -> None:
    """A person says who it is, refuses an order, and agrees to the same when it is asked for again."""
    called.clear()
    spans, runs = Spans(), RunStore(tmp_path / "runs.db") if kept else None
    crew = CAFE.model_copy(
        update={"tools": {**CAFE.tools, "order": order.marked(writes=True)}, "budget": Budget(tool_calls=1)}
    )
    tea = write_call("order", {"item": "tea"})
    model = ScriptedModel([write_call("boss", {"question": "Which?"}), tea, tea, write_answer("done")])
    async with Runtime(crew, model=model, tracer=Tracer(spans), runs=runs) as runtime:
        outcome = await runtime.run(Task(id="t", prompt="A drink"))
        for word in ("tea", Consent(approved=False, reason="no"), Consent(approved=True)) if kept else ():
            known = await runtime.find(outcome.run_id)
            assert known is not None
            outcome = await runtime.resume(outcome.run_id, {known.pending[0].id: word})
    assert (outcome.status, outcome.tool_calls, called) == ("ok", int(kept), ["tea"] * kept)
    recorded = assemble(spans.kept)
    again, trace = await run(Replay(recorded, crew))
    assert (again.status, again.answer, again.tool_calls) == (outcome.status, outcome.answer, outcome.tool_calls)
    assert diff(recorded, trace).first is None


async def test_a_live_call_that_needs_a_person_is_not_made(tmp_path: Path) -> None:
    recorded = await asked(tmp_path)
    (first, *_) = recorded.turns
    fork = find_fork(recorded, first.span_id)
    _, again = await run(Replay(recorded, CAFE, fork=fork, live=ModelTable(ScriptedModel(serves))))
    statuses = {result.tool: result.status for turn in again.turns for result in turn.tool_results}
    assert statuses == {"boss": "denied", "order": "denied"}
    model = ScriptedModel([write_call("order", {"item": "tea"}), write_answer("done")])
    _, again = await run(Replay(recorded, CAFE, fork=fork, live=ModelTable(model)))
    assert [result.status for turn in again.turns for result in turn.tool_results] == ["denied"]
    assert called == []


PLAN = '{"assignments": [{"worker": "waiter", "goal": "tea"}, {"worker": "waiter", "goal": "milk"}]}'
MORE = '{"assignments": [{"worker": "waiter", "goal": "water", "replaces": 1}]}'


@tool
def menu(item: str) -> str:
    """What something costs."""
    return f"{item}: 3 euros"


def waits(request: ModelRequest) -> str:
    """Plans tea and milk, water for what failed, and looks each up."""
    last = request.messages[-1].content
    if "assignments" in (request.json_schema or {}).get("properties", {}):
        return PLAN if last == "Drinks, tea too" else MORE
    return write_answer(last) if last.startswith("menu: ") else write_call("menu", {"item": last})


POINTS: tuple[Point, ...] = ("task", "agent", "call", "result", "output", "answer")
TEAROOM = Crew(
    name="tearoom",
    orchestrator=Agent(name="orchestrator", instructions="Plan.", approve=True),
    workers=(Agent(name="waiter", instructions="Serve.", tools=("menu",), limits=Limits(turns=2)),),
    tools={"menu": menu},
    guardrails=(
        Guardrail(name="tea", check=lambda text, _: "again" if "tea" in text else None, at=POINTS, action="ask"),
    ),
)
"""A person is asked about every plan, and about every text with tea in it."""


async def decided(
    tmp_path: Path, refused: Sequence[str], crew: Crew = TEAROOM, content: ContentPolicy | None = None
) -> Trace:
    """A run in which a person said yes to everything but what is `refused`."""
    spans, runs = Spans(), RunStore(tmp_path / "runs.db")
    tracer = Tracer(spans, content=content)
    async with Runtime(crew, model=ScriptedModel(waits), tracer=tracer, runs=runs) as runtime:
        outcome = await runtime.run(Task(id="t", prompt="Drinks, tea too"))
        while outcome.status == "needs_input":
            known = await runs.get(outcome.run_id)
            assert known is not None
            words = {one.id: Consent(approved=subject(one) not in refused, reason="so") for one in known.pending}
            outcome = await runtime.resume(outcome.run_id, words)
    return assemble(spans.kept)


def subject(question: Question) -> str:
    """`call`, `plan`, `plan.1`, or the guardrail's place."""
    return question.step_key.lstrip("0123456789.") or "call"


@pytest.mark.parametrize("refused", [(), ("plan",), ("agent", "plan.1"), *((point,) for point in POINTS)])
async def test_a_replay_goes_where_a_person_let_the_run_go(refused: tuple[str, ...], tmp_path: Path) -> None:
    recorded = await decided(tmp_path, refused)
    outcome, again = await run(Replay(recorded, TEAROOM))
    assert diff(recorded, again).first is None
    assert recorded.outcome is not None
    how = [(one.status, one.answer, one.error) for one in (recorded.outcome, outcome)]
    assert how[0] == how[1]
    assert ("a person refused it: so" in str(how)) == bool(set(refused) - {"call", "result", "plan.1"})


async def test_a_run_that_still_waits_is_not_replayed(tmp_path: Path) -> None:
    spans = Spans()
    runs = RunStore(tmp_path / "runs.db")
    async with Runtime(TEAROOM, model=ScriptedModel(waits), tracer=Tracer(spans), runs=runs) as runtime:
        await runtime.run(Task(id="t", prompt="Drinks, tea too"))
    with pytest.raises(ConfigError, match="is needs_input: its run did not end, so resume it instead"):
        Replay(assemble(spans.kept), TEAROOM)


def plans(*goals: str) -> str:
    return json.dumps({"assignments": [{"worker": "waiter", "goal": goal} for goal in goals]})


@pytest.mark.parametrize("refused", [(), ("plan",)])
async def test_live_a_person_s_word_holds_for_the_plan_that_he_saw(refused: tuple[str, ...], tmp_path: Path) -> None:
    crew = TEAROOM.model_copy(update={"guardrails": ()})
    recorded = await decided(tmp_path, refused, crew)
    assert recorded.outcome is not None
    last = max(turn.started_ns for turn in recorded.turns)
    for fork in (find_fork(recorded, recorded.turns[0].span_id), Fork(span_id="f", agent="waiter", at_ns=last)):
        replay = Replay(recorded, crew, fork=fork, live=ModelTable(ScriptedModel(waits)))
        outcome, _ = await run(replay)
        assert (outcome.status, outcome.error) == (recorded.outcome.status, recorded.outcome.error)
        assert replay.words.unasked == []


async def test_a_word_holds_also_for_a_plan_with_texts_taken_out(tmp_path: Path) -> None:
    crew = TEAROOM.model_copy(update={"guardrails": ()})
    recorded = await decided(tmp_path, (), crew, ContentPolicy("full", (lambda text: text.replace("tea", "T"),)))
    assert '"tea"' not in recorded.model_dump_json()
    outcome, again = await run(Replay(recorded, crew))
    assert outcome.status == "ok"
    assert diff(recorded, again).first is None


async def test_live_another_plan_is_followed_only_where_it_was_approved_beforehand(tmp_path: Path) -> None:
    crew = TEAROOM.model_copy(update={"guardrails": ()})
    recorded = await decided(tmp_path, (), crew)
    fork = find_fork(recorded, recorded.turns[0].span_id)
    replay = Replay(recorded, crew, fork=fork, live=ModelTable(ScriptedModel([plans("beer")])))
    outcome, _ = await run(replay)
    assert (outcome.status, outcome.model_calls) == ("blocked", 1)
    assert len(replay.words.unasked) == 1 and "beer" in replay.words.unasked[0]
    live = ModelTable(ScriptedModel([plans("beer"), write_answer("cheers")]))
    outcome, again = await run(Replay(recorded, crew, fork=fork, live=live, approve=True))
    assert outcome.answer == "cheers"
    assert "agreed to before the replay began" in str(again.decisions)


async def test_what_is_approved_beforehand_is_done_but_an_answer_in_words_is_nobody_s(tmp_path: Path) -> None:
    recorded = await asked(tmp_path)
    fork = find_fork(recorded, recorded.turns[0].span_id)
    for approve, statuses in ((False, ["denied", "denied"]), (True, ["denied", "ok"])):
        script = [write_call("boss", {"question": "Which?"}), write_call("order", {"item": "tea"}), write_answer("ok")]
        replay = Replay(recorded, CAFE, fork=fork, live=ModelTable(ScriptedModel(script)), approve=approve)
        _, again = await run(replay)
        assert [result.status for turn in again.turns for result in turn.tool_results] == statuses
        assert len(replay.words.unasked) == statuses.count("denied")
    assert called == ["tea"]


async def test_the_record_says_what_was_approved_beforehand(tmp_path: Path) -> None:
    recorded, spans = await asked(tmp_path), Spans()
    fork = find_fork(recorded, recorded.turns[1].span_id)
    live = ModelTable(ScriptedModel([write_call("order", {"item": "milk"}), write_answer("ok")]))
    replay = Replay(recorded, CAFE, fork=fork, live=live, approve=True)
    await Runtime(replay.crew, model=replay.models, tracer=Tracer(spans), words=replay.words).run(replay.task)
    reasons = {
        span.name: "agreed to before the replay began" in str(span.attributes.get(a.DECISIONS))
        for span in spans.kept
        if span.name.startswith("execute_tool")
    }
    assert reasons == {"execute_tool boss": False, "execute_tool order": True}
    assert called == ["milk"]


async def test_texts_are_let_through_where_that_was_said_beforehand(tmp_path: Path) -> None:
    recorded = await decided(tmp_path, ())
    fork = find_fork(recorded, recorded.turns[0].span_id)
    for approve, status in ((True, "ok"), (False, "blocked")):
        live = ModelTable(
            ScriptedModel([plans("tea, green"), write_call("menu", {"item": "tea"}), write_answer("tea")])
        )
        outcome, _ = await run(Replay(recorded, TEAROOM, fork=fork, live=live, approve=approve))
        assert outcome.status == status


async def test_what_is_recorded_asks_nobody_and_needs_no_approval(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only a replay that goes on live"):
        Replay(await asked(tmp_path), CAFE, approve=True)


async def test_live_a_person_s_word_counts_for_what_was_done_before_the_fork(tmp_path: Path) -> None:
    freely = TEAROOM.model_copy(
        update={
            "orchestrator": Agent(name="orchestrator", instructions="Plan."),
            "guardrails": (TEAROOM.guardrails[0].model_copy(update={"at": ("task", "agent", "output")}),),
        }
    )
    recorded = await decided(tmp_path, (), freely)
    live = ModelTable(ScriptedModel(waits))
    last = max(turn.started_ns for turn in recorded.turns)
    late = Fork(span_id="f", agent="waiter", at_ns=last + 10**12)
    outcome, _ = await run(Replay(recorded, freely, fork=late, live=live))
    assert (outcome.status, outcome.error) == ("ok", None)
    soon = find_fork(recorded, recorded.turns[0].span_id)
    outcome, _ = await run(Replay(recorded, freely, fork=soon, live=live))
    assert outcome.error is not None and "a person would have to be asked" in outcome.error


class Stuck(ScriptedModel):
    """Never answers its second request."""

    def __init__(self) -> None:
        super().__init__([write_call("order", {"item": "tea"})])
        self.asked = asyncio.Event()

    async def complete(self, request: ModelRequest) -> ModelReply:
        if self.requests:
            self.asked.set()
            await asyncio.Event().wait()
        return await super().complete(request)


async def test_a_run_that_was_cut_off_and_went_on_is_replayed_as_one(tmp_path: Path) -> None:
    cafe = CAFE.model_copy(update={"tools": {**CAFE.tools, "order": sold_out.renamed("order")}})
    spans = Spans()
    runs = RunStore(tmp_path / "runs.db")
    stuck = Stuck()
    async with Runtime(cafe, model=stuck, tracer=Tracer(spans), runs=runs) as runtime:
        running = asyncio.create_task(runtime.run(Task(id="t", prompt="A drink"), run_id="r"))
        await stuck.asked.wait()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    async with Runtime(cafe, model=ScriptedModel([write_answer("none")]), tracer=Tracer(spans), runs=runs) as runtime:
        outcome = await runtime.run(Task(id="t", prompt="A drink"), run_id="r")
    recorded = assemble(spans.kept)
    assert (outcome.answer, [turn.error for turn in recorded.turns]) == ("none", [None, CUT_OFF, None])
    outcome, again = await run(Replay(recorded, cafe))
    assert outcome.answer == "none"
    assert diff(recorded, again).first is None
