"""Weights: the base model with an adapter to train on it, the adapter's finished files, and its probe."""

import json
import math
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, PreTrainedModel

from journeyman.runtime.adapters.adapter import CONFIG, Probe
from journeyman.traces.errors import ConfigError
from journeyman.training.methods.recipe import Recipe

EAGER_TOKENS = 512
"""Longest row for which attention written out is the faster one on a CPU; its memory grows with the square."""


def parameters_of(base_model: Path) -> int:
    count = 0
    for path in base_model.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count


def load_base(folder: Path, *, longest: int) -> PreTrainedModel:
    eager = longest <= EAGER_TOKENS and not torch.cuda.is_available()
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16,
        attn_implementation="eager" if eager else "sdpa",
        local_files_only=True,
        use_safetensors=True,
    )
    return model


def begun(base: PreTrainedModel, start: Path, recipe: Recipe) -> PeftModel:
    """The adapter in `start`, to go on from."""
    config = LoraConfig.from_pretrained(str(start))
    asked = asked_layers(base, recipe)
    if asked != (theirs := set(config.target_modules)):
        raise ConfigError(
            f"{start.name} is on the layers {', '.join(sorted(theirs))}, the recipe says {', '.join(sorted(asked))}: "
            f"add --set 'lora.target_modules={json.dumps(sorted(theirs))}', or start from the base model"
        )
    config.lora_dropout = recipe.lora.dropout
    return PeftModel.from_pretrained(base, str(start), is_trainable=True, config=config)


def asked_layers(base: PreTrainedModel, recipe: Recipe) -> set[str]:
    """Names of the layers that get an adapter; raises `ConfigError` for one that the model hasn't, which PEFT takes."""
    head = base.get_output_embeddings()  # type: ignore[no-untyped-call]
    linear = [name for name, one in base.named_modules() if isinstance(one, torch.nn.Linear) and one is not head]
    last = {name.rpartition(".")[2] for name in linear}
    targets = recipe.lora.target_modules
    asked = last if targets == "all-linear" else set(targets)
    if unknown := [name for name in sorted(asked) if not any(f".{layer}".endswith(f".{name}") for layer in linear)]:
        raise ConfigError(
            f"the recipe can't be used: the base model has no layer {unknown[0]!r} that lora.target_modules names: "
            f"it has {', '.join(sorted(last))}"
        )
    return asked


def lora(recipe: Recipe, base_model: Path) -> LoraConfig:
    targets = recipe.lora.target_modules
    return LoraConfig(
        r=recipe.lora.r,
        lora_alpha=recipe.lora.alpha,
        lora_dropout=recipe.lora.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_model.name,
    )


def save(model: PeftModel, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    # A reference that is an adapter too would get a folder of its own.
    model.save_pretrained(
        str(folder), safe_serialization=True, save_embedding_layers=False, selected_adapters=["default"]
    )
    for path in folder.iterdir():
        if path.suffix == ".md":
            path.unlink()
    # PEFT writes the layers in the order of a set, which changes from process to process, and the digest with it.
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def probe_of(model: PeftModel, token_ids: list[int]) -> Probe:
    model.eval()
    with model.disable_adapter():
        base = _logprobs(model, token_ids)
    return Probe(token_ids=tuple(token_ids), adapter_logprobs=_logprobs(model, token_ids), base_logprobs=base)


@torch.no_grad()
def _logprobs(model: PeftModel, token_ids: list[int]) -> tuple[float, ...]:
    tokens = torch.tensor([token_ids], device=model.device)
    logprobs = model(input_ids=tokens, use_cache=False).logits[0, :-1].float().log_softmax(dim=-1)
    return tuple(logprobs.gather(1, tokens[0, 1:, None])[:, 0].tolist())
