"""`journeyman data`: what a person sees, and what a program gets."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from journeyman.runtime.workspace import PROJECT_FILE, Workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.messages import Message
from journeyman.training.commands.data import app
from journeyman.training.data.samples import SFTSample, write_samples

Data = Callable[..., Result]


def sample(number: int, completion: str = "Paris") -> SFTSample:
    return SFTSample(
        agent="worker",
        policy="teacher",
        origin="teacher",
        trace_id=f"{number:032x}",
        span_ids=(f"{number:016x}",),
        messages=(Message(role="user", content=f"Capital number {number}?"),),
        completion=completion,
    )


@pytest.fixture
def data(workspace: Workspace) -> Data:
    """The commands in a workspace with two datasets, and a model that isn't at hand."""
    (workspace.root.parent / PROJECT_FILE).write_text('[server]\nmodel = "org/nowhere"\n')
    write_samples([sample(1), sample(2, "")], workspace.datasets / "a.jsonl")
    write_samples([sample(1), sample(3)], workspace.datasets / "b.jsonl")

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments, "-C", str(workspace.root)], env={"COLUMNS": "160"})

    return call


def test_datasets_are_listed_with_what_is_in_them(data: Data, workspace: Workspace) -> None:
    (workspace.datasets / "c.jsonl").write_text("[]\n")
    listed = data("list")
    assert "a.jsonl" in listed.stdout and "teacher 2" in listed.stdout and "no card" in listed.stdout
    assert "c.jsonl: line 1 isn't a JSON object: take it out" in listed.stdout
    rows = json.loads(data("list", "--json").stdout)
    states = {Path(row["path"]).name: row["state"] for row in rows}
    assert states == {"a.jsonl": "no card", "b.jsonl": "no card", "c.jsonl": "damaged"}


def test_rows_are_shown_as_a_table_and_one_in_full(data: Data) -> None:
    shown = data("show", "a", "--contains", "number 1")
    assert "Capital number 1?" in shown.stdout and "1 of 2 rows" in shown.stdout
    whole = data("show", "a", "--row", "1").stdout
    assert "user: Capital number 1?" in whole and "»Paris«" in whole and "reply (as text" in whole
    pieces = json.loads(data("show", "a", "--row", "1", "--json").stdout)["masked"][0]["pieces"]
    assert [piece["learned"] for piece in pieces] == [False, True]


def test_a_difference_is_told_in_counts_and_numbers(data: Data) -> None:
    assert "1 row the same, 1 came, 1 went" in data("diff", "a", "b").stdout


def test_a_card_is_shown_also_where_it_is_made_from_the_rows(data: Data) -> None:
    shown = data("card", "a.jsonl").stdout
    assert "it has no card (a.jsonl.card.json)" in shown and "teacher 2" in shown


def test_a_check_ends_with_1_where_it_finds_something(data: Data) -> None:
    found = data("check", "a")
    assert found.exit_code == 1
    assert "empty mask: 1 row\n  row 2: the reply is empty" in found.stdout
    assert "tokens weren't compared" in found.stderr
    assert json.loads(data("check", "a", "--json").stdout)["counts"] == {"empty mask": 1}
    sound = data("check", "b")
    assert (sound.exit_code, sound.stdout) == (0, "nothing found in 2 rows\n")


def test_an_export_names_what_it_wrote(data: Data, tmp_path: Path) -> None:
    to = tmp_path / "out.jsonl"
    assert json.loads(data("export", "b", "--as", "openai", "--out", str(to), "--json").stdout)["rows"] == 2
    assert len(to.read_text().splitlines()) == 2


def test_a_form_that_isnt_there_and_the_dataset_itself_are_refused(data: Data, workspace: Workspace) -> None:
    unknown = data("export", "b", "--as", "poem", "--out", "x").exception
    assert isinstance(unknown, ConfigError)
    assert str(unknown) == "--as poem: there is no such form; have trl, openai, datasets, parquet"
    itself = data("export", "b", "--out", str(workspace.datasets / "b.jsonl")).exception
    assert isinstance(itself, ConfigError) and "is the dataset itself, which never changes" in str(itself)


def test_a_model_that_was_named_and_cant_be_had_is_an_error(data: Data) -> None:
    assert isinstance(data("check", "b", "--model", "./nowhere").exception, ConfigError)
