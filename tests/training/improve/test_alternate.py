"""Agents that learn in turn: whose leg it is, what it starts from, and who answers beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.adapters.adapter import Adapter, read_adapter
from journeyman.runtime.batch import read_tasks
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError
from journeyman.training.improve import alternate
from journeyman.training.improve.alternate import Alternation
from journeyman.training.improve.from_tasks import TaskJob, Watcher
from journeyman.training.improve.rounds import NothingToLearnError
from journeyman.training.methods.recipes.known import load_recipe

CREW = """
name = "pair"
[orchestrator]
instructions = "Plan."
[workers.lookup]
instructions = "Look it up."
"""


@pytest.fixture
def jobs(workspace: Workspace, files: list[str], tmp_path: Path) -> list[TaskJob]:
    crew = tmp_path / "pair.toml"
    crew.write_text(CREW)
    tasks, _ = read_tasks(Path(files[3]))
    told: dict[str, Any] = {
        "workspace": workspace,
        "recipe": load_recipe("grpo", {"trl.max_steps": 5, "rollouts.group": 4, "rollouts.seed": 100}),
        "crew": crew,
        "tasks": tuple(tasks),
        "source": "tasks.jsonl",
        "scorer": "journeyman.training.rewards:answer_in_text",
        "base_model": Path("model"),
    }
    return [TaskJob(agent=agent, **told) for agent in ("orchestrator", "lookup")]


def test_each_agent_has_all_rounds_in_legs_that_draw_anew(jobs: list[TaskJob]) -> None:
    legs = [(leg.agent, leg.recipe.trl["max_steps"], leg.recipe.rollouts.seed) for leg in Alternation(jobs, 2).legs]
    assert legs == [
        ("orchestrator", 2, 100),
        ("lookup", 2, 100),
        ("orchestrator", 2, 108),
        ("lookup", 2, 108),
        ("orchestrator", 1, 116),
        ("lookup", 1, 116),
    ]


class Made:
    """What a driver is asked for that makes adapters `agent@N` without training any."""

    def __init__(self) -> None:
        self.legs: list[tuple[str, str, dict[str, str]]] = []
        """By leg, the agent, its start, and who answers beside it."""
        self.idle: set[str] = set()
        """Agents that have nothing to learn from."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch, make_adapter: Callable[[str], Path]) -> Made:
    made = Made()

    class Trainer:
        def __init__(self, job: TaskJob) -> None:
            self._job = job

        def train(self, watcher: Watcher) -> Adapter:
            job = self._job
            made.legs.append((job.agent, job.start, dict(job.others)))
            if job.agent in made.idle:
                raise NothingToLearnError("the reward is constant")
            number = sum(agent == job.agent for agent, *_ in made.legs)
            return read_adapter(make_adapter(f"{job.agent}@{number}"))

    monkeypatch.setattr(alternate, "Explorer", Trainer)
    return made


def test_a_leg_starts_from_the_agent_s_own_last_one_beside_the_newest_of_the_others(
    jobs: list[TaskJob], made: Made
) -> None:
    newest = Alternation(jobs, 3).train(Watcher())
    assert made.legs == [
        ("orchestrator", "base", {}),
        ("lookup", "base", {"orchestrator": "orchestrator@1"}),
        ("orchestrator", "orchestrator@1", {"lookup": "lookup@1"}),
        ("lookup", "lookup@1", {"orchestrator": "orchestrator@2"}),
    ]
    assert {agent: adapter.policy for agent, adapter in newest.items()} == {
        "orchestrator": "orchestrator@2",
        "lookup": "lookup@2",
    }


def test_an_agent_with_nothing_to_learn_from_is_passed_over(jobs: list[TaskJob], made: Made) -> None:
    made.idle.add("lookup")
    said: list[str] = []
    newest = Alternation(jobs, 3).train(Watcher(say=said.append))
    assert [adapter.policy for adapter in newest.values()] == ["orchestrator@2"]
    assert made.legs[-1] == ("lookup", "base", {"orchestrator": "orchestrator@2"})
    assert "leg 2 is passed over: the reward is constant" in said


def test_it_ends_where_no_agent_has_anything_to_learn_from(jobs: list[TaskJob], made: Made) -> None:
    made.idle |= {"lookup", "orchestrator"}
    with pytest.raises(NothingToLearnError, match="the reward is constant"):
        Alternation(jobs, 3).train(Watcher())
    assert len(made.legs) == 2


def test_one_agent_alone_or_twice_is_refused(jobs: list[TaskJob]) -> None:
    for wrong in (jobs[:1], [jobs[0], jobs[1], jobs[0]]):
        with pytest.raises(ConfigError, match="name two agents or more that learn in turn, each once"):
            Alternation(wrong, 2)


def test_another_method_is_refused(jobs: list[TaskJob]) -> None:
    others = [job._replace(recipe=load_recipe("rft")) for job in jobs]
    with pytest.raises(ConfigError, match="method rft teaches one agent at a time: name it with --agent"):
        Alternation(others, 2)


@pytest.mark.train
def test_what_is_planned_is_said(jobs: list[TaskJob], embedded_model: Path) -> None:
    plan = Alternation([job._replace(base_model=embedded_model) for job in jobs], 2).plan()
    one = "5 rounds of 32 runs on 24 tasks"
    assert str(plan) == f"orchestrator, lookup in turn, 6 legs of up to 2 rounds; each agent: {one}"
    assert plan.runs == 2 * 5 * 32
