"""GRPO's driver refuses before anything is run what could not be learned from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journeyman.agents.agent import Example
from journeyman.agents.crew_file import load_crew
from journeyman.agents.prompt import prompt_form
from journeyman.agents.worker import write_answer
from journeyman.runtime.adapters.adapter import PROMPT, read_adapter
from journeyman.runtime.batch import read_tasks
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ConfigError
from journeyman.training.improve.explore import Explorer
from journeyman.training.improve.from_tasks import TaskJob, crew_that_learns, driver_of
from journeyman.training.methods.recipes.known import load_recipe


def job(
    workspace: Workspace, files: list[str], agent: str = "worker", settings: dict[str, Any] | None = None
) -> TaskJob:
    tasks, _ = read_tasks(Path(files[3]))
    return TaskJob(
        workspace=workspace,
        agent=agent,
        recipe=load_recipe("grpo", settings),
        crew=Path(files[1]),
        tasks=tuple(tasks),
        source="tasks.jsonl",
        scorer="journeyman.training.rewards:answer_in_text",
        base_model=Path("model"),
    )


def test_several_processes_would_make_every_run_twice(
    workspace: Workspace, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="several processes would make twice: start `journeyman train` by itself"):
        driver_of(job(workspace, files))


def test_the_recipe_names_its_driver(workspace: Workspace, files: list[str]) -> None:
    assert isinstance(driver_of(job(workspace, files)), Explorer)


def test_an_agent_that_the_crew_has_not_is_refused(workspace: Workspace, files: list[str]) -> None:
    with pytest.raises(ConfigError, match="crew 'echo' has no agent 'writer'; it has: worker"):
        Explorer(job(workspace, files, agent="writer"))


def test_tasks_that_are_held_out_are_never_trained_on(workspace: Workspace, files: list[str]) -> None:
    workspace.config_file.write_text('[tasks]\ntest = "tasks.jsonl"\n')
    with pytest.raises(ConfigError, match=r"nobody may learn from any task of it: a task of test \(24\); take the"):
        Explorer(job(workspace, files))


def test_more_tasks_held_out_than_there_are_is_refused(workspace: Workspace, files: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"rollouts.held_out is 24, there are 24 tasks"):
        Explorer(job(workspace, files, settings={"rollouts.held_out": 24}))


def test_an_agent_learns_in_the_words_that_it_has_in_service(
    workspace: Workspace, files: list[str], make_prompt: Callable[..., Path]
) -> None:
    crew = load_crew(Path(files[1]))
    shown = (Example(user="1", assistant=write_answer("word1")),)
    make_prompt("worker@1", "Think of a word.", examples=shown, in_crew=crew)
    learns = crew_that_learns(job(workspace, files)._replace(parent="worker@1"))
    (worker,) = learns.agents
    assert (worker.instructions, worker.examples) == ("Think of a word.", ())
    assert prompt_form(worker, learns).digest == read_adapter(workspace.adapters / "worker@1").prompt_form
    assert crew_that_learns(job(workspace, files)) == crew


def test_a_prompt_in_service_that_was_altered_is_not_learned_in(
    workspace: Workspace, files: list[str], make_prompt: Callable[..., Path]
) -> None:
    file = make_prompt("worker@1", "Think of a word.") / PROMPT
    file.write_text(file.read_text().replace("Think", "Dream"))
    with pytest.raises(AdapterError, match="worker@1"):
        Explorer(job(workspace, files)._replace(parent="worker@1"))
