"""`journeyman mine` in a workspace in which crews were measured too."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.workspace import Workspace
from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog
from journeyman.traces.errors import ConfigError
from journeyman.training.data.datasets.card import read_card
from journeyman.training.data.samples import SFTSample, read_samples

MakeAdapter = Callable[..., Path]
MOST = "write how many rows may stay, as in 200, or a share below 1, as in 0.1"


def test_nothing_that_a_gate_or_an_evaluation_asked_is_learned_from(
    run: Any, make_adapter: MakeAdapter, files: list[str], url: str, workspace: Workspace
) -> None:
    make_adapter("worker@1")
    run("gate", "worker@1", *files, "--attach", url)
    run("evaluate", *files, "--attach", url, "--seed", "1")
    assert "made for gate (48), made for evaluation (24)" in str(run.error("mine", "--agent", "worker"))
    crew, service = files[1], workspace.root.parent / "service.jsonl"
    service.write_text(json.dumps({"id": "s", "prompt": "100"}) + "\n")
    result = run("run", "--crew", crew, "--tasks", str(service), "--out", f"{service}.out", "--attach", url)
    assert result.exit_code == 0, result.output
    told = run.json("mine", "--agent", "worker")
    assert (told["rows"], told["refused"]) == (1, {"made for gate": 48, "made for evaluation": 24})
    (row,) = read_samples(Path(told["path"]), SFTSample)
    card = read_card(Path(told["path"]))
    assert card is not None and (card.digest, card.rows, card.turns) == (told["digest"], 1, 1)
    assert (card.refused, card.purposes, card.origins) == (told["refused"], {"service": 1}, {"service": 1})
    assert card.made_by["purposes"] == ["service", "teach", "rollout"] and card.made_by["agent"] == "worker"
    origin = workspace.store.get(row.trace_id).origin
    assert origin is not None and (origin.purpose, origin.task_set) == ("service", "service.jsonl")


def test_episodes_from_before_runs_said_what_they_are_for_are_never_learned_from(
    run: Any, files: list[str], url: str, workspace: Workspace
) -> None:
    run("evaluate", *files, "--attach", url)
    spans = list(workspace.store.spans())
    for path in workspace.spans.glob("*.jsonl"):
        path.unlink()
    log = SpanLog(workspace.spans)
    for span in spans:
        older = {name: value for name, value in span.attributes.items() if name != a.PURPOSE}
        log.append(span.model_copy(update={"attributes": older}), sync=False)
    log.close()
    asked = ("mine", "--agent", "worker", "--purpose", "service", "--purpose", "unknown")
    assert "made for evaluation (24)" in str(run.error(*asked))
    for path in (workspace.root / "evaluations").glob("*.jsonl"):
        path.unlink()
    assert "nothing says why it was made (24)" in str(run.error("mine", "--agent", "worker"))
    assert run.json(*asked)["rows"] > 0


def test_what_measures_cannot_be_asked_for(run: Any) -> None:
    refused = run.error("mine", "--agent", "worker", "--purpose", "gate")
    assert isinstance(refused, ConfigError)
    assert str(refused) == "--purpose gate: nobody learns from such runs; have service, teach, rollout, unknown"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("--mix", "own=-1"), "--mix own=-1: a weight is a number from 0 on; write e.g. teacher=1,own=0.5"),
        (("--mix", "teacher"), "--mix teacher: a weight is a number from 0 on; write e.g. teacher=1,own=0.5"),
        (("--mix", "own=1,own=2"), "--mix own=1,own=2: own has two weights; give each name one"),
        (("--cap", "family=0"), f"--cap family=0: {MOST}"),
        (("--cap", "user=1.5"), f"--cap user=1.5: {MOST}"),
        (("--since", "of late"), "'of late' isn't a time: give 30m, 12h, 7d or 2w, or a date such as 2026-11-23"),
    ],
)
def test_what_cannot_be_chosen_by_is_one_line_that_says_what_can(run: Any, asked: tuple[str, str], told: str) -> None:
    refused = run.error("mine", "--agent", "worker", *asked)
    assert isinstance(refused, ConfigError)
    assert str(refused) == told


def test_a_field_that_no_row_has_cannot_be_capped(run: Any) -> None:
    refused = str(run.error("mine", "--agent", "worker", "--cap", "colour=3"))
    assert refused.startswith("--cap colour=3: there is no such field to cap; have family, origin, policy, session")


def test_what_was_chosen_is_counted_and_shown(run: Any, files: list[str], url: str, workspace: Workspace) -> None:
    crew, service = files[1], workspace.root.parent / "service.jsonl"
    tasks = [{"id": name, "prompt": name, "session": f"s{name}", "user": "bo"} for name in ("100", "101", "102")]
    service.write_text("".join(json.dumps(task) + "\n" for task in tasks))
    result = run("run", "--crew", crew, "--tasks", str(service), "--out", f"{service}.out", "--attach", url)
    assert result.exit_code == 0, result.output
    told = run.json("mine", "--agent", "worker", "--cap", "user:bo=2", "--mix", "own=0.5")
    assert (told["rows"], told["left_out"]) == (2, {"over the cap user:bo=2": 1})
    assert told["weighed"] == [{"step": "mix", "group": "own", "rows": 3, "factor": 0.5}]
    assert {row.weight for row in read_samples(Path(told["path"]), SFTSample)} == {0.5}
    again = run.json("mine", "--agent", "worker", "--cap", "user:bo=2", "--mix", "own=0.5")
    assert again["digest"] == told["digest"]
    assert run.json("mine", "--agent", "worker", "--session", "s101", "--of-crew", "echo")["rows"] == 1
    shown = run("mine", "--agent", "worker", "--cap", "user:bo=2", "--hard", "4").output
    assert "2 rows from 3 turns; 0 turns refused; 1 rows left out" in shown
    assert "over the cap user:bo=2" in shown and "succeeds in" in shown
    few = str(run.error("mine", "--agent", "worker", "--cap", "user=0.1"))
    assert few.startswith("--cap user=0.1: rows of 1 user groups can't each be so small a share; give a larger share")
    unknown = str(run.error("mine", "--agent", "worker", "--mix", "x=1"))
    assert unknown.startswith("--mix x: no row has that origin or policy; have own, base")


def test_a_score_that_is_no_number_is_the_users_mistake(run: Any) -> None:
    error = run.error("mine", "--agent", "worker", "--min-score", "nan")
    assert isinstance(error, ConfigError) and "min_score" in str(error)
