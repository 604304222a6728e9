"""What holds a run in: its budget, guardrails and permissions; and what stands in where a policy fails."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from journeyman.agents.agent import Agent, Crew, Limits, MemoryConfig
from journeyman.agents.budget import Budget
from journeyman.agents.guards.guardrails import CheckContext, Finding, Guardrail
from journeyman.agents.guards.permissions import Permission, Permissions
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.routing import Router, RoutingConfig, Rule
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.run.events import Token
from journeyman.runtime.runtime import Runtime
from journeyman.tools.tool import Tool
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ModelError
from journeyman.traces.prices import Price
from journeyman.traces.trace import Outcome, Task

PLAN = json.dumps({"assignments": [{"worker": "clerk", "goal": f"goal {n}"} for n in (1, 2, 3)]})


class Memory:
    """A sink that keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[SpanRecord] = []

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self.spans.append(span)

    def of(self, operation: str) -> list[SpanRecord]:
        return [span for span in self.spans if span.attributes[a.OPERATION] == operation]


def replies(request: ModelRequest) -> str:
    last = request.messages[-1].content
    if request.messages[0].content == "Plan.":
        return PLAN
    return write_answer(last) if last.startswith("look: ") else write_call("look", {"what": last})


def look(what: str) -> str:
    """Looks at something."""
    return f"saw {what}"


def crew(**options: Any) -> Crew:
    clerk = Agent(name="clerk", instructions="Look.", tools=("look",), limits=Limits(turns=3, tokens=10))
    boss = Agent(name="boss", instructions="Plan.", replans=0, limits=Limits(tokens=30))
    return Crew(
        **{"name": "office", "orchestrator": boss, "workers": (clerk,), "tools": {"look": Tool(look)}, **options}
    )


async def carried_out(
    crew: Crew, model: ScriptedModel | None = None, task: str | Task = "Look at all.", **options: Any
) -> tuple[Outcome, Memory]:
    memory = Memory()
    runtime = Runtime(crew, model=model or ScriptedModel(replies), tracer=Tracer(memory), **options)
    return await runtime.run(task), memory


def check_for(word: str) -> Any:
    def check(text: str, context: CheckContext) -> Finding | None:
        at = text.find(word)
        return None if at < 0 else Finding(reason=f"it says {word!r}", spans=((at, at + len(word)),))

    return check


@pytest.mark.parametrize(
    "budget", [Budget(model_calls=5, reserve=0), Budget(tokens=170, reserve=0), Budget(tool_calls=1)]
)
async def test_a_run_out_of_budget_gives_back_the_best_it_has(budget: Budget) -> None:
    outcome, _ = await carried_out(crew(budget=budget))
    assert outcome.status == "over_budget" and "budget" in (outcome.error or "")
    assert "saw goal" in outcome.answer
    if budget.model_calls:
        assert outcome.model_calls == 5
    if budget.tool_calls:
        assert outcome.tool_calls == 1


async def test_money_is_counted_and_limited_by_the_price_table() -> None:
    prices = {"default": Price(input=1.0, output=1.0)}
    outcome, memory = await carried_out(crew(budget=Budget(cost=1.0)), prices=prices)
    assert outcome.status == "ok" and outcome.cost == pytest.approx(outcome.usage.tokens / 1e6)
    left = json.loads(str(memory.of("chat")[-1].attributes[a.BUDGET]))
    assert left["cost"] < 1


@pytest.mark.parametrize(
    ("place", "word", "status"),
    [
        ("task", "Look at all", "blocked"),
        ("agent", "goal 2", "ok"),
        ("call", "goal 2", "ok"),
        ("answer", "saw", "blocked"),
    ],
)
async def test_what_a_guardrail_blocks_goes_no_further(place: Any, word: str, status: str) -> None:
    rail = Guardrail(name="rail", check=check_for(word), at=(place,))
    outcome, memory = await carried_out(crew(guardrails=(rail,)))
    assert outcome.status == status
    assert "saw goal 2" not in outcome.answer
    if status == "ok":
        assert "saw goal 1" in outcome.answer and "saw goal 3" in outcome.answer
    decided = [str(span.attributes[a.DECISIONS]) for span in memory.spans if a.DECISIONS in span.attributes]
    assert any('"block"' in decision and '"rail"' in decision for decision in decided)


async def test_what_a_guardrail_takes_out_of_a_tool_result_no_model_reads() -> None:
    model = ScriptedModel(replies)
    rail = Guardrail(name="rail", check=check_for("goal 2"), at=("result",), action="redact")
    outcome, _ = await carried_out(crew(guardrails=(rail,)), model)
    results = [
        message.content for request in model.requests for message in request.messages if "look: " in message.content
    ]
    assert outcome.status == "ok" and "saw [redacted:rail]" in outcome.answer
    assert results and not any("goal 2" in result for result in results)


async def test_a_permission_is_enforced_whatever_the_model_says() -> None:
    called: list[str] = []

    def spy(what: str) -> str:
        """Looks."""
        called.append(what)
        return "seen"

    rows = (Permission(tool="look", arguments={"what": "goal [13]"}, decision="allow"),)
    outcome, memory = await carried_out(
        crew(tools={"look": Tool(spy, name="look")}, permissions=Permissions(rows=rows, default="deny"))
    )
    assert sorted(called) == ["goal 1", "goal 3"] and outcome.tool_calls == 2
    refused = [span for span in memory.of("execute_tool") if span.attributes[a.TOOL_STATUS] == "denied"]
    assert len(refused) == 1 and '"deny"' in str(refused[0].attributes[a.DECISIONS])


class Broken(ScriptedModel):
    """Does not answer for one policy."""

    def __init__(self, policy: str) -> None:
        super().__init__(replies)
        self._policy = policy

    async def complete(self, request: ModelRequest) -> ModelReply:
        if request.policy == self._policy:
            raise ModelError("the server answered 503", kind="server_error")
        return await super().complete(request)


async def test_a_policy_that_fails_hands_over_to_its_fallback_with_the_reason_in_the_trace() -> None:
    policies = PolicyTable(agents={"clerk": "clerk@1"}, fallbacks={"clerk": ("base",)})
    outcome, memory = await carried_out(crew(), Broken("clerk@1"), policies=policies)
    assert outcome.status == "ok"
    stood_in = [span for span in memory.of("chat") if span.attributes.get(a.POLICY_REASON)]
    assert len(stood_in) == 6
    assert {span.attributes[a.REQUEST_MODEL] for span in stood_in} == {"base"}
    assert "server_error" in str(stood_in[0].attributes[a.POLICY_REASON])


async def test_a_route_chooses_the_policy_and_stands_in_the_trace() -> None:
    router = Router(RoutingConfig(large="large", rules=(Rule(to="large", goal="goal 2"),)))
    outcome, memory = await carried_out(crew(), router=router)
    routed = [span for span in memory.of("chat") if span.attributes[a.REQUEST_MODEL] == "large"]
    assert outcome.status == "ok" and len(routed) == 2
    assert all(span.attributes[a.POLICY_REASON] for span in routed)


async def test_tokens_are_told_as_they_come_and_make_up_the_replies() -> None:
    model = ScriptedModel(replies)
    events = [event async for event in Runtime(crew(), model=model).stream("Look at all.", tokens=True)]
    told: dict[tuple[str, str | None], str] = {}
    for event in events:
        if isinstance(event, Token):
            told[event.agent, event.assignment] = told.get((event.agent, event.assignment), "") + event.text
    assert told["boss", None] == PLAN
    assert told["clerk", "2"] == write_call("look", {"what": "goal 2"}) + write_answer("look: saw goal 2")


@pytest.mark.parametrize(("action", "shown"), [("redact", False), ("warn", True)])
async def test_no_token_is_told_of_what_a_guardrail_may_still_stop_or_change(action: str, shown: bool) -> None:
    def check(text: str, context: CheckContext) -> str | None:
        return "it saw something" if "saw" in text else None

    guarded = crew(guardrails=(Guardrail(name="sight", check=check, at=("output",), action=action),))
    events = [event async for event in Runtime(guarded, model=ScriptedModel(replies)).stream("Look.", tokens=True)]
    assert any(isinstance(event, Token) for event in events) == shown


async def test_a_session_shows_its_earlier_turns_to_whom_the_task_goes() -> None:
    model = ScriptedModel(replies)
    runtime = Runtime(crew(memory=MemoryConfig()), model=model)
    await runtime.run(Task(id="1", prompt="First.", session="s"))
    await runtime.run(Task(id="2", prompt="Second.", session="s"))
    await runtime.run(Task(id="3", prompt="Third.", session="other"))
    plans = [request.messages for request in model.requests if request.messages[0].content == "Plan."]
    assert [message.content for message in plans[1]][1] == "First."
    assert [message.role for message in plans[1]] == ["system", "user", "assistant", "user"]
    assert len(plans[2]) == 2


async def test_a_failed_assignment_is_made_good_by_a_replan_and_what_was_done_is_not_done_again() -> None:
    looked: list[str] = []

    def spy(what: str) -> str:
        """Looks."""
        looked.append(what)
        if what == "goal 2":
            raise RuntimeError("too dark")
        return f"saw {what}"

    def says(request: ModelRequest) -> str:
        texts = [message.content for message in request.messages]
        if texts[0] == "Plan.":
            row = {"worker": "clerk", "goal": "goal 2 by day", "replaces": "2"}
            return json.dumps({"assignments": [row]}) if "What came of your plan" in texts[-1] else PLAN
        if "failed" in texts[-1] or texts[-1].startswith("Your"):
            return "no idea"
        return replies(request)

    boss = Agent(name="boss", instructions="Plan.", replans=1)
    outcome, memory = await carried_out(
        crew(orchestrator=boss, tools={"look": Tool(spy, name="look")}), ScriptedModel(says)
    )
    assert outcome.status == "ok" and outcome.error is None
    assert sorted(looked) == ["goal 1", "goal 2", "goal 2 by day", "goal 3"]
    assert outcome.answer == "look: saw goal 1; look: saw goal 2 by day; look: saw goal 3"
    assert len(memory.of("plan")) == 2


async def test_what_waited_for_a_replacement_that_failed_makes_a_run_without_an_answer_a_failed_one() -> None:
    row = {"worker": "clerk", "goal": "List them."}
    note = {"worker": "clerk", "goal": "What is known?"}
    plans = [
        [row],
        [{**row, "goal": "List them at night.", "replaces": "1"}, note, {**row, "goal": "Go on.", "needs": [2, 3]}],
        [{**row, "goal": "List them by day.", "replaces": "1"}],
    ]
    values = {"What is known?": ["much"], "List them by day.": []}
    wires = iter([json.dumps({"assignments": rows}) for rows in plans])

    def says(request: ModelRequest) -> str:
        if request.messages[0].content == "Plan.":
            return next(wires)
        asked = request.messages[1].content
        return write_answer(values[asked]) if asked in values else "no idea"

    clerk = Agent(name="clerk", instructions="Look.", output="values", limits=Limits(repairs=0))
    boss = Agent(name="boss", instructions="Plan.", replans=2)
    outcome = await Runtime(Crew(name="c", orchestrator=boss, workers=(clerk,)), model=ScriptedModel(says)).run("Go.")
    assert (outcome.answer, outcome.status) == ("", "failed")
    assert outcome.error is not None and "first: 4 (clerk) skipped" in outcome.error


def only(found: Sequence[SpanRecord]) -> SpanRecord:
    (one,) = found
    return one


@pytest.mark.parametrize("sufficient", [True, False])
async def test_a_judge_is_asked_only_where_a_crew_wants_it_and_its_doubt_is_told(sufficient: bool) -> None:
    def says(request: ModelRequest) -> str:
        if "sufficient" in json.dumps(request.json_schema):
            return json.dumps({"reason": "it is thin", "sufficient": sufficient})
        return replies(request)

    boss = Agent(name="boss", instructions="Plan.", replans=0, judge=True)
    outcome, memory = await carried_out(crew(orchestrator=boss), ScriptedModel(says))
    judged = only([span for span in memory.of("invoke_agent") if span.attributes[a.AGENT_NAME] == "judge"])
    assert judged.attributes[a.STATUS] == "ok" and outcome.status == "ok"
    assert (outcome.error is None) == sufficient


async def test_an_answer_that_code_refuses_fails_the_run() -> None:
    outcome, _ = await carried_out(crew(verify=("integer",)))
    assert outcome.status == "failed" and "refused" in (outcome.error or "")
