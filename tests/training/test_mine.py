"""Mining takes what meets the capture contract, and says of the rest why not."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from journeyman.runtime.cli import build
from journeyman.runtime.config import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.errors import TrainingError
from journeyman.traces.labels import Label
from journeyman.traces.log import SpanLog
from journeyman.traces.messages import Message
from journeyman.traces.trace import Outcome, Task, Trace, Trajectory, Turn
from journeyman.traces.tracer import AttributeValue, Tracer
from journeyman.training.mine import MineConfig, mine_sft
from journeyman.training.samples import read_samples

ANY = MineConfig()
QUESTION = Message(role="user", content="how many moons has Mars?")


def turn(span_id: str, **changes: Any) -> Turn:
    """A turn that the server gave, whole."""
    values: dict[str, Any] = {
        "span_id": span_id,
        "agent": "worker",
        "policy": "base",
        "served_by": "base",
        "messages": (QUESTION,),
        "response": Message(role="assistant", content='{"answer": "2"}'),
        "finish_reason": "stop",
        "prompt_token_ids": (1, 2, 3),
        "token_ids": (4, 5),
        "logprobs": (-0.1, -0.2),
        "started_ns": 1,
        "ended_ns": 2,
    }
    return Turn.model_validate(values | changes)


def shown(span_id: str, **changes: Any) -> Turn:
    """A turn that a teacher gave."""
    taught = {"policy": "teacher", "served_by": "teacher", "demonstration": True}
    return turn(span_id, prompt_token_ids=None, token_ids=None, logprobs=None, **(taught | changes))


def trace(*turns: Turn, number: int = 1, status: str = "ok", family: str = "moons", score: Any = None) -> Trace:
    trace_id = f"{number:032x}"
    label = Label(trace_id=trace_id, name="score", source="test", value=0.0 if score is None else score)
    trajectory = Trajectory.model_validate(
        {"span_id": f"a{number}", "agent": "worker", "parent": None, "status": status, "turns": turns}
        | {"started_ns": number, "ended_ns": number}
    )
    return Trace(
        trace_id=trace_id,
        task=Task(id=f"task-{number}", prompt=QUESTION.content, family=family),
        trajectories=(trajectory,),
        outcome=Outcome(task_id=f"task-{number}", trace_id=trace_id, status="ok"),
        labels=() if score is None else (label,),
        started_ns=number,
        ended_ns=number,
    )


def test_a_turn_of_the_server_keeps_the_servers_own_tokens() -> None:
    (sample,) = mine_sft([trace(turn("s1"))], "worker", ANY).samples
    assert (sample.prompt_token_ids, sample.token_ids) == ((1, 2, 3), (4, 5))
    assert (sample.agent, sample.policy, sample.trace_id, sample.span_ids) == ("worker", "base", f"{1:032x}", ("s1",))


def test_a_demonstration_is_text_alone() -> None:
    (sample,) = mine_sft([trace(shown("s1"))], "worker", ANY).samples
    assert (sample.messages, sample.completion) == ((QUESTION,), '{"answer": "2"}')
    assert sample.token_ids is None


def test_what_breaks_the_capture_contract_is_counted_by_reason() -> None:
    bare = {"prompt_token_ids": None, "token_ids": None, "logprobs": None}
    mined = mine_sft([trace(turn("s1"), turn("s2", **bare), turn("s3", **bare), shown("s4"))], "worker", ANY)
    assert mined.refused == {"no token ids": 2}
    assert mined.turns == 2


def test_only_work_that_ended_well_is_imitated() -> None:
    traces = [trace(turn("s1"), number=1, status="failed"), trace(turn("s2"), number=2, status="over_budget")]
    mined = mine_sft(traces, "worker", ANY)
    assert mined.samples == ()
    assert mined.refused == {"trajectory failed": 1, "trajectory over_budget": 1}


def test_exact_duplicates_become_one_row_that_names_all_their_spans() -> None:
    other = shown("s3", response=Message(role="assistant", content='{"answer": "two"}'))
    mined = mine_sft([trace(shown("s1"), number=1), trace(shown("s2"), other, number=2)], "worker", ANY)
    assert [sample.span_ids for sample in mined.samples] == [("s1", "s2"), ("s3",)]
    assert [sample.trace_id for sample in mined.samples] == [f"{1:032x}", f"{2:032x}"]
    assert mined.turns == 3


def test_a_score_below_the_least_is_refused_and_so_is_none() -> None:
    traces = [
        trace(turn("s1"), number=1, score=0.9),
        trace(turn("s2"), number=2, score=0.4),
        trace(turn("s3"), number=3),
        trace(turn("s4", token_ids=(9, 9)), number=4, score=True),
        trace(turn("s5"), number=5, score="good"),
    ]
    mined = mine_sft(traces, "worker", MineConfig(min_score=0.5))
    assert [sample.span_ids for sample in mined.samples] == [("s1",), ("s4",)]
    assert mined.refused == {"score below 0.5": 1, "no label score": 1, "label score is no number": 1}


def test_other_agents_policies_and_families_are_passed_over_without_a_word() -> None:
    traces = [
        trace(turn("s1", agent="orchestrator"), turn("s2"), shown("s3"), number=1),
        trace(shown("s4"), number=2, family="rings"),
    ]
    mined = mine_sft(traces, "worker", MineConfig(policy="teacher", family="moons"))
    assert [sample.span_ids for sample in mined.samples] == [("s3",)]
    assert mined.refused == {}


def test_the_command_writes_a_dataset_named_by_agent_and_digest(tmp_path: Path) -> None:
    place = Workspace(tmp_path / "ws")
    _record_a_demonstration(place)
    result = CliRunner().invoke(build(), ["mine", "--agent", "worker", "-C", str(place.root), "--json"])
    printed = json.loads(result.stdout)
    path = place.datasets / f"worker-{printed['digest'][:12]}.jsonl"
    assert (printed["path"], printed["rows"], printed["refused"]) == (str(path), 1, {"call failed": 1})
    assert read_samples(path)[0].completion == '{"answer": "2"}'


def test_the_command_says_why_there_is_nothing_to_learn_from(tmp_path: Path) -> None:
    place = Workspace(tmp_path / "ws")
    _record_a_demonstration(place)
    with pytest.raises(TrainingError, match=r"no turn of worker .* became a sample: no label score \(2\)"):
        CliRunner().invoke(
            build(),
            ["mine", "--agent", "worker", "--min-score", "0.5", "-C", str(place.root)],
            catch_exceptions=False,
        )


def _record_a_demonstration(place: Workspace) -> None:
    """One run in which a teacher answered once and failed once."""
    log = SpanLog(place.spans)
    tracer = Tracer(log)
    agent: dict[str, AttributeValue | None] = {a.OPERATION: "invoke_agent", a.AGENT_NAME: "worker", a.STATUS: "ok"}
    chat: dict[str, AttributeValue | None] = {
        a.OPERATION: "chat",
        a.AGENT_NAME: "worker",
        a.REQUEST_MODEL: "teacher",
        a.RESPONSE_MODEL: "teacher",
        a.FINISH_REASONS: ["stop"],
        a.DEMONSTRATION: True,
    }
    with tracer.span("invoke_agent worker", parent=None, attributes=agent) as parent:
        for span_fails in (False, True):
            with tracer.span("chat teacher", parent=parent, kind="client", attributes=chat) as span:
                span.set_json(a.INPUT_MESSAGES, [QUESTION.model_dump()])
                if span_fails:
                    span.fail("ModelError", "nobody demonstrated this")
                else:
                    answer = Message(role="assistant", content='{"answer": "2"}')
                    span.set_json(a.OUTPUT_MESSAGES, [answer.model_dump()])
    log.close()
