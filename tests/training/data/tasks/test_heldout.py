"""Nothing is mined from what is held out, near tasks included, whatever order it all happened in."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.redact import Redactor
from journeyman.traces.capture.tracer import AttributeValue, Tracer
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.data.mine import Mined, mine_sft
from journeyman.training.data.source import MineConfig, Source
from journeyman.training.data.tasks.heldout import HeldOut, runs_of

Attributes = dict[str, AttributeValue | None]
SQL = "SELECT count(*) FROM moons WHERE planet = 'Mars'"
SETS = {
    "gate": [Task(id="g1", prompt="How many moons has Mars?", reference=SQL)],
    "test": [
        Task(id="t1", prompt="Which planet is the hottest of all?", metadata={"sub_questions": ["Is Io warm now?"]})
    ],
    "vault": [Task(id="v1", prompt="Who was the first to see Neptune with a telescope?")],
}
HELD_OUT = HeldOut(SETS, 0.7)
FREE = "List the customers of the north by name."


class Runs:
    """Recorded runs of one worker, each of one turn."""

    def __init__(self, workspace: Workspace) -> None:
        self.store = workspace.store
        self._tracer = Tracer(SpanLog(workspace.spans))

    def run(self, prompt: str | None, asked: str = "go on", *, id: str = "q", **more: Any) -> str:
        """A run of the task `prompt`, in which the worker is asked `asked`; None where a crash ended it."""
        told: Attributes = {a.TASK_ID: id}
        whole: Attributes = told | {a.OPERATION: "invoke_workflow", a.STATUS: "ok", a.PURPOSE: "service"}
        if prompt is not None:
            whole |= {a.TASK: Task(id=id, prompt=prompt, **more).model_dump_json()}
        worker: Attributes = told | {a.OPERATION: "invoke_agent", a.AGENT_NAME: "worker", a.STATUS: "ok"}
        with (
            self._tracer.span("invoke_workflow crew", parent=None, attributes=whole) as root,
            self._tracer.span("invoke_agent worker", parent=root, attributes=worker) as span,
            self._tracer.span("chat", parent=span, kind="client", attributes=told | _chat(asked, root.trace_id)),
        ):
            pass
        return root.trace_id

    def mine(self, held_out: HeldOut = HELD_OUT, ids: list[str] | None = None) -> Mined:
        return mine_sft(Source(self.store, "worker", MineConfig(), ids=ids, held_out=held_out))


def _chat(asked: str, reply: str) -> Attributes:
    def texts(role: str, text: str) -> str:
        return json.dumps([{"role": role, "parts": [{"type": "text", "content": text}], "finish_reason": "stop"}])

    return {
        a.OPERATION: "chat",
        a.AGENT_NAME: "worker",
        a.REQUEST_MODEL: "teacher",
        a.RESPONSE_MODEL: "teacher",
        a.DEMONSTRATION: True,
        a.FINISH_REASONS: ["stop"],
        a.INPUT_MESSAGES: texts("user", asked),
        a.OUTPUT_MESSAGES: texts("assistant", reply),
    }


@pytest.fixture
def runs(workspace: Workspace) -> Runs:
    return Runs(workspace)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("How many moons has Mars?", "a task of gate"),
        ("how many moon has mars", "near a task of gate"),
        ("Which planet is the hottest of all??", "a task of test"),
        ("Which planet is the hottest of all? And which one is the coldest, on a clear night?", "shares a question"),
        ("Is Io warm now", "shares a question with test"),
        (f"What does this mean, word by word: {SQL}", "holds a reference of gate"),
    ],
)
def test_no_turn_of_a_run_of_a_held_out_task_is_mined(runs: Runs, prompt: str, reason: str) -> None:
    runs.run(prompt)
    runs.run(FREE)
    mined = runs.mine()
    ((told, count),) = mined.refused.items()
    assert told.startswith(reason) and (count, mined.turns) == (1, 1)


@pytest.mark.parametrize("asked", ["How many moons has Mars?", "How many moons has Mars, please", "Is Io warm now?"])
def test_no_row_in_which_somebody_asks_a_held_out_question_is_mined(runs: Runs, asked: str) -> None:
    runs.run(FREE, asked)
    assert runs.mine().turns == 0


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"metadata": {"sub_questions": ["Is Io warm now?"]}}, "shares a question with test"),
        ({"reference": "to see Neptune with a telescope"}, "holds a reference of vault"),
    ],
)
def test_a_recorded_task_is_tied_by_all_that_it_says(runs: Runs, more: dict[str, Any], reason: str) -> None:
    runs.run(FREE, **more)
    assert runs.mine().refused == {reason: 1}


def test_a_run_is_told_by_what_redaction_left_of_its_task_too(runs: Runs, workspace: Workspace) -> None:
    letter = "Answer lena.maria.hoffmann@example.com and peter.alexander.gruber@example.org, both of them"
    gate = workspace.root.parent / "gate.jsonl"
    gate.write_text(Task(id="g", prompt=letter).model_dump_json() + "\n")
    config = workspace.root.parent / PROJECT_FILE
    config.write_text(f'[traces]\nredact = ["email"]\n[tasks]\nnear = 0.95\ngate = "{gate}"\n')
    held_out = HeldOut.of(Workspace(workspace.root))
    runs.run(Redactor(["email"]).redact(letter, set()))
    assert runs.mine(held_out).refused == {"a task of gate": 1}
    assert held_out.tasks == {"gate": 1}


@pytest.mark.parametrize("metadata", [{"sub_questions": "Who?"}, {"sub_questions": [1]}, {"sub_questions": {"a": 1}}])
def test_what_a_customer_wrote_as_sub_questions_stops_no_mining(runs: Runs, metadata: dict[str, Any]) -> None:
    runs.run(FREE, metadata=metadata)
    assert runs.mine().turns == 1


def test_a_reference_in_what_a_tool_gave_is_no_reason(runs: Runs) -> None:
    runs.run(FREE, f"db: {SQL}")
    assert runs.mine().refused == {}


def test_a_run_that_a_crash_ended_is_told_by_its_tasks_id(runs: Runs) -> None:
    runs.run(None, id="v1")
    runs.run(None, id="q1")
    assert (runs.mine().refused, runs.mine().turns) == ({"a task of vault": 1}, 1)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations([task.prompt for tasks in SETS.values() for task in tasks] + [FREE, "Name ten films."]))
def test_no_row_of_a_held_out_task_gets_in_whatever_the_order(
    order: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    runs = Runs(Workspace(tmp_path_factory.mktemp("w") / ".journeyman").create())
    traces = {runs.run(prompt): prompt for prompt in order}
    assert {traces[sample.trace_id] for sample in runs.mine().samples} == {FREE, "Name ten films."}


def test_a_workspace_without_sets_holds_nothing_out(runs: Runs, workspace: Workspace) -> None:
    runs.run("How many moons has Mars?")
    assert runs.mine(HeldOut.of(workspace)).turns == 1


def test_the_sets_of_the_workspace_are_held_out_but_for_train(runs: Runs, workspace: Workspace) -> None:
    folder = workspace.root.parent
    for name, prompt in {"train": FREE, "gate": "How many moons has Mars?"}.items():
        (folder / f"{name}.jsonl").write_text(json.dumps({"id": name, "prompt": prompt}))
    (folder / PROJECT_FILE).write_text('[tasks]\ntrain = "train.jsonl"\ngate = "gate.jsonl"\nnear = 1.0\n')
    runs.run(FREE)
    runs.run("How many moons has Mars")
    runs.run("How many moon has Mars?")
    assert (runs.mine(HeldOut.of(workspace)).refused, runs.mine(HeldOut.of(workspace)).turns) == (
        {"a task of gate": 1},
        2,
    )


@pytest.mark.parametrize("text", [None, '{"id": "g1", "prompt": "a"}\n{"id": "g1", "prompt": "b"}'])
def test_a_held_out_set_that_cannot_be_read_lets_nothing_be_mined(workspace: Workspace, text: str | None) -> None:
    path: Path = workspace.root.parent / "gate.jsonl"
    (workspace.root.parent / PROJECT_FILE).write_text('[tasks]\ngate = "gate.jsonl"\n')
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"gate\.jsonl(: cannot be read|, line 2: id 'g1' was used before)"):
        HeldOut.of(workspace)


def test_runs_of_tasks_are_found_by_their_prompts(runs: Runs) -> None:
    first, _ = runs.run(FREE), runs.run("Name ten films.")
    assert runs_of(runs.store, [Task(id="any", prompt=FREE.upper())]) == [first]
    assert runs.mine(ids=[first]).turns == 1
