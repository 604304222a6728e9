"""The crew as a LangGraph graph."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from operator import add
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages import ChatMessage as RoleMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.errors import GraphDrained
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, RetryPolicy, Send

from journeyman.agents.agent import Agent, Crew, Limits
from journeyman.agents.model import ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.flow import control as interventions
from journeyman.runtime.flow.crew_graph import CrewState, NoAnswerError
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.run.events import Ended
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.store.questions import Consent
from journeyman.runtime.store.run_store import RunStore
from journeyman.tools.ask import ask
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ConfigError, ModelError

DESK = Crew(name="desk", orchestrator=None, workers=(Agent(name="clerk", instructions="Answer."),))
THREAD: RunnableConfig = {"configurable": {"thread_id": "thread"}}


class Office:
    """A crew that writes letters, each of which a person must agree to, and what came of its work."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.prompts: list[str] = []

    def send(self, letter: str) -> str:
        """Sends a letter."""
        self.sent.append(letter)
        return f"posted {letter}"

    def reply(self, request: ModelRequest) -> str:
        last = request.messages[-1].content
        self.prompts.append(last)
        if request.messages[0].content == "Plan.":
            return json.dumps({"assignments": [{"worker": "clerk", "goal": goal} for goal in last.split(" and ")]})
        if last.startswith("whom"):
            return write_call("ask", {"question": "To whom?"})
        if "was not called" in last:
            return write_answer(f"Sorry: {last}")
        return write_answer(last) if ": " in last else write_call("send", {"letter": last})

    def runtime(self, path: Path | None) -> Runtime:
        clerk = Agent(name="clerk", instructions="Write.", tools=("send", "ask"), limits=Limits(turns=3))
        crew = Crew(
            name="office",
            orchestrator=Agent(name="boss", instructions="Plan.", replans=0),
            workers=(clerk,),
            tools={"send": Tool(self.send, idempotent=False, approve=True), "ask": ask()},
        )
        runs = None if path is None else RunStore(path / "runs.db")
        return Runtime(crew, model=ScriptedModel(self.reply), runs=runs)


def desk() -> Runtime:
    return Runtime(DESK, model=ScriptedModel(lambda request: write_answer(f"re: {request.messages[-1].content}")))


@pytest.fixture
def office() -> Office:
    return Office()


@pytest.fixture
async def runtime(office: Office, tmp_path: Path) -> AsyncIterator[Runtime]:
    async with office.runtime(tmp_path) as runtime:
        yield runtime


def asked(state: Any) -> dict[str, Any]:
    (interrupt,) = state["__interrupt__"]
    value: dict[str, Any] = interrupt.value
    return value


async def test_a_crew_runs_as_a_graph_from_a_prompt_or_from_messages() -> None:
    graph = desk().as_graph()
    assert (await graph.ainvoke({"prompt": "hello"}))["answer"] == "re: hello"
    state = await graph.ainvoke({"messages": [HumanMessage("hello")]})
    assert state["messages"][-1].content == "re: hello" and state["outcome"]["status"] == "ok"


async def test_a_crew_is_a_node_of_another_graph() -> None:
    outer = StateGraph(CrewState)
    outer.add_node("desk", desk().as_graph())
    outer.add_edge(START, "desk")
    outer.add_edge("desk", END)
    state = await outer.compile().ainvoke({"prompt": "hello"})
    assert (state["answer"], state["prompt"]) == ("re: hello", "hello")


async def test_a_task_leaves_nothing_behind_that_the_next_one_on_the_thread_would_take_for_its_own() -> None:
    graph = desk().as_graph(checkpointer=InMemorySaver())
    await graph.ainvoke({"prompt": "first"}, THREAD)
    state = await graph.ainvoke({"messages": [HumanMessage("second")]}, THREAD)
    assert [message.content for message in state["messages"]] == ["re: first", "second", "re: second"]


def handed_off(call: str = "t1") -> list[BaseMessage]:
    """What a supervisor leaves in the messages when it gives the desk the floor."""
    wanted = {"name": "transfer_to_desk", "args": {}, "id": call}
    return [AIMessage("", tool_calls=[wanted]), ToolMessage("Successfully transferred to desk", tool_call_id=call)]


@pytest.mark.parametrize(
    ("messages", "task"),
    [
        ([HumanMessage("hello"), *handed_off()], "hello"),
        ([HumanMessage("first"), AIMessage("re: first"), HumanMessage("second"), *handed_off()], "second"),
        ([HumanMessage("hello"), *handed_off(), AIMessage("re: hello", name="desk"), *handed_off("t2")], "hello"),
        ([HumanMessage("hello"), SystemMessage("Be brief."), AIMessage("I think …")], "hello"),
        ([RoleMessage(content="hello", role="user"), AIMessage("hm")], "hello"),
        ([HumanMessage(["hel", {"type": "text", "text": "lo"}]), *handed_off()], "hello"),
        ([("user", "hello"), {"role": "assistant", "content": "hm"}], "hello"),
        (
            [
                HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}]),
                AIMessage("a cat"),
                HumanMessage("hello"),
            ],
            "hello",
        ),
    ],
)
async def test_the_task_is_what_a_person_wrote_last_wherever_it_stands(messages: list[Any], task: str) -> None:
    outer = StateGraph(MessagesState)
    outer.add_node("desk", desk().as_graph())
    outer.add_edge(START, "desk")
    state = await outer.compile().ainvoke({"messages": messages})
    assert (state["messages"][-1].content, len(state["messages"])) == (f"re: {task}", len(messages) + 1)


@pytest.mark.parametrize(
    ("block", "named"),
    [
        ({"type": "image_url", "image_url": {"url": "https://x.example/cat.png"}}, "holds image_url:"),
        ({"type": "image", "source_type": "base64", "mime_type": "image/png", "data": "aGk="}, "holds image:"),
        ({"type": "audio", "base64": "aGk=", "mime_type": "audio/wav"}, "holds audio:"),
        ({"type": "file", "file": {"file_id": "f1"}}, "holds file:"),
    ],
)
async def test_what_is_no_text_is_refused_by_name_and_not_dropped(block: dict[str, Any], named: str) -> None:
    asking: list[Any] = [HumanMessage(["What is this?", block]), *handed_off()]
    with pytest.raises(ConfigError, match=named) as raised:
        await desk().as_graph().ainvoke({"messages": asking})
    assert "\n" not in str(raised.value)
    with pytest.raises(ConfigError, match=named):
        blocks: Any = ["What is this?", block]
        await desk().as_graph().ainvoke({"prompt": blocks})


@pytest.mark.parametrize(
    "messages", [[AIMessage("hello")], [HumanMessage("")], [HumanMessage(" \n")], [HumanMessage([])]]
)
async def test_silence_is_no_task(messages: list[Any]) -> None:
    with pytest.raises(ConfigError, match=r"a crew needs a task|was asked nothing"):
        await desk().as_graph().ainvoke({"messages": messages})


def moody(replies: list[str], path: Path | None = None) -> Runtime:
    """A crew whose clerk answers what it is told to, or not at all."""
    left = list(replies)

    def reply(_: ModelRequest) -> str:
        if (said := left.pop(0)) == "fail":
            raise ModelError("the machine is cold")
        return write_answer(said)

    return Runtime(DESK, model=ScriptedModel(reply), runs=None if path is None else RunStore(path / "runs.db"))


async def test_a_failed_run_is_an_error_and_nothing_behind_it_is_done() -> None:
    after: list[Any] = []
    outer = StateGraph(CrewState)
    outer.add_node("desk", moody(["fail"]).as_graph())
    outer.add_node("after", lambda state: after.append(state))
    outer.add_edge(START, "desk")
    outer.add_edge("desk", "after")
    with pytest.raises(NoAnswerError, match=r"^crew 'desk' gave no answer \(failed\): .*the machine is cold") as raised:
        await outer.compile().ainvoke({"prompt": "hello"})
    assert (raised.value.outcome.status, after) == ("failed", []) and "\n" not in str(raised.value)


@pytest.mark.parametrize("kept", [False, True])
async def test_a_retry_policy_of_the_app_tries_a_failed_run_again_as_another_one(tmp_path: Path, kept: bool) -> None:
    async with moody(["fail", "fail", "fine"], tmp_path if kept else None) as runtime:
        outer = StateGraph(CrewState)
        patient = RetryPolicy(max_attempts=3, initial_interval=0.01, retry_on=NoAnswerError)
        outer.add_node("desk", runtime.as_graph(), retry_policy=patient)
        outer.add_edge(START, "desk")
        assert (await outer.compile().ainvoke({"prompt": "hello"}))["answer"] == "fine"
        if runtime.runs is not None:
            assert sorted(run.status for run in await runtime.runs.find()) == ["failed", "failed", "ok"]


async def test_an_app_that_goes_on_after_a_failed_run_has_the_crew_try_again(tmp_path: Path) -> None:
    async with moody(["fail", "fine"], tmp_path) as runtime:
        graph = runtime.as_graph(checkpointer=InMemorySaver())
        with pytest.raises(NoAnswerError):
            await graph.ainvoke({"prompt": "hello"}, THREAD)
        assert (await graph.ainvoke(None, THREAD))["answer"] == "fine"


async def test_an_answer_of_a_run_in_which_something_failed_is_marked() -> None:
    crew = Crew(
        name="desk",
        orchestrator=Agent(name="boss", instructions="Plan.", replans=0),
        workers=DESK.workers,
    )

    def reply(request: ModelRequest) -> str:
        last = request.messages[-1].content
        if request.messages[0].content == "Plan.":
            return json.dumps({"assignments": [{"worker": "clerk", "goal": goal} for goal in ("good", "bad")]})
        if last == "bad":
            raise ModelError("the machine is cold")
        return write_answer(last)

    state = await Runtime(crew, model=ScriptedModel(reply)).as_graph().ainvoke({"prompt": "hello"})
    message = state["messages"][-1]
    error = state["outcome"]["error"]
    assert (message.content, message.response_metadata) == ("good", {"status": "ok", "error": error})
    assert "the machine is cold" in error
    fine = await desk().as_graph().ainvoke({"prompt": "hello"})
    assert fine["messages"][-1].response_metadata == {"status": "ok"}


async def test_the_events_of_a_run_are_the_graphs_custom_stream() -> None:
    stream = desk().as_graph(tokens=True).astream({"prompt": "hello"}, stream_mode="custom")
    kinds = [getattr(event, "kind", None) async for event in stream]
    assert kinds[0] == "plan" and "token" in kinds and kinds[-1] == "ended"


async def test_without_a_question_there_is_an_error_that_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="prompt"):
        await desk().as_graph().ainvoke({"messages": []})


def test_a_graph_says_what_it_takes_and_gives() -> None:
    graph = desk().as_graph()
    assert set(graph.get_input_jsonschema()["properties"]) == {"messages", "prompt", "session"}
    assert set(graph.get_output_jsonschema()["properties"]) == {"messages", "answer", "outcome"}


def test_the_drawing_of_a_graph_shows_the_crews_own_nodes() -> None:
    outer = StateGraph(CrewState)
    outer.add_node("letters", Office().runtime(None).as_graph())
    outer.add_edge(START, "letters")
    drawn = outer.compile().get_graph(xray=True)
    assert {"letters:office:plan", "letters:office:worker", "letters:office:gather"} <= set(drawn.nodes)


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_stream_of_subgraphs_shows_the_crews_own_steps(office: Office, version: Any) -> None:
    outer = StateGraph(CrewState)
    outer.add_node("letters", office.runtime(None).as_graph())
    outer.add_edge(START, "letters")
    steps = []
    async for part in outer.compile().astream(
        {"prompt": "a and b"}, subgraphs=True, version=version, stream_mode="updates"
    ):
        place, update = (part["ns"], part["data"]) if version == "v2" else part
        steps.append((*(level.partition(":")[0] for level in place), *update))
    within = ("letters", "office")
    assert steps == [
        (*within, "plan"),
        (*within, "worker"),
        (*within, "worker"),
        (*within, "gather"),
        ("letters", "office"),
        ("letters",),
    ]


async def test_without_that_the_stream_is_the_graphs_own_alone() -> None:
    updates = [list(update) async for update in desk().as_graph().astream({"prompt": "hello"}, stream_mode="updates")]
    assert updates == [["desk"]]


async def test_the_callbacks_and_tags_of_the_app_reach_the_crews_steps() -> None:
    class Seen(AsyncCallbackHandler):
        def __init__(self) -> None:
            self.names: list[str] = []

        async def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            if "shop" in (kwargs["tags"] or ()):
                self.names.append(kwargs["name"])

    seen = Seen()
    await desk().as_graph().ainvoke({"prompt": "hello"}, {"callbacks": [seen], "tags": ["shop"]})
    assert {"desk", "plan", "worker", "gather"} <= set(seen.names)


async def test_a_question_is_an_interrupt_and_its_answer_goes_on_with_the_same_run(
    runtime: Runtime, office: Office
) -> None:
    graph = runtime.as_graph(checkpointer=InMemorySaver())
    waiting = asked(await graph.ainvoke({"prompt": "a and b"}, THREAD))
    assert [question["text"][:19] for question in waiting["questions"]] == ["May send be called "] * 2
    first, second = (question["id"] for question in waiting["questions"])
    assert office.sent == []

    left = asked(await graph.ainvoke(Command(resume={first: True}), THREAD))
    assert [question["id"] for question in left["questions"]] == [second]
    ended = await graph.ainvoke(Command(resume={"approved": False, "reason": "too late"}), THREAD)
    assert (ended["outcome"]["run_id"], ended["outcome"]["status"]) == (waiting["run_id"], "ok")
    assert "posted a" in ended["answer"] and "too late" in ended["answer"]
    assert office.sent == ["a"] and len(office.prompts) == len(set(office.prompts))


async def test_a_number_that_no_checkpoint_takes_is_asked_about_as_text(tmp_path: Path) -> None:
    paid: list[int] = []

    def pay(cents: int, to: list[int]) -> str:
        """Pays."""
        paid.append(cents)
        return "done"

    clerk = Agent(name="clerk", instructions="Pay.", tools=("pay",))
    crew = Crew(name="bank", orchestrator=None, workers=(clerk,), tools={"pay": Tool(pay, approve=True)})
    model = ScriptedModel([write_call("pay", {"cents": 10**30, "to": [1, -(10**20)]}), write_answer("paid")])
    async with Runtime(crew, model=model, runs=RunStore(tmp_path / "runs.db")) as runtime:
        graph = runtime.as_graph(checkpointer=InMemorySaver())
        (question,) = asked(await graph.ainvoke({"prompt": "pay"}, THREAD))["questions"]
        assert question["arguments"] == {"cents": str(10**30), "to": [1, str(-(10**20))]}
        assert (await graph.ainvoke(Command(resume=True), THREAD))["answer"] == "paid"
    assert paid == [10**30]


async def test_several_questions_one_after_the_other_are_answered_in_their_order(
    runtime: Runtime, office: Office
) -> None:
    graph = runtime.as_graph(checkpointer=InMemorySaver())
    assert asked(await graph.ainvoke({"prompt": "whom"}, THREAD))["questions"][0]["kind"] == "answer"
    ended = await graph.ainvoke(Command(resume="to: Ada"), THREAD)
    assert ended["answer"] == "ask: to: Ada"
    again = asked(await graph.ainvoke({"prompt": "letter"}, THREAD))
    assert again["run_id"] != ended["outcome"]["run_id"]
    assert (await graph.ainvoke(Command(resume=True), THREAD))["answer"] == "send: posted letter"


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (True, "asks 2 questions"),
        ({"9/9": True}, "no question '9/9'"),
        ({"1/2": "perhaps"}, "does not want an answer"),
        ({"1/2": "perhaps"}, "say yes or no"),
        ({"1/2": 3}, "3 answers nothing"),
        ({"1/2": {"approved": True, "arguments": {"letter": "b"}}}, "cannot be edited"),
    ],
)
async def test_what_is_no_answer_is_asked_again_with_the_reason(
    runtime: Runtime, office: Office, said: object, problem: str
) -> None:
    graph = runtime.as_graph(checkpointer=InMemorySaver())
    await graph.ainvoke({"prompt": "a and b"}, THREAD)
    again = asked(await graph.ainvoke(Command(resume=said), THREAD))
    assert problem in again["problem"] and len(again["questions"]) == 2 and office.sent == []


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ("yes", "posted a"),
        ("Yes, please", "posted a"),
        ({"approved": True}, "posted a"),
        ("no", "a person refused it"),
        ("No: too late", "a person refused it: too late"),
        (False, "a person refused it"),
        ({"approved": False, "reason": "too late"}, "a person refused it: too late"),
    ],
)
async def test_yes_and_no_mean_what_they_mean_over_mcp(
    runtime: Runtime, office: Office, said: object, answer: str
) -> None:
    for by_id in (False, True):
        graph = runtime.as_graph(checkpointer=InMemorySaver())
        thread: RunnableConfig = {"configurable": {"thread_id": f"by id: {by_id}"}}
        (question,) = asked(await graph.ainvoke({"prompt": "a"}, thread))["questions"]
        word = {question["id"]: said} if by_id else said
        assert answer in (await graph.ainvoke(Command(resume=word), thread))["answer"]
    assert office.sent == ["a", "a"] * (answer == "posted a")


async def test_yes_is_a_text_where_a_text_is_wanted(runtime: Runtime) -> None:
    graph = runtime.as_graph(checkpointer=InMemorySaver())
    await graph.ainvoke({"prompt": "whom"}, THREAD)
    ended = await graph.ainvoke(Command(resume="yes: Ada"), THREAD)
    assert ended["answer"] == "ask: yes: Ada"


@pytest.mark.parametrize(
    "said", [{"type": "edit", "args": {"letter": "b"}}, [{"type": "accept", "args": None}], "maybe"]
)
async def test_a_word_that_is_neither_is_asked_for_again_in_plain_words(
    runtime: Runtime, office: Office, said: object
) -> None:
    graph = runtime.as_graph(checkpointer=InMemorySaver())
    await graph.ainvoke({"prompt": "a"}, THREAD)
    again = asked(await graph.ainvoke(Command(resume=said), THREAD))
    assert "yes or no" in again["problem"] and "\n" not in again["problem"] and office.sent == []


async def test_what_a_person_answered_elsewhere_is_not_asked_again(runtime: Runtime, office: Office) -> None:
    graph = runtime.as_graph(checkpointer=InMemorySaver())
    waiting = asked(await graph.ainvoke({"prompt": "a"}, THREAD))
    assert runtime.runs is not None
    await interventions.decide(runtime.runs, waiting["run_id"], Consent(approved=True))
    assert (await graph.ainvoke(None, THREAD))["answer"] == "send: posted a" and office.sent == ["a"]


async def test_a_run_that_was_cancelled_while_it_waited_ends_the_graph_so(runtime: Runtime, office: Office) -> None:
    graph = runtime.as_graph(checkpointer=InMemorySaver())
    waiting = asked(await graph.ainvoke({"prompt": "a"}, THREAD))
    await runtime.cancel(waiting["run_id"])
    words: tuple[Any, ...] = (Command(resume=True), None)
    for word in words:
        with pytest.raises(NoAnswerError, match=r"gave no answer \(cancelled\)"):
            await graph.ainvoke(word, THREAD)
    assert not office.sent


async def test_without_a_run_store_nobody_is_asked(office: Office) -> None:
    state = await office.runtime(None).as_graph(checkpointer=InMemorySaver()).ainvoke({"prompt": "a"}, THREAD)
    assert "__interrupt__" not in state and "keeps no runs" in state["answer"] and office.sent == []


async def test_a_graph_that_was_cut_off_goes_on_with_the_run_it_had_begun(tmp_path: Path, office: Office) -> None:
    """The app dies while the crew works, and another process has its checkpoints and the runs."""
    saver = InMemorySaver()
    async with office.runtime(tmp_path) as runtime:
        stream: Any = runtime.as_graph(checkpointer=saver).astream({"prompt": "a"}, THREAD, stream_mode="custom")
        async with aclosing(stream) as events:
            async for event in events:
                if event.kind == "plan":
                    break
    async with office.runtime(tmp_path) as runtime:
        graph = runtime.as_graph(checkpointer=saver)
        asked(await graph.ainvoke(None, THREAD))
        assert (await graph.ainvoke(Command(resume=True), THREAD))["answer"] == "send: posted a"
        assert runtime.runs is not None and len(await runtime.runs.find()) == 1
    assert office.prompts.count("a") == 2 and office.sent == ["a"]


async def test_what_the_app_cancels_is_cancelled_in_the_crew() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def dig() -> str:
        """Digs without end."""
        begun.set()
        try:
            return await asyncio.Future()
        finally:
            ended.set()

    clerk = Agent(name="clerk", instructions="Dig.", tools=("dig",))
    crew = Crew(name="mine", orchestrator=None, workers=(clerk,), tools={"dig": Tool(dig)})
    graph = Runtime(crew, model=ScriptedModel([write_call("dig", {})])).as_graph()
    work = asyncio.create_task(graph.ainvoke({"prompt": "dig"}))
    await begun.wait()
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert ended.is_set()


async def test_a_drained_crew_ends_the_graph_as_one_that_can_go_on(tmp_path: Path, office: Office) -> None:
    saver = InMemorySaver()
    async with office.runtime(tmp_path) as runtime:
        runtime.drain("closing time")
        with pytest.raises(GraphDrained, match="closing time"):
            await runtime.as_graph(checkpointer=saver).ainvoke({"prompt": "a"}, THREAD)
    async with office.runtime(tmp_path) as runtime:
        assert asked(await runtime.as_graph(checkpointer=saver).ainvoke(None, THREAD))["questions"]
        assert runtime.runs is not None and len(await runtime.runs.find()) == 1


async def test_instances_side_by_side_are_runs_of_their_own(runtime: Runtime, office: Office) -> None:
    class Post(TypedDict, total=False):
        answers: Annotated[list[str], add]

    async def write(state: CrewState) -> Post:
        return {"answers": [(await letters.ainvoke(state))["answer"]]}

    letters = runtime.as_graph()
    outer = StateGraph(Post)
    outer.add_node("write", write)
    outer.add_conditional_edges(START, lambda _: [Send("write", {"prompt": one}) for one in "abc"], ["write"])
    graph = outer.compile(checkpointer=InMemorySaver())
    state = await graph.ainvoke({}, THREAD)
    assert len(state["__interrupt__"]) == 3 and len({one.value["run_id"] for one in state["__interrupt__"]}) == 3
    ended = await graph.ainvoke(Command(resume={one.id: True for one in state["__interrupt__"]}), THREAD)
    assert sorted(ended["answers"]) == ["send: posted a", "send: posted b", "send: posted c"]
    assert sorted(office.sent) == ["a", "b", "c"]


def test_code_without_an_event_loop_uses_the_graph_too(tmp_path: Path, office: Office) -> None:
    runtime = office.runtime(tmp_path)
    with SqliteSaver.from_conn_string(str(tmp_path / "app.db")) as saver:
        graph = runtime.as_graph(checkpointer=saver)
        assert asked(graph.invoke({"prompt": "a"}, THREAD))["questions"]
        *_, (place, last) = graph.stream(Command(resume=True), THREAD, stream_mode="custom", subgraphs=True)
        assert isinstance(last, Ended) and last.outcome.answer == "send: posted a" and place == ()
    assert office.sent == ["a"]


async def test_a_graph_that_is_run_without_await_inside_an_event_loop_works_too() -> None:
    stream = desk().as_graph().stream({"prompt": "hello"}, stream_mode=["custom", "updates"], subgraphs=True)
    told = [(mode, kind) for _, mode, kind in stream]
    assert any(mode == "custom" and isinstance(event, Ended) for mode, event in told)
    assert [list(update) for mode, update in told if mode == "updates"] == [["plan"], ["worker"], ["gather"], ["desk"]]
