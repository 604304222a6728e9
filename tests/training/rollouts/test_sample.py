"""Tasks come in turn, in another order in each epoch; the agent that learns samples, the others work as in service."""

from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.agent import Agent, Crew
from journeyman.agents.model import ModelRequest, ModelTable
from journeyman.agents.worker import write_answer
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.serving.backend import Backend
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.trace import Task
from journeyman.training.rollouts.sample import Exploring, Sampling, sample_group, tasks_of
from journeyman.training.rollouts.table import RolloutTable

TASKS = [Task(id=f"t{number}", prompt=str(number), reference="x") for number in range(10)]
CREW = Crew(
    name="pair",
    orchestrator=Agent(name="boss", instructions="Plan."),
    workers=(Agent(name="lookup", instructions="Answer."),),
)
PLAN = '{"assignments": [{"id": "1", "worker": "lookup", "goal": "look", "needs": []}]}'


def exploring(workspace: Workspace, model: Any, crew: Crew = CREW, agent: str = "lookup") -> Exploring:
    backend = Backend(models=ModelTable(model), router=None, server=None)
    return Exploring(workspace, crew, agent, TASKS[:2], [], "journeyman.training.rewards:answer_in_text", backend)


def said(request: ModelRequest) -> str:
    return PLAN if request.agent == "boss" else write_answer("x")


def test_all_tasks_are_taken_before_any_comes_again() -> None:
    epoch = [task.id for step in range(5) for task in tasks_of(TASKS, step, 2, seed=0)]
    assert sorted(epoch) == sorted(task.id for task in TASKS)
    second = [task.id for step in range(5, 10) for task in tasks_of(TASKS, step, 2, seed=0)]
    assert sorted(second) == sorted(epoch) and second != epoch
    assert tasks_of(TASKS, 3, 2, seed=0) == tasks_of(TASKS, 3, 2, seed=0)


def test_a_step_never_has_a_task_twice() -> None:
    for step in range(20):
        ids = [task.id for task in tasks_of(TASKS, step, 7, seed=1)]
        assert len(ids) == len(set(ids))


@pytest.mark.parametrize("count, aside", [(10, 0), (59, 0), (60, 6), (400, 16)])
def test_some_of_many_tasks_are_held_out(count: int, aside: int) -> None:
    tasks = [Task(id=str(number), prompt="?") for number in range(count)]
    learned, held_out = RolloutTable().parted(tasks)
    assert len(held_out) == aside and len(learned) + len(held_out) == count
    assert RolloutTable().parted(tasks) == (learned, held_out)


def test_holding_all_tasks_out_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"rollouts.held_out is 10, there are 10 tasks: leave some to learn from"):
        RolloutTable(held_out=10).parted(TASKS)


def test_only_the_agent_that_learns_is_sampled(workspace: Workspace, tmp_path: Path) -> None:
    model = ScriptedModel(said)
    sampling = Sampling(TASKS[:2], PolicyTable(), tmp_path / "runs", seeds=(5, 6), concurrency=4)
    episodes = sample_group(exploring(workspace, model), sampling)
    assert [episode.score for episode in episodes] == [1.0] * 4
    heat = {(request.agent, request.temperature) for request in model.requests}
    assert heat == {("boss", 0.0), ("lookup", 1.0)}
    assert {request.seed for request in model.requests} == {5, 6}
    assert len({(e.task_id, e.trace_id) for e in episodes}) == 4


def test_runs_that_were_made_are_not_made_again(workspace: Workspace, tmp_path: Path) -> None:
    model = ScriptedModel(said)
    sampling = Sampling(TASKS[:2], PolicyTable(), tmp_path / "runs", seeds=(1, 2), concurrency=4)
    first = sample_group(exploring(workspace, model), sampling)
    asked = len(model.requests)
    assert sample_group(exploring(workspace, model), sampling) == first
    assert len(model.requests) == asked


def test_a_measurement_is_greedy_and_nobody_learns_from_it(workspace: Workspace, tmp_path: Path) -> None:
    model = ScriptedModel(said)
    sampling = Sampling(TASKS[:1], PolicyTable(), tmp_path / "runs", seeds=(0,), concurrency=4, explores=False)
    sample_group(exploring(workspace, model), sampling)
    assert {request.temperature for request in model.requests} == {0.0}
    assert [trace.origin.purpose for trace in workspace.store.traces() if trace.origin] == ["evaluation"]


def test_an_agent_that_there_is_not_is_refused(workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match="has no agent 'writer'; it has: boss, lookup"):
        exploring(workspace, ScriptedModel([]), agent="writer").check()


def test_an_agent_whose_policy_the_crew_fixes_can_t_learn(workspace: Workspace) -> None:
    worker = Agent(name="lookup", instructions="Answer.", model="base")
    crew = Crew(name="fixed", orchestrator=None, workers=(worker,))
    with pytest.raises(ConfigError, match="lookup is always answered by 'base': take `model` out"):
        exploring(workspace, ScriptedModel([]), crew).check()


def test_nothing_is_learned_where_texts_are_not_recorded(workspace: Workspace) -> None:
    workspace.config_file.write_text('[traces]\ncontent = "off"\n')
    with pytest.raises(ConfigError, match="nothing can be learned from what `content = "):
        exploring(workspace, ScriptedModel([])).check()
