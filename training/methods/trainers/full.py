"""All weights through TRL's SFTTrainer: float32 while they learn, and of the base model's type once they are saved."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoConfig, PreTrainedModel

from journeyman.runtime.adapters.adapter import CONFIG, Probe
from journeyman.traces.errors import ConfigError
from journeyman.training.methods.recipes.full import FullRecipe
from journeyman.training.methods.recipes.sft import SFTRecipe
from journeyman.training.methods.trainers.merge import fill, merged
from journeyman.training.methods.trainers.sft import SFT
from journeyman.training.methods.trainers.weights import load_base, logprobs


class Full(SFT):
    """Completions of one agent are imitated with all weights."""

    def model(
        self, base_model: Path, recipe: SFTRecipe, longest: int, start: Path | None
    ) -> tuple[PreTrainedModel | PeftModel, LoraConfig | None]:
        assert isinstance(recipe, FullRecipe)
        if start is not None and (start / CONFIG).exists():
            model = merged(base_model, start)
        else:
            model = load_base(start or base_model, longest=longest)
        model.requires_grad_(True)  # PEFT has frozen what it merged an adapter into.
        _freeze(model, recipe.full.frozen)
        # In bfloat16 most steps are too small to change a weight.
        return model.to(torch.float32), None  # type: ignore[arg-type]

    def save(self, model: PreTrainedModel | PeftModel, base_model: Path, folder: Path) -> None:
        assert isinstance(model, PreTrainedModel)
        folder.mkdir(exist_ok=True)
        dtype: Any = AutoConfig.from_pretrained(base_model, local_files_only=True).dtype
        fill(model.to(dtype), base_model, folder)

    def probe(self, model: PreTrainedModel | PeftModel, base_model: Path, token_ids: list[int]) -> Probe:
        model.eval()
        base = load_base(base_model, longest=len(token_ids)).to(model.device)  # type: ignore[arg-type]
        return Probe(
            token_ids=tuple(token_ids),
            adapter_logprobs=logprobs(model, token_ids),
            base_logprobs=logprobs(base, token_ids),
        )


def _freeze(model: PreTrainedModel, frozen: tuple[str, ...]) -> None:
    names = {path.rpartition(".")[2]: None for path, _ in model.named_modules() if path}
    if unknown := set(frozen) - set(names):
        have = ", ".join(name for name in names if not name.isdigit())
        raise ConfigError(f"recipe: full.frozen: the model has no layer {min(unknown)!r}; have {have}")
    for path, module in model.named_modules():
        if path.rpartition(".")[2] in frozen:
            module.requires_grad_(False)
    if not any(weights.requires_grad for weights in model.parameters()):
        raise ConfigError("recipe: full.frozen leaves no weight to train: name fewer layers")
