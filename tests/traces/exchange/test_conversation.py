"""An imported conversation: a run like any other, whose replies are demonstrations."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.traces import attributes as a
from journeyman.traces.assemble import assemble, refusal
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.exchange.chatlog import read_conversation
from journeyman.traces.exchange.conversation import Conversation, Entry, Imported, import_conversation
from journeyman.traces.exchange.importing import read_file
from journeyman.traces.messages import Message, ToolCall
from journeyman.traces.reports.check import check
from journeyman.traces.trace import Trace

DATA = Path(__file__).parents[2] / "data" / "imports"
NOW = 1_800_000_000_000_000_000


def first(found: Imported) -> SpanRecord:
    return next(iter(found.spans))


def imported(conversation: Conversation, agent: str = "assistant", family: str = "default") -> Imported:
    return import_conversation(conversation, agent=agent, family=family, now_ns=NOW)


def trace_of(conversation: Conversation, agent: str = "assistant") -> Trace:
    found = imported(conversation, agent)
    return assemble(found.spans, found.labels)


@pytest.fixture
def looked_up() -> Conversation:
    return read_conversation(json.loads((DATA / "finetune.jsonl").read_text().splitlines()[0]))


def test_every_reply_is_a_turn_with_the_whole_prompt_before_it(looked_up: Conversation) -> None:
    trace = trace_of(looked_up, agent="lookup")
    (trajectory,) = trace.trajectories
    messages = tuple(entry.message for entry in looked_up.entries)
    assert trajectory.agent == "lookup"
    assert [(turn.messages, turn.response) for turn in trajectory.turns] == [
        (messages[:2], messages[2]),
        (messages[:4], messages[4]),
    ]
    (result,) = trajectory.turns[0].tool_results
    assert (result.tool, result.arguments, result.content) == (
        "search",
        {"query": "river Riga"},
        "Riga lies on the Daugava.",
    )
    assert trace.task is not None and trace.task.prompt == "Which river runs through Riga?"
    assert trace.outcome is not None and (trace.outcome.answer, trace.outcome.tool_calls) == ("The Daugava.", 1)


def test_its_turns_may_be_learned_from_as_text(looked_up: Conversation) -> None:
    (trajectory,) = trace_of(looked_up).trajectories
    assert [turn.demonstration for turn in trajectory.turns] == [True, True]
    assert [refusal(turn, trajectory) for turn in trajectory.turns] == [None, None]


def test_a_reply_of_weight_0_may_not_be_learned_from() -> None:
    weighed = read_conversation(json.loads((DATA / "finetune.jsonl").read_text().splitlines()[1]))
    (trajectory,) = trace_of(weighed).trajectories
    assert [refusal(turn, trajectory) for turn in trajectory.turns] == ["no token ids", None]


def test_a_reply_that_was_cut_off_is_refused() -> None:
    cut = read_conversation(json.loads((DATA / "requests.jsonl").read_text().splitlines()[1]))
    trace = trace_of(cut)
    (trajectory,) = trace.trajectories
    assert refusal(trajectory.turns[0], trajectory) == "truncated"
    assert trace.outcome is not None and trace.outcome.status == trajectory.status == "truncated"


def test_the_agents_that_a_graph_names_have_a_trajectory_each() -> None:
    trace = trace_of(read_conversation(json.loads((DATA / "langgraph.json").read_text())), agent="nobody")
    assert [(one.agent, len(one.turns), one.parent) for one in trace.trajectories] == [
        ("lookup", 2, None),
        ("writer", 1, None),
    ]
    assert trace.trajectories[0].turns[0].tool_results[0].status == "failed"
    assert trace.trajectories[0].turns[0].policy == "gpt-4o-mini-2024-07-18"


@pytest.mark.parametrize("name", ["requests.jsonl", "finetune.jsonl", "langgraph.json", "langchain.json"])
def test_what_is_imported_conforms_to_the_conventions(name: str) -> None:
    found = read_file(DATA / name, "chat", agent="assistant", family="default")
    assert check([span for entry in found if isinstance(entry, Imported) for span in entry.spans]) == []


def test_scores_are_labels_of_the_trace() -> None:
    scored, rated, _ = [
        read_conversation(json.loads(line)) for line in (DATA / "requests.jsonl").read_text().splitlines()
    ]
    score, rating = trace_of(scored).label("score"), trace_of(rated).label("rating")
    assert score is not None and (score.value, score.source_type) == (1.0, "code")
    assert rating is not None and (rating.value, rating.source_type) == (2.0, "human")


def test_the_same_conversation_is_the_same_trace_whenever_it_is_imported(looked_up: Conversation) -> None:
    later = import_conversation(looked_up, agent="assistant", family="default", now_ns=NOW + 10**12)
    assert [span.span_id for span in later.spans] == [span.span_id for span in imported(looked_up).spans]
    scored = looked_up.model_copy(update={"scores": {"score": 0.0}})
    assert first(imported(scored)).trace_id == first(imported(looked_up)).trace_id
    assert first(imported(looked_up, family="rivers")).trace_id != first(imported(looked_up)).trace_id


def test_the_workflow_names_the_session_and_the_user() -> None:
    conversation = Conversation(
        entries=(Entry(message=Message(role="assistant", content="x")),), session="s-3", user="u-17"
    )
    workflow = first(imported(conversation))
    assert (workflow.attributes[a.CONVERSATION_ID], workflow.attributes[a.USER_ID]) == ("s-3", "u-17")


def test_an_answer_to_the_very_first_call_finds_its_turn() -> None:
    call = Message(role="assistant", content="", tool_calls=(ToolCall(id="c", name="search", arguments={}),))
    result = Message(role="tool", content="found", tool_call_id="c")
    trace = trace_of(Conversation(entries=(Entry(message=call), Entry(message=result))))
    assert trace.turns[0].tool_results[0].content == "found"


@given(
    st.lists(
        st.builds(
            Entry,
            message=st.builds(
                Message, role=st.sampled_from(["system", "user", "assistant", "tool"]), content=st.text()
            ),
            agent=st.sampled_from([None, "a", "b"]),
        ),
        min_size=1,
        max_size=8,
    ).filter(lambda entries: any(entry.message.role == "assistant" for entry in entries))
)
def test_any_conversation_assembles_with_all_its_replies_in_order(entries: list[Entry]) -> None:
    trace = trace_of(Conversation(entries=tuple(entries)))
    replies = [entry.message.content for entry in entries if entry.message.role == "assistant"]
    turns = sorted(trace.turns, key=lambda turn: turn.started_ns)
    assert [turn.response and turn.response.content for turn in turns] == replies
    assert all(trajectory.status == "ok" and trajectory.agent for trajectory in trace.trajectories)
