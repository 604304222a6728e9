"""Rows of one prompt are read together, and their logprobs are what they are apart."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

pytestmark = [pytest.mark.train, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

LONG, SHORT = tuple(range(10, 30)), (5, 6, 7)
ROWS = [
    (LONG, (31, 32, 33, 2)),
    (SHORT, (34, 35, 36, 2)),
    (LONG, (37, 2)),
    (SHORT, (38, 2)),
    (LONG, (39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 2)),
]


def padded(rows: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> tuple["torch.Tensor", "torch.Tensor", int]:
    """Ids and mask as TRL pads them, and the tokens that replies have room for."""
    import torch
    from trl.trainer.utils import pad

    prompts, replies = ([torch.tensor(row[side]) for row in rows] for side in (0, 1))
    ids = [pad(prompts, 0, "left"), pad(replies, 0, "right")]
    mask = [
        pad([torch.ones_like(one) for one in side], 0, where) for side, where in ((prompts, "left"), (replies, "right"))
    ]
    return torch.cat(ids, dim=1), torch.cat(mask, dim=1), ids[1].size(1)


def test_a_token_sees_its_prompt_and_its_own_reply(tiny: Callable[[], "LlamaForCausalLM"]) -> None:
    import torch

    from journeyman.training.methods.trainers.grpo.shared import together

    model, (ids, mask, keep) = tiny(), padded(ROWS)
    shared = together(ids, mask, keep)
    assert shared is not None
    # The last reply is too long to be read with others, and so is each reply to the short prompt.
    assert len(shared.ids) == 4
    learned = mask[:, -keep:].bool()
    with torch.no_grad():
        apart = model.model(input_ids=ids, attention_mask=mask).last_hidden_state[:, -keep - 1 : -1][learned]
        both = model.model(input_ids=shared.ids, attention_mask=shared.mask, position_ids=shared.positions)
    read = both.last_hidden_state[shared.sequence, shared.before]
    torch.testing.assert_close(read, apart, atol=1e-5, rtol=0)
    other = model.model(input_ids=shared.ids, position_ids=shared.positions).last_hidden_state
    assert not torch.allclose(other[shared.sequence, shared.before], apart, atol=1e-3)  # So the mask matters.


def test_where_no_two_rows_have_a_prompt_in_common_they_are_read_as_they_are() -> None:
    from journeyman.training.methods.trainers.grpo.shared import together

    assert together(*padded([ROWS[0], ROWS[1]])) is None
    assert together(*padded([ROWS[1], ROWS[3]])) is None


def test_a_model_that_sees_a_window_reads_each_row_by_itself(tiny: Callable[[], "LlamaForCausalLM"]) -> None:
    from journeyman.training.methods.trainers.grpo.shared import shares

    model = tiny()
    assert shares(model)
    model.config.layer_types = ["full_attention", "sliding_attention"]
    assert not shares(model)
    del model.config.layer_types
    model.config.sliding_window = 64
    assert not shares(model)
    model.config.sliding_window = None
    model.set_attn_implementation("eager")
    assert not shares(model)
