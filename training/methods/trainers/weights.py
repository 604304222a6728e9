"""Weights: the base model with an adapter to train on it, the adapter's finished files, and its probe."""

import json
import math
import shutil
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, PreTrainedModel

from journeyman.runtime.adapters.adapter import CONFIG, WEIGHTS, Probe
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
    """An adapter as the recipe says that computes what the one in `start` does, to go on from.

    A larger rank adds rows to A as a fresh adapter has them, and zeros to B, which learn; so `B A` is the same. Another
    `alpha / r` is made up for in B.
    """
    config = LoraConfig.from_pretrained(str(start))
    asked = asked_layers(base, recipe)
    if asked != (theirs := set(config.target_modules)):
        raise ConfigError(
            f"{start.name} is on the layers {', '.join(sorted(theirs))}, the recipe says {', '.join(sorted(asked))}: "
            f"add --set 'lora.target_modules={json.dumps(sorted(theirs))}', or start from the base model"
        )
    torch.manual_seed(0)  # The same job gives the same adapter.
    model = get_peft_model(base, lora(recipe, Path(config.base_model_name_or_path)))
    assert isinstance(model, PeftModel)
    _fill(model, load_file(start / WEIGHTS), config)
    return model


@torch.no_grad()
def _fill(model: PeftModel, weights: dict[str, torch.Tensor], theirs: LoraConfig) -> None:
    ours = model.peft_config["default"]
    assert isinstance(ours, LoraConfig)
    scale = (theirs.lora_alpha / theirs.r) / (ours.lora_alpha / ours.r)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            learned = weights[name.replace(".default", "")]
            if "lora_A" in name:
                parameter[: theirs.r] = learned
            else:
                parameter[:, : theirs.r] = learned * scale


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
        base = logprobs(model, token_ids)
    return Probe(token_ids=tuple(token_ids), adapter_logprobs=logprobs(model, token_ids), base_logprobs=base)


@torch.no_grad()
def logprobs(model: PreTrainedModel | PeftModel, token_ids: list[int]) -> tuple[float, ...]:
    """Natural-log probability of token i + 1 after tokens 0..i."""
    tokens = torch.tensor([token_ids], device=model.device)
    logprobs = model(input_ids=tokens, use_cache=False).logits[0, :-1].float().log_softmax(dim=-1)
    return tuple(logprobs.gather(1, tokens[0, 1:, None])[:, 0].tolist())
