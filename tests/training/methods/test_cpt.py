"""Continued pre-training on the embedded model, and whether it still does what it is told."""

from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import ConfigError, TrainingError
from journeyman.training.data.samples import DocumentSample
from journeyman.training.methods.job import start_of, train_adapter
from journeyman.training.methods.recipe import Step
from journeyman.training.methods.recipes.known import load_recipe

RIVERS = ("The Sava rises in the Alps.", "The Drava joins the Danube near Osijek.", "The Mura feeds the Drava.")


def texts(**changes: Any) -> list[DocumentSample]:
    return [
        DocumentSample(agent="worker", origin="folder", sources=("rivers.md",), licence="CC0", text=text, **changes)
        for text in RIVERS
    ]


def train(place: Path, base_model: Path, rows: list[Any], recipe: Any, **more: Any) -> Any:
    workspace = Workspace(place / ".journeyman")
    return train_adapter(rows, agent="worker", recipe=recipe, base_model=base_model, workspace=workspace, **more)


def short(**changes: Any) -> Any:
    settings = {"max_steps": 2, "per_device_train_batch_size": 3} | changes
    return load_recipe("cpt", {f"trl.{key}": value for key, value in settings.items()})


def test_it_starts_from_the_base_model() -> None:
    assert start_of(load_recipe("cpt"), "worker@3") == "base"


@pytest.mark.parametrize("key", ["packing", "completion_only_loss", "loss_type"])
def test_what_it_says_to_trl_itself_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"'trl': {key} can't be set: "):
        load_recipe("cpt", {f"trl.{key}": True})


def test_a_text_is_learned_from_its_first_token_to_its_last() -> None:
    from journeyman.training.methods.rows import read_tokenizer, stops_of
    from journeyman.training.methods.trainers.cpt import CPT

    base_model = pull_model()
    tokenizer = read_tokenizer(base_model)
    row = CPT().rows(texts(weight=0.5), short(), tokenizer, stops_of(base_model, tokenizer))[0]
    assert tokenizer.decode(row["input_ids"]) == RIVERS[0], "without the end of a turn"
    assert row["completion_mask"] == [1] * len(row["input_ids"]) and row["weight"] == 0.5


def test_a_text_over_the_limit_is_not_cut(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"3 of 3 samples are longer than trl.max_length = 4 and would be cut"):
        train(tmp_path, pull_model(), texts(), short(max_length=4))


@pytest.mark.train
def test_it_learns_a_text_and_says_whether_instructions_still_work(tmp_path: Path) -> None:
    steps: list[Step] = []
    recipe = short(learning_rate=1e-2, max_steps=3)
    adapter = train(tmp_path, pull_model(), texts(), recipe, on_step=steps.append)
    assert steps[-1].loss < steps[0].loss
    measured = adapter.metrics
    assert measured["instructions_before"] == 0.8, "the README says that the embedded model follows 8 of 10"
    assert measured["instructions_after"] < measured["instructions_before"], "this rate ruins it, and that is seen"
