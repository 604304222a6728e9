"""QLoRA: SFT whose base model is held in four bits (Dettmers et al., arXiv 2305.14314)."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft import prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from journeyman.traces.errors import ConfigError
from journeyman.training.methods.recipes.qlora import QLoRARecipe, QuantisationTable
from journeyman.training.methods.recipes.sft import SFTRecipe
from journeyman.training.methods.trainers.sft import SFT


class QLoRA(SFT):
    """Completions of one agent are imitated by an adapter on quantised weights."""

    def base(self, folder: Path, recipe: SFTRecipe, longest: int) -> PreTrainedModel:
        assert isinstance(recipe, QLoRARecipe)
        _check_machine()
        config: Any = BitsAndBytesConfig
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.bfloat16,
            quantization_config=config(**quantisation(recipe.quantisation)),
            device_map={"": torch.cuda.current_device()},
            local_files_only=True,
            use_safetensors=True,
        )
        # TRL's own config says whether activations are computed twice.
        prepare: Any = prepare_model_for_kbit_training
        prepared: PreTrainedModel = prepare(model, use_gradient_checkpointing=False)
        return prepared


def quantisation(table: QuantisationTable) -> dict[str, Any]:
    """The table as transformers' BitsAndBytesConfig takes it; products are computed in bfloat16."""
    return {
        "load_in_4bit": True,
        "bnb_4bit_quant_type": table.kind,
        "bnb_4bit_use_double_quant": table.double,
        "bnb_4bit_compute_dtype": torch.bfloat16,
    }


def _check_machine() -> None:
    if not torch.cuda.is_available():
        raise ConfigError("recipe: qlora needs a CUDA GPU, and there is none: use the recipe sft")
    if find_spec("bitsandbytes") is None:
        raise ConfigError("recipe: qlora needs bitsandbytes: pip install bitsandbytes, or use the recipe sft")
