"""Every TOML file in the tree parses as what it is."""

import subprocess
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from journeyman.agents.crew_file import load_crew
from journeyman.runtime.batch import read_tasks
from journeyman.runtime.cli import GROUP, PANELS
from journeyman.runtime.config import ProjectConfig
from journeyman.traces.base import parse_config, read_toml
from journeyman.traces.conventions import conventions
from journeyman.training.methods.recipes.known import load_recipe

ROOT = Path(__file__).parents[1]
LISTED = subprocess.run(["git", "ls-files", "*.toml"], cwd=ROOT, capture_output=True, text=True, check=True)
TOMLS = [ROOT / name for name in LISTED.stdout.split()]


@pytest.mark.parametrize("path", TOMLS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_toml_in_the_tree_parses_as_what_it_is(path: Path) -> None:
    if path.name == "pyproject.toml":
        assert read_toml(path)["project"]["name"] == "journeyman"
    elif path.parent.name == "recipes":
        load_recipe(path)
    elif path.name == "journeyman.toml":
        parse_config(ProjectConfig, read_toml(path), str(path))
    elif path.name == "conventions.toml":
        assert conventions().commit
    else:
        load_crew(path)


def test_the_example_tasks_are_whole() -> None:
    tasks, broken = read_tasks(ROOT / "examples" / "planets" / "tasks.jsonl")
    assert len(tasks) == 2
    assert broken == []


def test_every_command_has_its_place_on_the_map_and_loads() -> None:
    commands = {entry.name: entry for entry in entry_points(group=GROUP)}
    assert set(commands) == {name for names in PANELS.values() for name in names}
    assert all(callable(entry.load()) for entry in commands.values())


def test_lock_files_hold_no_index_addresses() -> None:
    for lock in (ROOT / "requirements").glob("*.lock"):
        assert "://" not in lock.read_text()
