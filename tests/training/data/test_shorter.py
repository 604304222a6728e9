"""Of runs that ended equally well the cheapest are learned from, and only what can be learned from competes."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.cli import build
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import Workspace
from journeyman.tools.calculator import calculator
from journeyman.traces.labels import Label
from journeyman.traces.trace import Origin, Purpose, Task
from journeyman.training.data.mine import mine_sft
from journeyman.training.data.shorter import LONGER, prefer_short
from journeyman.training.data.source import MineConfig, Source

CREW = Crew(
    name="sums",
    orchestrator=None,
    workers=(Agent(name="clerk", instructions="Reckon.", tools=("sum",)),),
    tools={"sum": calculator},
)


class Shows(ScriptedModel):
    demonstrates = True


class Record:
    """Runs of a clerk that calls its tool so many times before it answers."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.store = workspace, workspace.store

    def run(
        self,
        calls: int,
        *,
        score: float | None = 1.0,
        task: str = "q1",
        words: int = 1,
        purpose: Purpose = "teach",
        judged: bool = False,
    ) -> str:
        """Its trace id."""
        said = iter([*[write_call("sum", {"expression": "1 + 1"})] * calls, write_answer("two " * words)])

        def reply(_: ModelRequest) -> str:
            return next(said)

        with Recording(self.workspace) as recording:
            runtime = Runtime(CREW, model=Shows(reply), tracer=recording.tracer, policies={"clerk": "teacher"})
            outcome = runtime.run_sync(
                Task(id=task, prompt=f"Reckon {task}"), origin=Origin(purpose=purpose, judged=judged)
            )
        if score is not None:
            self.store.label(Label(trace_id=outcome.trace_id, name="score", source="tests", value=score))
        return outcome.trace_id

    def left_out(self, **config: Any) -> set[str]:
        return {*prefer_short(Source(self.store, "clerk", MineConfig(**config))).left_out}


@pytest.fixture
def record(workspace: Workspace) -> Record:
    return Record(workspace)


def test_of_runs_of_a_task_with_one_score_the_fewest_steps_are_taken(record: Record) -> None:
    long, short = record.run(2), record.run(0)
    other = record.run(3, task="q2")
    preferred = prefer_short(Source(record.store, "clerk", MineConfig()))
    assert preferred.left_out == {long: LONGER}
    assert preferred.before is not None and preferred.after is not None
    assert (preferred.before.runs, preferred.after.runs, preferred.after.steps) == (3, 2, 4.0)
    assert preferred.before.steps == pytest.approx(13 / 3)
    assert preferred.after.tokens < preferred.before.tokens
    mined = mine_sft(Source(record.store, "clerk", MineConfig(), left_out=preferred.left_out))
    assert {row.trace_id for row in mined.samples} == {short, other}
    assert mined.refused == {LONGER: 3}


def test_tokens_decide_between_equal_steps_and_equal_runs_are_all_taken(record: Record) -> None:
    record.run(1, words=1)
    wordy = record.run(1, words=9)
    record.run(1, words=1)
    assert record.left_out() == {wordy}


def test_a_shorter_run_that_ended_otherwise_displaces_nothing(record: Record) -> None:
    record.run(2, score=1.0)
    record.run(0, score=0.5)
    record.run(1, score=None)
    assert record.left_out() == set()


def test_a_shorter_run_that_nobody_may_learn_from_displaces_nothing(record: Record) -> None:
    record.run(2)
    record.run(0, purpose="evaluation")
    record.run(1, purpose="service")
    record.run(0, judged=True)
    assert record.left_out(purposes=("teach",)) == set()


def test_mine_says_what_preferring_saves(record: Record, workspace: Workspace) -> None:
    record.run(2)
    record.run(0)

    def mine(*more: str) -> Any:
        return CliRunner().invoke(build(), ["mine", "--agent", "clerk", "-C", str(workspace.root), *more])

    told = json.loads(mine("--prefer", "short", "--json").stdout)
    assert (told["rows"], told["preferred"]["before"]["steps"], told["preferred"]["after"]["steps"]) == (1, 3.0, 1.0)
    assert Path(told["path"]).exists()
    assert "short runs preferred: 1 of 2 runs; a run has 1.0 steps and" in mine("--prefer", "short").stdout
    assert "or mine --kind sft" in str(mine("--prefer", "short", "--kind", "kto").exception)
    assert "--prefer long: runs can't be preferred by that; have short" in str(mine("--prefer", "long").exception)
