"""All weights, quantised bases, export and growth in rank, on the embedded model."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.adapters.adapter import WEIGHTS, load_adapter, read_probe
from journeyman.runtime.serving.embedded import pull_model
from journeyman.runtime.workspace import Workspace
from journeyman.traces.errors import AdapterError, ConfigError
from journeyman.traces.messages import Message
from journeyman.training.data.samples import SFTSample
from journeyman.training.methods.export import export_adapter, export_merged
from journeyman.training.methods.job import plan_job, train_adapter
from journeyman.training.methods.recipes.full import FullRecipe
from journeyman.training.methods.recipes.known import load_recipe

SHORT = {"trl.max_steps": 2, "trl.per_device_train_batch_size": 2}


@pytest.fixture(scope="module")
def base_model() -> Path:
    return pull_model()


def samples() -> list[SFTSample]:
    return [
        SFTSample(
            agent="worker",
            policy="teacher",
            trace_id=f"{number:032x}",
            span_ids=(f"{number:016x}",),
            messages=(Message(role="user", content=f"Capital of {country}?"),),
            completion=json.dumps({"answer": capital}),
        )
        for number, (country, capital) in enumerate((("Italy", "Rome"), ("Peru", "Lima")))
    ]


def trained(
    workspace: Workspace, base_model: Path, recipe: str, settings: dict[str, Any] | None = None, *, start: str = "base"
) -> Path:
    adapter = train_adapter(
        samples(),
        agent="worker",
        recipe=load_recipe(recipe, {**SHORT, **(settings or {})}),
        base_model=base_model,
        workspace=workspace,
        start=start,
    )
    return workspace.adapters / adapter.policy


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[1, 504, 3575, 282, 4649, 314]])).logits.float()


def loaded(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    return model


def with_adapter(base_model: Path, folder: Path) -> Any:
    from peft import PeftModel

    model: Any = PeftModel.from_pretrained(loaded(base_model), str(folder))
    return model


def test_all_weights_and_an_adapter_are_not_trained_at_once() -> None:
    with pytest.raises(ConfigError, match="lora: all weights are trained, so there is no adapter"):
        load_recipe("full", {"lora.r": 4})


def test_what_a_model_of_its_own_costs_is_told_before_it_is_trained(base_model: Path, workspace: Workspace) -> None:
    notice = load_recipe("full").notice(base_model, workspace)
    assert notice is not None and "training takes about 2.2 GB" in notice and "0.27 GB of weights" in notice


def test_the_plan_of_all_weights_names_no_adapter(base_model: Path, workspace: Workspace) -> None:
    recipe = load_recipe("full", {"full.frozen": ["embed_tokens"]})
    assert isinstance(recipe, FullRecipe)
    plan = plan_job(samples(), agent="worker", recipe=recipe, base_model=base_model, workspace=workspace)
    told = {choice.key: choice.value for choice in plan.choices}
    assert told["full.frozen"] == ["embed_tokens"] and not any(key.startswith("lora.") for key in told)


@pytest.mark.parametrize(
    ("frozen", "complaint"), [(("",), "no layer ''; have model"), (("model", "lm_head"), "no weight to train")]
)
def test_layers_that_are_not_there_or_are_all_there_is_cannot_be_frozen(
    tiny_base: Path, frozen: tuple[str, ...], complaint: str
) -> None:
    from journeyman.training.methods.trainers.full import Full

    recipe = load_recipe("full", {"full.frozen": list(frozen)})
    assert isinstance(recipe, FullRecipe)
    with pytest.raises(ConfigError, match=complaint):
        Full().model(tiny_base, recipe, 8, None)


def test_quantisation_is_what_the_recipe_says() -> None:
    from journeyman.training.methods.recipes.qlora import QLoRARecipe
    from journeyman.training.methods.trainers.qlora import quantisation

    recipe = load_recipe("qlora", {"quantisation.double": False})
    assert isinstance(recipe, QLoRARecipe)
    told = quantisation(recipe.quantisation)
    assert (told["load_in_4bit"], told["bnb_4bit_quant_type"], told["bnb_4bit_use_double_quant"]) == (
        True,
        "nf4",
        False,
    )
    with pytest.raises(ConfigError, match=r"quantisation\.kind"):
        load_recipe("qlora", {"quantisation.kind": "int3"})


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is here")
def test_without_a_gpu_a_quantised_base_is_refused_in_one_line(base_model: Path, workspace: Workspace) -> None:
    with pytest.raises(ConfigError, match=r"recipe: qlora needs (a CUDA GPU|bitsandbytes)"):
        trained(workspace, base_model, "qlora")
    assert not (workspace.adapters / "worker@1").exists()


def test_an_export_is_what_peft_reads_and_writes_over_nothing(
    workspace: Workspace, make_adapter: Any, tmp_path: Path
) -> None:
    folder = make_adapter("worker@1")
    export_adapter(workspace, "worker@1", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["adapter_config.json", WEIGHTS]
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()
    with pytest.raises(AdapterError, match="out exists already: name a folder that doesn't"):
        export_adapter(workspace, "worker@1", tmp_path / "out")


def test_an_adapter_is_merged_into_its_own_base_model_only(
    workspace: Workspace, base_model: Path, make_adapter: Any, tmp_path: Path
) -> None:
    make_adapter("worker@1")
    with pytest.raises(AdapterError, match=r"worker@1 was trained on base model bbbbbbbbbbbb, .* with --model"):
        export_merged(workspace, "worker@1", tmp_path / "out", base_model)
    assert not (tmp_path / "out").exists()


@pytest.mark.train
@pytest.mark.timeout(300)
def test_a_merged_export_computes_what_the_adapter_does(workspace: Workspace, base_model: Path, tmp_path: Path) -> None:
    folder = trained(workspace, base_model, "sft", {"trl.learning_rate": 5e-3})
    merged = logits(loaded(export_merged(workspace, "worker@1", tmp_path / "out", base_model)))
    learned = logits(with_adapter(base_model, folder))
    change = (learned - logits(loaded(base_model))).abs().mean()
    assert (merged - learned).abs().mean() < 0.2 * change
    assert (tmp_path / "out" / "tokenizer.json").exists() and not (tmp_path / "out" / "adapter.json").exists()
    from journeyman.training.methods.trainers.full import Full

    recipe = load_recipe("full")
    assert isinstance(recipe, FullRecipe)
    model, _ = Full().model(base_model, recipe, 64, folder)
    assert all(weights.requires_grad for weights in model.parameters()), "all weights go on from an adapter, too"


@pytest.mark.train
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:The PEFT config")
def test_an_adapter_grows_in_rank_and_computes_the_same(workspace: Workspace, base_model: Path) -> None:
    from journeyman.training.methods.trainers.weights import begun

    small = {"lora.r": 2, "lora.alpha": 6, "trl.learning_rate": 5e-3}
    folder = trained(workspace, base_model, "sft", small)
    grown = begun(loaded(base_model), folder, load_recipe("sft", {"lora.r": 8, "lora.alpha": 8}))
    before = logits(with_adapter(base_model, folder))
    assert (logits(grown) - before).abs().max() < 1e-3 < 1 < (before - logits(loaded(base_model))).abs().max()
    new = {name: weight for name, weight in grown.named_parameters() if "lora_A" in name}
    assert all(weight.shape[0] == 8 and weight[2:].abs().max() > 0 for weight in new.values()), "they can learn"
    with pytest.raises(ConfigError, match="worker@1 has rank 2, which doesn't fit into the recipe's 1: add --set"):
        trained(workspace, base_model, "sft", {"lora.r": 1}, start="worker@1")


@pytest.mark.train
@pytest.mark.timeout(300)
def test_all_weights_give_a_model_of_its_own(workspace: Workspace, base_model: Path, tmp_path: Path) -> None:
    frozen = {"full.frozen": ["embed_tokens"], "trl.learning_rate": 1e-3, "trl.save_steps": 5}
    folder = trained(workspace, base_model, "full", frozen)
    adapter = load_adapter(folder)
    assert (adapter.method, adapter.rank, adapter.is_model) == ("full", 0, True)
    model, base = loaded(folder), loaded(base_model)
    assert (model.get_input_embeddings().weight == base.get_input_embeddings().weight).all()
    probe = read_probe(folder)
    assert sum(map(abs, probe.adapter_logprobs)) != sum(map(abs, probe.base_logprobs))
    assert (logits(model) - logits(base)).abs().max() > 0.5
    export_adapter(workspace, "worker@1", tmp_path / "out")
    assert (logits(loaded(tmp_path / "out")) == logits(model)).all()
    with pytest.raises(ConfigError, match=r"worker@1 is a model of its own, and no adapter to go on from: add --model"):
        trained(workspace, base_model, "sft", start="worker@1")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(AdapterError, match=r"model\.safetensors"):
        load_adapter(folder)
