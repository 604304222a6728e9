"""Recipes: every one in the package parses, and what can't be trained or served is refused in one line."""

from pathlib import Path

import pytest

from journeyman.traces.errors import ConfigError
from journeyman.training.methods.job import load_recipe
from journeyman.training.methods.recipe import RECIPES, read_override
from journeyman.training.methods.sft import SFTRecipe


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_of_the_package_parses(path: Path) -> None:
    assert load_recipe(path) == load_recipe(path.stem)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("epochs = 3", "unknown key 'epochs'"),
        ("[lora]\nrank = 8", "unknown key 'lora.rank'"),
        ("[lora]\nuse_dora = true", "'lora': vLLM can't serve an adapter with use_dora: train plain LoRA"),
        ('[lora]\nbias = "all"', "'lora': vLLM can't serve an adapter with bias"),
        ('[lora]\nmodules_to_save = ["lm_head"]', "'lora': vLLM can't serve an adapter with modules_to_save"),
        ('[lora]\ntarget_modules = ["lm_head"]', "vLLM can't serve an adapter on lm_head"),
        ('[trl]\noutput_dir = "here"', "'trl': output_dir can't be set: checkpoints belong to the workspace"),
        ("[trl]\npadding_free = true", "'trl': padding_free can't be set: trl.packing says"),
        ('[trl]\nloss_type = "dft"', "'trl': loss_type can't be set"),
        ("[trl]\nmax_steps = 0", "'trl': max_steps is 0: write a number from 1 on"),
        ("[trl]\nnum_train_epochs = nan", "'trl': num_train_epochs is nan: write a number above 0"),
        ("[trl]\nsave_steps = 0.5", "'trl': save_steps is 0.5: write a number from 1 on"),
        ("[trl]\nper_device_train_batch_size = -1", "'trl': per_device_train_batch_size is -1: write a number"),
        ("[trl", "not valid TOML"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_recipe(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_recipe_is_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"unknown recipe 'dream'; have .*sft"):
        load_recipe("dream")


def test_overrides_change_the_recipe_and_its_digest() -> None:
    changed = load_recipe("sft", dict(map(read_override, ["trl.max_steps=20", "lora.r=4", "trl.optim=adamw_torch"])))
    assert isinstance(changed, SFTRecipe)
    assert (changed.trl["max_steps"], changed.lora.r, changed.trl["optim"]) == (20, 4, "adamw_torch")
    assert changed.digest != load_recipe("sft").digest == load_recipe("sft", {"lora.r": 8}).digest


@pytest.mark.parametrize("text", ["trl.max_steps", "=3"])
def test_an_override_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write key=value"):
        read_override(text)


def test_a_value_is_no_table() -> None:
    with pytest.raises(ConfigError, match="'method' isn't a table"):
        load_recipe("sft", {"method.kind": 1})
