"""What a guardrail wants a person to see waits for him, wherever it is; and what he said is what happens."""

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.budget import Budget
from journeyman.agents.decision import Point
from journeyman.agents.guards.guardrails import CheckContext, Finding, Guardrail
from journeyman.agents.guards.permissions import Permission, Permissions
from journeyman.agents.model import ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.questions import Consent, Question
from journeyman.runtime.store.run_store import RunStore
from journeyman.runtime.workspace import Workspace
from journeyman.tools.ask import ask
from journeyman.tools.tool import Tool
from journeyman.traces import attributes as a
from journeyman.traces.assemble import assemble
from journeyman.traces.capture.log import SpanLog, SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.trace import Outcome, Task

PLAN = json.dumps({"assignments": [{"worker": "clerk", "goal": "find the secret"}]})
TASK = Task(id="t", prompt="What is the secret?")


class Spans:
    """A sink that keeps the spans."""

    def __init__(self) -> None:
        self.kept: list[SpanRecord] = []

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self.kept.append(span)

    def of(self, operation: str) -> list[SpanRecord]:
        return [span for span in self.kept if span.attributes[a.OPERATION] == operation]


def replies(request: ModelRequest) -> str:
    last = request.messages[-1].content
    if request.messages[0].content == "Plan.":
        return PLAN
    if not last.startswith("look: "):
        return write_call("look", {"what": last})
    return write_answer(last if last.startswith("look: saw ") else f"Sorry: {last}")


class Office:
    """One clerk who looks things up, as often as the model asks."""

    def __init__(self, folder: Path, *, keeps: bool = True, **options: Any) -> None:
        self.looked: list[str] = []
        self.model = ScriptedModel(replies)
        self.spans = Spans()
        self.workspace = Workspace(folder)
        self.runs = RunStore(folder / "runs.db") if keeps else None
        self.tools = {"look": Tool(self.look, idempotent=False)}
        self.options: dict[str, Any] = options

    def look(self, what: str) -> str:
        """Looks for something."""
        self.looked.append(what)
        return f"saw {what}"

    def runtime(self) -> Runtime:
        """Another one each time, as another process would have."""
        clerk = Agent(name="clerk", instructions="Look.", tools=("look",), limits=Limits(turns=3))
        boss = Agent(name="boss", instructions="Plan.", replans=0)
        options: dict[str, Any] = {"orchestrator": boss, "workers": (clerk,), "tools": self.tools, **self.options}
        crew = Crew(name="office", **options)
        return Runtime(crew, model=self.model, tracer=Tracer(self.spans, self.recorded()), runs=self.runs)

    def recorded(self) -> SpanLog:
        return SpanLog(self.workspace.create().spans)

    @property
    def decisions(self) -> list[tuple[str, str, str]]:
        """Who decided where, and what."""
        rows = self.workspace.store.sql("SELECT source, place, action FROM decisions ORDER BY started_ns").to_pylist()
        return [(row["source"], row["place"], row["action"]) for row in rows]

    async def run(self, **words: Consent) -> Outcome:
        """Begins, or goes on with the same word for every question that is open."""
        async with self.runtime() as runtime:
            known = await runtime.find("r")
            if known is None:
                return await runtime.run(TASK, run_id="r" if self.runs else None)
            return await runtime.resume("r", {question.id: words["word"] for question in known.pending})

    async def asked(self) -> tuple[Question, ...]:
        async with self.runtime() as runtime:
            known = await runtime.find("r")
            assert known is not None
            return known.pending


class Finds:
    """A check that finds a word; `times` says how often, where it changes its mind."""

    def __init__(self, word: str, times: int = 100) -> None:
        self._word = word
        self._left = times

    def __call__(self, text: str, context: CheckContext) -> Finding | None:
        at = text.find(self._word)
        if at < 0 or not self._left:
            return None
        self._left -= 1
        return Finding(reason="it tells", spans=((at, at + len(self._word)),))


def asks(point: Point, word: str = "secret") -> Guardrail:
    return Guardrail(name="rail", check=Finds(word), at=point, action="ask")


YES, NO = Consent(approved=True), Consent(approved=False, reason="not yet")
SEEN = "saw find the secret"
POINTS: list[tuple[Point, str, str]] = [
    ("task", TASK.prompt, "the task was refused"),
    ("agent", "find the secret", "the goal was refused"),
    ("result", SEEN, "the result of look was withheld"),
    ("output", f"look: {SEEN}", "the output was withheld"),
    ("answer", f"look: {SEEN}", "the answer was withheld"),
]


@pytest.mark.parametrize(("point", "content"), [(point, content) for point, content, _ in POINTS])
async def test_a_text_waits_for_a_person_who_lets_it_through(point: Point, content: str, tmp_path: Path) -> None:
    office = Office(tmp_path, guardrails=(asks(point),))
    waiting = await office.run()
    (question,) = await office.asked()
    assert (waiting.status, question.kind, question.content) == ("needs_input", "guardrail", content)
    assert "it tells" in question.text and content not in question.text
    outcome = await office.run(word=YES)
    assert (outcome.status, outcome.answer) == ("ok", f"look: {SEEN}")
    assert (outcome.model_calls, outcome.tool_calls) == (3, 1)
    assert (len(office.model.requests), office.looked) == (3, ["find the secret"]), "nothing is done twice"
    decided = [("guardrail", point, "ask"), ("person", point, "allow")]
    assert office.decisions == decided


@pytest.mark.parametrize(("point", "refusal"), [(point, refusal) for point, _, refusal in POINTS])
async def test_a_text_that_a_person_refuses_goes_no_further(point: Point, refusal: str, tmp_path: Path) -> None:
    office = Office(tmp_path, guardrails=(asks(point),))
    await office.run()
    outcome = await office.run(word=NO)
    said = [outcome.error or "", *(message.content for one in office.model.requests for message in one.messages)]
    assert any(f"{refusal}: a person refused it: not yet" in text for text in said)
    assert SEEN not in outcome.answer
    assert outcome.status == ("ok" if point == "result" else "blocked")
    assert office.decisions == [("guardrail", point, "ask"), ("person", point, "deny")]


@pytest.mark.parametrize(("point", "refusal"), [(point, refusal) for point, _, refusal in POINTS])
async def test_where_no_run_can_wait_the_text_is_withheld_and_no_person_is_said_to_have_spoken(
    point: Point, refusal: str, tmp_path: Path
) -> None:
    office = Office(tmp_path, keeps=False, guardrails=(asks(point),))
    async with office.runtime() as runtime:
        outcome = await runtime.run(TASK)
    said = [outcome.error or "", *(message.content for one in office.model.requests for message in one.messages)]
    assert any(refusal in text and "keeps no runs" in text for text in said)
    assert SEEN not in outcome.answer
    assert office.decisions == [("guardrail", point, "ask")]


@pytest.mark.parametrize("point", ["task", "agent", "result", "output"])
async def test_work_that_waits_has_not_failed(point: Point, tmp_path: Path) -> None:
    office = Office(tmp_path, guardrails=(asks(point),))
    await office.run()
    at_work = [span for span in office.spans.of("plan") + office.spans.of("invoke_agent") if waits(span)]
    assert at_work and all(span.status == "ok" for span in at_work if span.attributes[a.AGENT_NAME] != "boss")
    plan = office.spans.of("plan")[0]
    assert (plan.status, waits(plan)) == ("ok", point == "task")


def waits(span: SpanRecord) -> bool:
    return span.attributes.get(a.STATUS) == "needs_input"


async def test_a_result_that_waited_is_one_result_in_the_trace_and_says_what_the_model_read(tmp_path: Path) -> None:
    for word, status in ((YES, "ok"), (NO, "denied")):
        office = Office(tmp_path / status, guardrails=(asks("result"),))
        await office.run()
        assert [turn.tool_results for turn in assemble(office.spans.kept).turns] == [(), ()]
        outcome = await office.run(word=word)
        trace = assemble(office.spans.kept)
        (result,) = [result for turn in trace.turns for result in turn.tool_results]
        assert (result.status, SEEN in result.content) == (status, word.approved)
        assert outcome.evidence == ((result.span_id,) if word.approved else ())


async def test_of_several_results_only_those_that_a_guardrail_stops_wait(tmp_path: Path) -> None:
    calls = json.dumps([{"look": {"what": what}} for what in ("the secret", "a tree", "a second secret")])

    def says(request: ModelRequest) -> str:
        last = request.messages[-1].content
        return calls if last == TASK.prompt else write_answer(f"So it went: {last}")

    clerk = Agent(name="clerk", instructions="Look.", tools=("look",), parallel_calls=3)
    rail = asks("result", word="saw the secret")
    office = Office(tmp_path, orchestrator=None, workers=(clerk,), guardrails=(rail,))
    office.model = ScriptedModel(says)
    await office.run()
    (question,) = await office.asked()
    assert (question.tool, question.arguments, question.content) == ("look", {"what": "the secret"}, "saw the secret")
    outcome = await office.run(word=NO)
    assert sorted(office.looked) == ["a second secret", "a tree", "the secret"]
    assert "saw a tree" in outcome.answer and "saw a second secret" in outcome.answer
    assert "saw the secret" not in outcome.answer
    assert (outcome.model_calls, outcome.tool_calls) == (2, 3)


async def test_a_result_that_waits_is_told_to_nobody_who_asks_for_the_same_call(tmp_path: Path) -> None:
    clerk = Agent(name="clerk", instructions="Look.", tools=("look",), parallel_calls=2)
    office = Office(tmp_path, orchestrator=None, workers=(clerk,), guardrails=(asks("result", word="saw"),))

    async def look(what: str) -> str:
        """Looks at once."""
        return office.look(what)

    office.tools = {"look": Tool(look, idempotent=False)}
    call = {"look": {"what": "it"}}
    office.model = ScriptedModel([json.dumps([call, call]), write_answer("nothing")])
    await office.run()
    await office.run(word=NO)
    shown = [message.content for message in office.model.requests[-1].messages]
    assert office.looked == ["it"]
    assert not any("saw it" in text for text in shown)


async def test_a_list_of_values_waits_as_it_is(tmp_path: Path) -> None:
    clerk = Agent(name="clerk", instructions="Look.", output="values")
    office = Office(tmp_path, orchestrator=None, workers=(clerk,), guardrails=(asks("output"),))
    office.model = ScriptedModel([json.dumps({"answer": ["a", "secret"]})])
    await office.run()
    (question,) = await office.asked()
    assert question.content == '["a", "secret"]'
    assert (await office.run(word=YES)).answer == "a, secret"


@pytest.mark.parametrize("point", ["task", "agent", "call", "result", "output", "answer"])
async def test_what_was_shown_to_a_person_is_what_happens_whatever_a_check_says_later(
    point: Point, tmp_path: Path
) -> None:
    cut = Guardrail(name="cut", check=Finds("secret", times=1), at=point, action="redact")
    ask = Guardrail(name="ask", check=Finds("secret", times=1), at=point, action="ask")
    office = Office(tmp_path, guardrails=(cut, ask))
    await office.run()
    (question,) = await office.asked()
    outcome = await office.run(word=YES)
    assert outcome.status == "ok"
    if point == "call":
        assert question.arguments == {"what": "find the [redacted:cut]"}
        assert office.looked == ["find the [redacted:cut]"]
    else:
        assert "[redacted:cut]" in (question.content or "")
    if point in ("agent", "result", "output", "answer"):
        assert "[redacted:cut]" in outcome.answer


async def test_a_call_is_agreed_to_once_for_all_its_reasons_and_they_are_all_in_the_record(tmp_path: Path) -> None:
    row = Permission(tool="look", decision="ask", reason="looking is rude")
    office = Office(tmp_path, guardrails=(asks("call"),), permissions=Permissions(rows=(row,)))
    await office.run()
    (question,) = await office.asked()
    assert "it tells" in question.text and "looking is rude" in question.text
    assert (await office.run(word=YES)).status == "ok"
    assert office.decisions == [
        ("guardrail", "call", "ask"),
        ("permission", "call", "ask"),
        ("person", "call", "allow"),
    ]


async def test_a_table_that_forbids_a_call_meanwhile_outweighs_a_person(tmp_path: Path) -> None:
    office = Office(tmp_path, permissions=Permissions(rows=(Permission(tool="look", decision="ask"),)))
    await office.run()
    office.options["permissions"] = Permissions(rows=(Permission(tool="look", decision="deny", reason="closed"),))
    outcome = await office.run(word=YES)
    assert office.looked == []
    assert outcome.answer == "Sorry: look: look was not called: closed"


async def test_nobody_is_asked_about_a_call_that_will_not_be_made(tmp_path: Path) -> None:
    office = Office(tmp_path, orchestrator=None)
    office.tools = {"look": Tool(office.look, approve=True, idempotent=False)}
    good, bad = write_call("look", {"what": "it"}), write_call("look", {"where": "here"})
    office.model = ScriptedModel([bad, good, good, write_answer("seen")])
    office.options["workers"] = (Agent(name="clerk", instructions="Look.", tools=("look",), limits=Limits(turns=5)),)
    await office.run()
    (question,) = await office.asked()
    assert question.arguments == {"what": "it"}
    assert (await office.run(word=YES)).answer == "seen"
    assert office.looked == ["it"]


def asking_thrice(office: Office, tool: Tool) -> None:
    """One clerk who asks in one turn for the same call three times, and for another one."""
    office.tools = {"look": tool}
    once = {"look": {"what": "it"}}
    turn = json.dumps([once, {"look": {"what": "more"}}, once, once])
    office.model = ScriptedModel([turn, write_answer("done")])
    clerk = Agent(name="clerk", instructions="Look.", tools=("look",), parallel_calls=4)
    office.options |= {"orchestrator": None, "workers": (clerk,)}


@pytest.mark.parametrize(("word", "looked"), [(YES, ["it", "more"]), (NO, [])])
async def test_a_person_is_asked_once_about_a_call_that_is_made_once_however_often_a_turn_has_it(
    tmp_path: Path, word: Consent, looked: list[str]
) -> None:
    office = Office(tmp_path)
    asking_thrice(office, Tool(office.look, approve=True, idempotent=False))
    assert (await office.run()).status == "needs_input"
    assert [question.arguments for question in await office.asked()] == [{"what": "it"}, {"what": "more"}]
    outcome = await office.run(word=word)
    assert (outcome.answer, office.looked, outcome.tool_calls) == ("done", looked, len(looked))
    told = office.model.requests[-1].messages[-1].content
    assert told.count("not yet") == (0 if looked else 4)


async def test_a_call_that_may_be_made_again_is_agreed_to_each_time(tmp_path: Path) -> None:
    office = Office(tmp_path)
    asking_thrice(office, Tool(office.look, approve=True))
    await office.run()
    assert len(await office.asked()) == 4
    await office.run(word=YES)
    assert sorted(office.looked) == ["it", "it", "it", "more"]


async def test_a_question_that_a_turn_has_several_times_is_put_once_and_each_has_the_answer(tmp_path: Path) -> None:
    office = Office(tmp_path)
    asking_thrice(office, ask().renamed("look"))
    office.model = ScriptedModel([json.dumps([{"look": {"question": "Which?"}}] * 2), write_answer("done")])
    await office.run()
    (question,) = await office.asked()
    async with office.runtime() as runtime:
        assert (await runtime.resume("r", {question.id: "the red one"})).answer == "done"
    assert office.model.requests[-1].messages[-1].content.count("the red one") == 2


async def test_a_run_that_was_out_of_budget_before_it_waited_ends_so(tmp_path: Path) -> None:
    office = Office(tmp_path, budget=Budget(tool_calls=0), guardrails=(asks("answer", word="look"),))
    assert (await office.run()).status == "needs_input"
    outcome = await office.run(word=YES)
    assert outcome.status == "over_budget" and "tool calls" in (outcome.error or "")


async def test_a_worker_that_was_out_of_budget_before_it_waited_is_so_still(tmp_path: Path) -> None:
    office = Office(tmp_path, budget=Budget(tool_calls=0), guardrails=(asks("output", word="look"),))
    assert (await office.run()).status == "needs_input"
    assert (await office.run(word=YES)).status == "over_budget"


async def test_what_was_decided_is_counted_once_however_often_the_run_is_taken_up(tmp_path: Path) -> None:
    rails = [asks(point).model_copy(update={"name": point}) for point in ("agent", "call", "result", "output")]
    noted = Guardrail(name="note", check=Finds("secret"), at="agent", action="warn")
    office = Office(tmp_path, guardrails=(noted, *rails))
    await office.run()
    for _ in rails:
        outcome = await office.run(word=YES)
    assert outcome.status == "ok"
    assert office.decisions.count(("guardrail", "agent", "warn")) == 1
    for point in ("agent", "call", "result", "output"):
        assert office.decisions.count(("guardrail", point, "ask")) == 1
        assert office.decisions.count(("person", point, "allow")) == 1


async def test_a_plan_that_a_person_agreed_to_is_in_the_record_though_the_process_died_after_it(tmp_path: Path) -> None:
    boss = Agent(name="boss", instructions="Plan.", replans=0, approve=True)
    office = Office(tmp_path, orchestrator=boss)
    await office.run()

    async def dies(what: str) -> str:
        """Does not come back."""
        working.cancel()
        await asyncio.sleep(60)
        return what

    office.tools = {"look": Tool(dies, name="look")}
    working = asyncio.create_task(office.run(word=YES))
    with pytest.raises(asyncio.CancelledError):
        await working
    office.tools = {"look": Tool(office.look)}
    assert (await office.run()).status == "ok"
    assert office.decisions == [("person", "plan", "allow")]


async def test_nobody_is_asked_about_a_call_whose_validator_breaks_and_the_model_is_told(tmp_path: Path) -> None:
    def broken(value: str) -> str:
        raise KeyError(value)

    def look(what: Annotated[str, AfterValidator(broken)]) -> str:
        return what

    office = Office(tmp_path, tools={"look": Tool(look, approve=True)}, orchestrator=None)
    office.model = ScriptedModel([write_call("look", {"what": "x"}), write_answer("I could not look.")])
    outcome = await office.run()
    assert (outcome.status, outcome.answer) == ("ok", "I could not look.")
    assert "KeyError" in office.model.requests[-1].messages[-1].content


async def test_a_call_with_a_number_beyond_64_bits_waits_for_a_person_too(tmp_path: Path) -> None:
    many: list[int] = []

    def look(what: int) -> str:
        many.append(what)
        return "seen"

    office = Office(tmp_path, tools={"look": Tool(look, approve=True)}, orchestrator=None)
    office.model = ScriptedModel([write_call("look", {"what": 10**30}), write_answer("done")])
    assert (await office.run()).status == "needs_input"
    assert (await office.run(word=Consent(approved=True))).answer == "done"
    assert many == [10**30]
