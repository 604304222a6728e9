"""A model of a few weights that knows 64 words, for what needs a model and no sense."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

WORDS, PAD, END = 64, 1, 2


@pytest.fixture(scope="session")
def tiny() -> Callable[[], "LlamaForCausalLM"]:
    """Makes the same model each time, in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    def made() -> LlamaForCausalLM:
        torch.manual_seed(0)
        sizes: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
        heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
        return LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, pad_token_id=PAD, eos_token_id=END, **sizes, **heads))

    return made


@pytest.fixture(scope="session")
def words() -> "PreTrainedTokenizerFast":
    """Its tokenizer."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    known = {f"w{number}": number for number in range(WORDS)}
    whole = Tokenizer(models.WordLevel(known, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=whole, pad_token=f"w{PAD}", eos_token=f"w{END}", unk_token="w0")


@pytest.fixture(scope="session")
def tiny_base(
    tiny: Callable[[], "LlamaForCausalLM"],
    words: "PreTrainedTokenizerFast",
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Its folder."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    tiny().save_pretrained(folder)
    words.save_pretrained(folder)
    return folder
