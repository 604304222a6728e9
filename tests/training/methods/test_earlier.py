"""Earlier rows: what is replayed and what is measured follows from the rows and their lineage alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.adapters.adapter import Adapter, Replayed
from journeyman.runtime.adapters.lineage import AdapterLineage, trace_lineage, uses
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError
from journeyman.traces.messages import Message
from journeyman.traces.tombstones import Tombstones
from journeyman.training.data.samples import SFTSample, write_samples
from journeyman.training.methods.earlier import NOTHING, Earlier, earlier_rows
from journeyman.training.methods.job import load_recipe

BASE_MODEL = "b" * 64


def samples(about: str, count: int, **changes: Any) -> list[SFTSample]:
    return [
        SFTSample(
            agent="worker",
            policy="teacher",
            trace_id=f"{about}{number}".encode().hex().rjust(32, "0"),
            span_ids=(f"{about}{number}".encode().hex().rjust(16, "0"),),
            messages=(Message(role="user", content=f"{about} {number}?"),),
            completion="yes",
            prompt_form="a" * 16,
        ).model_copy(update=changes)
        for number in range(count)
    ]


def learned(workspace: Workspace, number: int, rows: list[SFTSample], **changes: Any) -> str:
    """The digest of a dataset that `worker@number` was trained on."""
    workspace.datasets.mkdir(parents=True, exist_ok=True)
    digest = write_samples(rows, workspace.datasets / f"worker-{number}.jsonl")
    adapter = Adapter(
        agent="worker",
        number=number,
        base_digest=BASE_MODEL,
        digest="d" * 64,
        method="sft",
        dataset_digest=digest,
        rows=len(rows),
        recipe_digest="r" * 64,
        rank=8,
        train_seconds=1.0,
        created_ns=number,
    ).model_copy(update=changes)
    folder = workspace.adapters / adapter.policy
    folder.mkdir(parents=True)
    (folder / "adapter.json").write_text(adapter.model_dump_json())
    return digest


def earlier(workspace: Workspace, rows: list[SFTSample], *policies: str, **guard: Any) -> Earlier:
    recipe = load_recipe("sft", {f"guard.{key}": value for key, value in guard.items()})
    return earlier_rows(
        rows,
        recipe=recipe,
        workspace=workspace,
        base_digest=BASE_MODEL,
        dataset_digest="n" * 64,
        policies=policies or ("worker@1", "base"),
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / ".journeyman").create()


def test_nothing_is_replayed_where_nothing_was_learned_before(workspace: Workspace) -> None:
    assert earlier(workspace, samples("new", 8), "base", "base") == NOTHING


def test_a_fifth_is_replayed_once_there_is_something_to_forget(workspace: Workspace) -> None:
    digest = learned(workspace, 1, samples("old", 40))
    rows = earlier(workspace, samples("new", 40))
    assert (len(rows.replayed), len(rows.measured), rows.against) == (10, 8, "worker@1")
    assert {one.trace_id for one in rows.replayed}.isdisjoint(one.trace_id for one in rows.measured)  # type: ignore[attr-defined]
    assert [part.dataset_digest for part in rows.used] == [digest]
    lines = (workspace.datasets / "worker-1.jsonl").read_text().splitlines()
    named = {json.loads(lines[number - 1])["trace_id"] for number in rows.used[0].numbers}
    assert named == {one.trace_id for one in rows.replayed}  # type: ignore[attr-defined]
    assert earlier(workspace, samples("new", 40)) == rows


def test_each_dataset_of_the_lineage_has_its_turn(workspace: Workspace) -> None:
    learned(workspace, 1, samples("first", 200))
    learned(workspace, 2, samples("second", 12), parent="worker@1")
    learned(workspace, 3, samples("stranger", 12))
    rows = earlier(workspace, samples("new", 16), "worker@2", "base", replay=0.5)
    assert [len(part.numbers) for part in rows.used] == [8, 8]
    assert not any("stranger" in sample.model_dump_json() for sample in (*rows.replayed, *rows.measured))


def test_a_share_of_nothing_still_measures(workspace: Workspace) -> None:
    learned(workspace, 1, samples("old", 40))
    rows = earlier(workspace, samples("new", 40), replay=0)
    assert (rows.replayed, rows.used, len(rows.measured)) == ((), (), 8)


def test_rows_that_do_not_fit_are_left_out_and_counted(workspace: Workspace) -> None:
    new = samples("new", 8)
    gone = learned(workspace, 1, samples("gone", 4))
    (workspace.datasets / "worker-1.jsonl").unlink()
    mixed = [
        *samples("old", 8),
        *samples("form", 2, prompt_form="c" * 16),
        *samples("deleted", 1),
        *samples("new", 3, completion="no longer"),
    ]
    learned(workspace, 2, mixed, parent="worker@1")
    Tombstones(workspace.spans).add([samples("deleted", 1)[0].trace_id], reason="by user")
    rows = earlier(workspace, new, "worker@2", replay=0.9)
    assert rows.left_out == {
        "a prompt that newer rows have": 3,
        "another prompt form": 2,
        "of a deleted run": 1,
        "a dataset that isn't in the workspace": 1,
    }
    assert str(rows).startswith("1 earlier dataset; left out: 3 a prompt that newer rows have, ")
    assert gone not in {part.dataset_digest for part in rows.used}


def test_held_out_tasks_are_never_replayed(tmp_path: Path) -> None:
    (tmp_path / "gate.jsonl").write_text('{"id": "g", "prompt": "Which of the many rivers of Europe is it, old 3?"}\n')
    (tmp_path / "journeyman.toml").write_text('[tasks]\ngate = "gate.jsonl"\n')
    workspace = Workspace(tmp_path / ".journeyman").create()
    asked = Message(role="user", content="Which of the many rivers of Europe is it, old 3?")
    learned(workspace, 1, [*samples("old", 8), *samples("held", 1, messages=(asked,))])
    rows = earlier(workspace, samples("new", 40))
    assert rows.left_out == {"of a held-out task": 1}


def test_lineage_and_deletions_find_replayed_rows(workspace: Workspace) -> None:
    old, other = samples("old", 4), samples("new", 4)
    digest = learned(workspace, 1, old)
    learned(workspace, 2, other, replayed=(Replayed(dataset_digest=digest, numbers=(2,)),))
    (use,) = uses(workspace, {old[1].trace_id}, set())
    assert [(one.policy, one.how) for one in use.adapters] == [
        ("worker@1", "trained on it"),
        ("worker@2", "replayed rows of it"),
    ]
    (use,) = uses(workspace, {old[0].trace_id}, set())
    assert [one.policy for one in use.adapters] == ["worker@1"]
    lineage = trace_lineage(workspace, "worker@2")
    assert isinstance(lineage, AdapterLineage)
    assert {source.trace_id for source in lineage.sources} == {old[1].trace_id, *(one.trace_id for one in other)}
    assert [path.name for path in lineage.replayed] == ["worker-1.jsonl"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"guard.replay": 1.0}, "'guard.replay'"),
        ({"guard.kl": -1.0}, "'guard.kl'"),
        ({"guard.share": 0.1}, "unknown key 'guard.share'"),
    ],
)
def test_a_guard_that_cannot_be_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load_recipe("sft", changes)
