"""A shop's database, SQLite or DuckDB, and tasks that its tables answer."""

import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

from journeyman.agents.budget import Budget
from journeyman.agents.model import ModelRequest
from journeyman.runtime.models.scripted import ScriptedModel
from journeyman.runtime.run.ledger import Ledger
from journeyman.traces.trace import Task
from journeyman.training.data.tasks.heldout import NOTHING, HeldOut
from journeyman.training.data.writing.asking import Asker
from journeyman.training.data.writing.checks import parse_checks
from journeyman.training.data.writing.drafts import Way, attempts
from journeyman.training.data.writing.sources import find_sources
from journeyman.training.data.writing.ways import Writer
from journeyman.training.data.writing.write import Standing, Writing, WrittenTasks, open_tasks

TABLES = """
CREATE TABLE artist (id INTEGER, name TEXT, land TEXT);
CREATE TABLE album (artist INTEGER, title TEXT, year INTEGER, price REAL);
INSERT INTO artist VALUES (1, 'Queen', 'UK'), (2, 'Abba', 'Sweden'), (3, 'The O''Jays', 'US'), (4, 'Nena', 'Germany');
INSERT INTO album VALUES (1, 'Jazz', 1978, 9.5), (1, 'Hot Space', 1982, 8);
INSERT INTO album VALUES (2, 'Arrival', 1976, 9), (4, 'Nena', 1983, 7);
"""


@pytest.fixture(params=["sqlite", "duckdb"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "shop.db"
    if request.param == "sqlite":
        with closing(sqlite3.connect(path)) as lite:
            lite.executescript(TABLES)
    else:
        with duckdb.connect(str(path)) as duck:
            duck.execute(TABLES)
    before = path.read_bytes()
    yield path
    assert path.read_bytes() == before


@pytest.fixture
def queen() -> Task:
    """A template."""
    count = "SELECT count(*) FROM album JOIN artist ON artist.id = album.artist WHERE artist.name = 'Queen'"
    return Task(id="queen", prompt="How many albums has Queen?", reference="2", metadata={"sql": count})


Reply = Callable[[str], dict[str, Any]]


@pytest.fixture
def model_of() -> Callable[[Reply], ScriptedModel]:
    """A model that answers each part that it is asked for out of what a function makes of the question."""

    def model(reply: Reply) -> ScriptedModel:
        def answer(request: ModelRequest) -> str:
            assert request.json_schema is not None
            said = reply(request.messages[-1].content)
            return json.dumps({name: said[name] for name in request.json_schema["properties"] if name in said})

        return ScriptedModel(answer)

    return model


class Desk:
    """Writes tasks to one file, as the command does."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def __call__(
        self,
        ways: Sequence[Way],
        like: Sequence[Task],
        model: ScriptedModel | None = None,
        *,
        wanted: int = 3,
        most: int = 30,
        checks: Sequence[str] = (),
        held_out: HeldOut = NOTHING,
        documents: Path | None = None,
        budget: Budget | None = None,
        concurrency: int = 4,
        seed: int = 0,
        terms: str | None = None,
    ) -> WrittenTasks:
        parsed, standing = parse_checks(checks), Standing(held_out, like, 0.7)
        sources = find_sources(ways, like, held_out, gold=parsed.gold, documents=documents, seed=seed)
        asker = None if model is None else Asker(model, "base", Ledger(budget or Budget()))
        writer = Writer(parsed, standing.clear, asker=asker, terms=terms, templates=sources.templates)
        with open_tasks(self.path) as file:
            writing = Writing(file, writer, standing, wanted=wanted, conditions=[str(seed), *checks])
            return await writing.go_on(attempts(sources.of), most, concurrency=concurrency)

    @property
    def tasks(self) -> list[Task]:
        return [Task.model_validate_json(line) for line in self.path.read_text().splitlines()]

    @property
    def prompts(self) -> list[str]:
        return [task.prompt for task in self.tasks]


@pytest.fixture
def write(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "written.jsonl")
