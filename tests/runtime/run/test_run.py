"""What a run records: every span by the conventions, whichever way the run went, and nothing of a prompt lost."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelReply, ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.runtime import Runtime
from journeyman.tools.tool import tool
from journeyman.traces import attributes as a
from journeyman.traces.assemble import assemble, refusal
from journeyman.traces.capture.content import Content, ContentPolicy
from journeyman.traces.capture.energy import read_counters
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import ModelError, ToolError
from journeyman.traces.reports.check import check
from journeyman.traces.trace import Outcome, Task

FAN_OUT = [{"worker": "lookup", "goal": "Which films?"}, {"worker": "lookup", "goal": "Who directed {1}?", "each": 1}]
PLAN = json.dumps({"assignments": FAN_OUT})


@tool
def facts(query: str) -> str:
    """Looks facts up."""
    if query == "Jaws":
        raise ToolError("nobody knows")
    return "Alien, Jaws, Heat" if query == "films" else f"the director of {query}"


LOOKUP = Agent(
    name="lookup",
    instructions="Look up.",
    description="Knows films.",
    tools=("facts",),
    output="values",
    limits=Limits(turns=3),
)
CREW = Crew(
    name="films",
    orchestrator=Agent(name="orchestrator", instructions="Plan.", replans=0),
    workers=(LOOKUP,),
    tools={"facts": facts},
)
TASK = Task(id="q1", prompt="Who directed each film?", family="films", session="s7", user="anna")


class Memory:
    """A sink that keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[SpanRecord] = []

    def append(self, span: SpanRecord, *, sync: bool) -> None:
        self.spans.append(span)


class Model(ScriptedModel):
    """Plans, looks up, and answers; `trouble` is what it does where the goal is about Heat."""

    def __init__(self, trouble: str = "") -> None:
        super().__init__(self._says)
        self._trouble = trouble

    async def complete(self, request: ModelRequest) -> ModelReply:
        if any("Heat?" in message.content for message in request.messages):
            if self._trouble == "late":
                await asyncio.sleep(30)
            if self._trouble == "down":
                raise ModelError("the server answered 503", status=503)
            if self._trouble == "bug":
                raise RuntimeError("a bug")
        reply = await super().complete(request)
        cut = self._trouble == "cut" and not request.messages[0].content.startswith("Plan.")
        return reply.model_copy(update={"finish_reason": "length"}) if cut else reply

    def _says(self, request: ModelRequest) -> str:
        prompt = request.messages[-1].content
        if request.messages[0].content.startswith("Plan."):
            return "no plan" if self._trouble == "unplanned" else PLAN
        if self._trouble == "mumbling":
            return "hm"
        if prompt.startswith("facts: ") and ("nobody knows" in prompt or self._trouble == "misspelt"):
            return write_answer(["nobody"])
        if prompt.startswith("facts: "):
            return write_answer(prompt.removeprefix("facts: ").split(", "))
        film = prompt.removeprefix("Who directed ").removesuffix("?")
        query = "films" if prompt == "Which films?" else film
        return write_call("facts", {"q": query} if self._trouble == "misspelt" else {"query": query})


async def recorded(
    trouble: str = "", crew: Crew = CREW, task: Task = TASK, **options: object
) -> tuple[Outcome, list[SpanRecord]]:
    memory = Memory()
    outcome = await Runtime(crew, model=Model(trouble), tracer=Tracer(memory), **options).run(task)  # type: ignore[arg-type]
    return outcome, memory.spans


def of(spans: Sequence[SpanRecord], operation: str) -> list[SpanRecord]:
    return [span for span in spans if span.attributes[a.OPERATION] == operation]


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        ("", "ok"),
        ("down", "ok"),
        ("bug", "ok"),
        ("late", "ok"),
        ("cut", "truncated"),
        ("misspelt", "ok"),
        ("mumbling", "failed"),
        ("unplanned", "failed"),
    ],
)
async def test_every_span_conforms_however_the_run_goes(trouble: str, status: str) -> None:
    hurried = LOOKUP.model_copy(update={"limits": Limits(turns=3, seconds=2)})
    crew = CREW.model_copy(update={"workers": (hurried,)}) if trouble == "late" else CREW
    outcome, spans = await recorded(trouble, crew)
    assert outcome.status == status
    assert check(spans) == []


async def test_a_run_that_is_cancelled_conforms_too() -> None:
    memory = Memory()
    run = asyncio.create_task(Runtime(CREW, model=Model("late"), tracer=Tracer(memory)).run(TASK))
    await asyncio.sleep(0.1)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert {span.attributes[a.ERROR_TYPE] for span in of(memory.spans, "invoke_workflow")} == {"CancelledError"}
    assert check(memory.spans) == []


@pytest.mark.parametrize("content", ["digest", "off"])
async def test_a_run_without_its_texts_conforms_too_and_nobody_learns_from_it(content: Content) -> None:
    memory = Memory()
    await Runtime(CREW, model=Model(), tracer=Tracer(memory, content=ContentPolicy(content))).run(TASK)
    assert check(memory.spans) == []
    trace = assemble(memory.spans)
    reasons = {refusal(turn, one) for one in trace.trajectories for turn in one.turns}
    assert reasons == {"content not recorded"}


async def test_a_single_agent_conforms_too() -> None:
    alone = CREW.model_copy(update={"orchestrator": None})
    outcome, spans = await recorded(crew=alone, task=Task(id="q2", prompt="Which films?"))
    assert outcome.answer == "Alien, Jaws, Heat"
    assert check(spans) == []


async def test_a_run_has_each_kind_of_span_under_its_parent() -> None:
    _, spans = await recorded()
    ids = {span.span_id: span for span in spans}
    above = {
        (span.attributes[a.OPERATION], None if span.parent_id is None else ids[span.parent_id].attributes[a.OPERATION])
        for span in spans
    }
    assert above == {
        ("invoke_workflow", None),
        ("invoke_agent", "invoke_workflow"),
        ("plan", "invoke_agent"),
        ("chat", "plan"),
        ("invoke_agent", "invoke_agent"),
        ("chat", "invoke_agent"),
        ("execute_tool", "invoke_agent"),
    }


async def test_every_span_says_whose_run_it_is() -> None:
    _, spans = await recorded()
    for span in spans:
        known = [span.attributes[name] for name in (a.TASK_ID, a.TASK_FAMILY, a.CONVERSATION_ID, a.USER_ID)]
        assert known == ["q1", "films", "s7", "anna"]


async def test_no_session_is_invented() -> None:
    _, spans = await recorded(task=Task(id="q1", prompt="Who directed each film?"))
    assert not any(a.CONVERSATION_ID in span.attributes or a.USER_ID in span.attributes for span in spans)


async def test_the_messages_of_each_turn_are_those_that_the_model_got() -> None:
    memory, model = Memory(), Model()
    outcome = await Runtime(CREW, model=model, tracer=Tracer(memory)).run(TASK)
    turns = assemble(memory.spans).turns
    assert len(turns) == outcome.model_calls == len(model.requests)
    told = {(turn.messages, turn.response and turn.response.content) for turn in turns}
    assert told == {(request.messages, model._says(request)) for request in model.requests}


async def test_a_call_says_which_weights_were_asked_and_with_what() -> None:
    policies = PolicyTable(agents={"lookup": "lookup@3"}, digests={"lookup@3": "d3"})
    _, spans = await recorded(policies=policies, base_digest="b0", temperature=0.5, seed=4)
    chats = of(spans, "chat")
    told = {tuple(chat.attributes.get(name) for name in (a.REQUEST_MODEL, a.ADAPTER_DIGEST)) for chat in chats}
    assert told == {("base", None), ("lookup@3", "d3")}
    for chat in chats:
        assert (chat.attributes[a.BASE_DIGEST], chat.attributes[a.REQUEST_TEMPERATURE]) == ("b0", 0.5)
        assert (chat.attributes[a.REQUEST_SEED], chat.attributes[a.OUTPUT_TYPE]) == (4, "json")


async def test_the_same_prompt_has_the_same_digest() -> None:
    (_, first), (_, second) = await recorded(), await recorded()
    digests = [sorted(str(chat.attributes[a.PROMPT_DIGEST]) for chat in of(spans, "chat")) for spans in (first, second)]
    assert digests[0] == digests[1]
    assert len(set(digests[0])) == len(digests[0])


async def test_an_agent_with_tools_has_their_definitions_beside_its_prompt() -> None:
    _, spans = await recorded()
    planned, *asked = sorted(of(spans, "chat"), key=lambda span: span.start_ns)
    assert a.TOOL_DEFINITIONS not in planned.attributes
    for chat in asked:
        (definition,) = json.loads(str(chat.attributes[a.TOOL_DEFINITIONS]))
        assert (definition["name"], definition["description"]) == ("facts", "Looks facts up.")
        assert definition["parameters"] == facts.parameters


async def test_a_call_that_gets_no_reply_ends_in_error_and_has_no_output() -> None:
    _, spans = await recorded("down")
    (failed,) = (span for span in of(spans, "chat") if span.status == "error")
    assert failed.attributes[a.FINISH_REASONS] == ["error"]
    assert a.OUTPUT_MESSAGES not in failed.attributes


async def test_a_failed_tool_has_an_error_and_no_result() -> None:
    _, spans = await recorded()
    (failed,) = (span for span in of(spans, "execute_tool") if span.status == "error")
    assert (failed.attributes[a.ERROR_TYPE], failed.attributes[a.ERROR]) == ("failed", "facts: nobody knows")
    assert a.TOOL_CALL_RESULT not in failed.attributes
    results = [result for turn in assemble(spans).turns for result in turn.tool_results]
    assert [result.content for result in results if result.status == "failed"] == ["facts: nobody knows"]


async def test_a_worker_says_what_it_was_to_do_and_at_which_attempt() -> None:
    _, spans = await recorded()
    workers = {span.attributes.get(a.ASSIGNMENT_ID): span.attributes for span in of(spans, "invoke_agent")}
    assert workers.keys() == {None, "1", "2.1", "2.2", "2.3"}
    assert (workers["2.1"][a.GOAL], workers["2.1"][a.ATTEMPT]) == ("Who directed Alien?", 1)
    assert workers["2.1"][a.AGENT_DESCRIPTION] == "Knows films."


async def test_more_attributes_than_the_sdk_allows_are_all_kept() -> None:
    memory = Memory()
    with Tracer(memory).span("wide", parent=None) as span:
        span.set({f"n{number}": "x" * 5000 for number in range(1000)})
    assert len(memory.spans[0].attributes) == 1000
    assert all(len(str(value)) == 5000 for value in memory.spans[0].attributes.values())


async def test_energy_is_recorded_where_the_machine_counts_it_and_nowhere_else() -> None:
    _, spans = await recorded()
    (workflow,) = of(spans, "invoke_workflow")
    counted = {name for name in (a.ENERGY_START, a.ENERGY, a.ENERGY_SOURCE) if name in workflow.attributes}
    assert len(counted) == (0 if read_counters() is None else 3)
