"""The router's classifier learns from the record what the small model can do, and is tested on other tasks."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from journeyman.agents.agent import Agent
from journeyman.agents.model import ModelRequest
from journeyman.agents.worker import write_answer, write_call
from journeyman.runtime.cli import build
from journeyman.runtime.models.routing import Router, RoutingConfig, read_classifier
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.recording.recording import Recording
from journeyman.runtime.runtime import Runtime
from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.capture.tracer import Tracer
from journeyman.traces.errors import TrainingError
from journeyman.traces.labels import Label
from journeyman.traces.trace import Task
from journeyman.training.data.tasks.heldout import HeldOut
from journeyman.training.demo import fanoutqa
from journeyman.training.demo.decompositions import read_questions
from journeyman.training.evaluation.evaluate import evaluate
from journeyman.training.rewards import answer_in_text
from journeyman.training.router import RouterConfig, Tried, find_tried, train_router

ANY = RouterConfig()


class Runs:
    """Recorded runs, each of one assignment."""

    def __init__(self, place: Workspace) -> None:
        self.store = place.store
        self.log = SpanLog(place.spans)
        self._tracer = Tracer(self.log)
        self._number = 0

    def run(
        self,
        goal: str,
        *,
        score: float | None = None,
        own_score: float | None = None,
        status: str = "ok",
        policies: tuple[str, ...] = ("base",),
        agent: str = "worker",
        demonstration: bool = False,
        broken: bool = False,
        prompt: str | None = None,
    ) -> None:
        self._number += 1
        whole = {
            a.OPERATION: "invoke_workflow",
            a.STATUS: "ok",
            a.TASK_ID: f"task-{self._number}",
            a.TASK: None if prompt is None else Task(id="t", prompt=prompt).model_dump_json(),
        }
        own = {a.OPERATION: "invoke_agent", a.AGENT_NAME: agent, a.STATUS: status, a.GOAL: goal}
        with (
            self._tracer.span("invoke_workflow crew", parent=None, attributes=whole) as root,
            self._tracer.span("invoke_agent worker", parent=root, attributes=own) as worker,
        ):
            for policy in policies:
                said = {a.OPERATION: "chat", a.AGENT_NAME: agent, a.REQUEST_MODEL: policy}
                called = {**said, a.DEMONSTRATION: demonstration or None}
                with self._tracer.span("chat", parent=worker, kind="client", attributes=called) as chat:
                    if broken:
                        chat.fail("unreachable", "the server is gone")
        for value, span_id in ((score, None), (own_score, worker.span_id)):
            if value is not None:
                self.store.label(
                    Label(trace_id=root.trace_id, span_id=span_id, name="score", source="test", value=value)
                )


@pytest.fixture
def runs(workspace: Workspace) -> Iterator[Runs]:
    there = Runs(workspace)
    yield there
    there.log.close()


def tasks(count: int, *, told_apart: bool = True) -> list[Tried]:
    """Half of them are easy; `told_apart` where their words say which."""
    kinds = [("count the moons of planet", True), ("compare the climates of planet", False)]
    texts = [text if told_apart else "look at planet" for text, _ in kinds]
    return [
        Tried(
            task=f"t{number}",
            agent="worker",
            goal=f"{texts[number % 2]} {number}",
            family="m",
            good=kinds[number % 2][1],
        )
        for number in range(count)
    ]


def test_what_turned_out_well_or_badly_is_learned_from(runs: Runs) -> None:
    runs.run("good", score=1.0)
    runs.run("bad", score=0.5)
    runs.run("failed", status="failed")
    runs.run("its own score counts", score=0.0, own_score=1.0)
    found = find_tried(runs.store, ANY)
    assert [(one.goal, one.good) for one in found] == [
        ("good", True),
        ("bad", False),
        ("failed", False),
        ("its own score counts", True),
    ]
    assert [one.good for one in find_tried(runs.store, RouterConfig(min_score=0.5))] == [True, True, False, True]


def test_what_says_nothing_of_the_small_model_is_left_out(runs: Runs) -> None:
    runs.run("never scored")
    runs.run("cancelled", status="cancelled", score=0.0)
    runs.run("the large one", policies=("big",), score=1.0)
    runs.run("both", policies=("base", "big"), score=1.0)
    runs.run("a person", demonstration=True, score=1.0)
    runs.run("the server failed", broken=True, status="failed")
    runs.run("sha256:0123", score=1.0)
    assert find_tried(runs.store, RouterConfig(large="big")) == []


def test_runs_of_tasks_held_out_are_not_learned_from(runs: Runs) -> None:
    runs.run("a moon", score=1.0, prompt="how many moons has the planet Mars?")
    runs.run("a river", score=1.0, prompt="how long is the river Rhine?")
    gate = HeldOut({"gate": [Task(id="g", prompt="How many moons has the planet Mars")]}, 0.7)
    assert [one.goal for one in find_tried(runs.store, ANY, gate)] == ["a river"]


def test_agents_and_policies_may_be_named(runs: Runs) -> None:
    runs.run("mine", agent="lookup", policies=("lookup@1",), score=1.0)
    runs.run("another's", agent="other", score=1.0)
    assert [one.goal for one in find_tried(runs.store, RouterConfig(agents=("lookup",)))] == ["mine"]
    assert [one.goal for one in find_tried(runs.store, RouterConfig(policies=("lookup@1",)))] == ["mine"]


def test_a_classifier_tells_tasks_apart_that_it_has_not_seen() -> None:
    classifier = train_router(tasks(300))
    assert classifier.accuracy == 1.0 and 0.3 < classifier.majority < 0.7
    assert classifier.rows + classifier.held_out == 300
    assert classifier.score("worker", "count the moons of planet Mars", "m") > 0.5
    assert classifier.score("worker", "compare the climates of planet Mars", "m") < 0.5
    assert classifier == train_router(tasks(300))


def test_words_that_say_nothing_give_no_accuracy() -> None:
    classifier = train_router(tasks(300, told_apart=False))
    assert classifier.accuracy < 0.7


def test_a_goal_of_a_held_out_task_is_not_trained_on() -> None:
    once = train_router(tasks(300))
    again = [one.model_copy(update={"task": f"again-{one.task}"}) for one in tasks(300)]
    twice = train_router([*tasks(300), *again])
    assert twice.rows < 2 * once.rows
    assert twice.held_out > once.held_out


@pytest.mark.parametrize("rows", [tasks(20), [one for one in tasks(400) if one.good]])
def test_too_little_to_learn_from_is_an_error_that_counts(rows: list[Tried]) -> None:
    with pytest.raises(TrainingError, match=r"\d+ assignments to learn from"):
        train_router(rows)


def test_the_command_writes_what_the_runtime_reads(runs: Runs, workspace: Workspace) -> None:
    for one in tasks(200):
        runs.run(one.goal, score=float(one.good))
    shown = CliRunner().invoke(build(), ["train-router", "-C", str(workspace.root), "--json"])
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.stdout)["accuracy"] == read_classifier(workspace.router).accuracy
    router = Router.open(RoutingConfig(large="big", classifier=True), workspace.router)
    route = router.choose(Agent(name="worker", instructions="w"), "compare the climates", Task(id="t", prompt="p"))
    assert route is not None and route.policy == "big"


def looks_once(request: ModelRequest) -> str:
    """A small model: it looks its goal up, and answers with the best fact."""
    last = request.messages[-1].content
    shown = f"{fanoutqa.LOOKUP}: "
    if not last.startswith(shown):
        return write_call(fanoutqa.LOOKUP, {"query": last})
    best, _, values = last.removeprefix(shown).splitlines()[0].partition(' ["')
    return write_answer(json.loads(f'["{values}') if values else best)


def test_on_real_questions_it_learns_which_ones_a_single_look_up_answers(workspace: Workspace) -> None:
    asked = []
    for question in read_questions()[::2]:
        last = question.facts[-1]
        asked.append(Task(id=question.id, prompt=question.text, reference=question.answer))
        asked.append(Task(id=f"{question.id}, a part", prompt=last.text, reference=list(last.values)))
    crew = fanoutqa.single_agent_crew("test", examples=False)
    with Recording(workspace) as recording:
        runtime = Runtime(crew, model=ScriptedModel(looks_once), tracer=recording.tracer)
        asyncio.run(evaluate(runtime, asked, answer_in_text, label=recording.label))
    classifier = train_router(find_tried(workspace.store, ANY))
    assert classifier.held_out > 50
    either = max(classifier.majority, 1 - classifier.majority)
    assert classifier.accuracy > either + 0.2


def test_what_is_no_better_than_one_answer_for_all_is_not_written(runs: Runs, workspace: Workspace) -> None:
    (workspace.root.parent / PROJECT_FILE).write_text('[routing]\nlarge = "base"\nclassifier = true\n')
    for one in tasks(200, told_apart=False):
        runs.run(one.goal, policies=("worker@1",), score=float(one.good))
    arguments = ["train-router", "-C", str(workspace.root)]
    refused = CliRunner().invoke(build(), arguments)
    assert isinstance(refused.exception, TrainingError) and "not written" in str(refused.exception)
    assert not workspace.router.exists()
    assert CliRunner().invoke(build(), [*arguments, "--anyway"]).exit_code == 0
    assert workspace.router.exists()
