"""The learner of GRPO: rows in, steps and an adapter out; what it refuses, and what a kill leaves of it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from journeyman.traces.errors import AdapterError, ConfigError, TrainingError
from journeyman.training.methods.alarms import StepMetrics
from journeyman.training.methods.checkpoints import CHECKPOINTS, Checkpoint, last_whole
from journeyman.training.methods.recipes.grpo import GRPORecipe
from journeyman.training.rollouts.rows import TurnRow

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

    from journeyman.training.methods.trainers.grpo.learner import Learner

pytestmark = [pytest.mark.train, pytest.mark.timeout(600), pytest.mark.filterwarnings("ignore")]


def row(number: int, **changes: Any) -> TurnRow:
    reply = tuple(3 + (7 * number + place) % 60 for place in range(2 + number % 3))
    given = TurnRow(
        agent="worker",
        role="turn 1",
        group="task",
        trace_id=f"{number:032x}",
        span_id=f"{number:016x}",
        prompt_ids=(3, 4, 5),
        completion_ids=reply,
        old_logprobs=(-4.1,) * len(reply),
        reward=float(number % 2),
        advantage=1.0 if number % 2 else -1.0,
        version=0,
    )
    return given.model_copy(update=changes)


ROWS = [row(number) for number in range(6)]


def recipe(**changes: Any) -> GRPORecipe:
    trl = {"learning_rate": 1e-2, "bf16": False} | changes.pop("trl", {})
    lora = {"r": 4, "alpha": 8, "target_modules": ["q_proj", "v_proj"]}
    return GRPORecipe.model_validate({"lora": lora, "trl": trl, **changes})


def learner(folder: Path, base: Path, given: GRPORecipe | None = None, **more: Any) -> "Learner":
    from journeyman.training.methods.trainers.grpo.learner import GRPO

    start, checkpoint = more.get("start"), more.get("checkpoint")
    return GRPO().learner(given or recipe(), base, start, folder, checkpoint, steps=4)


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def started(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that has learned a step, to go on from."""
    folder = tmp_path_factory.mktemp("started")
    first = learner(folder, tiny_base)
    first.step(ROWS)
    first.finish()
    return folder / "adapter"


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([], "no row is left to learn from: every group is flat"),
        ([row(1, weight=0.0)], "no row is left to learn from"),
        ([row(1, reward=float("nan"))], "the reward of turn 0{15}1 of run 0{31}1 is nan: mend the scorer"),
        ([row(1, advantage=float("inf"))], "the advantage of turn 0{15}1 of run 0{31}1 is inf: mend"),
        ([row(1, old_logprobs=(-1.0,))], "has 3 tokens and 1 logprobs: leave it out"),
        ([row(1, completion_ids=(), old_logprobs=())], "has an empty prompt or reply: leave it out"),
        ([row(1, advantage=0.0), row(2, advantage=0.0)], "the reward is constant: no row is better than the rest"),
    ],
)
def test_rows_that_nothing_can_be_learned_from_are_refused_and_the_weights_stay(
    tiny_base: Path, tmp_path: Path, rows: list[TurnRow], complaint: str
) -> None:
    one = learner(tmp_path, tiny_base)
    one.save(tmp_path / "before")
    with pytest.raises(TrainingError, match=complaint):
        one.step(rows)
    one.save(tmp_path / "after")
    assert weights(tmp_path / "after") == weights(tmp_path / "before") and one.done == 0


def test_a_row_without_a_loss_is_named_and_the_weights_stay(
    tiny: Callable[[], "LlamaForCausalLM"], tiny_base: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoTokenizer

    broken = tiny()
    with torch.no_grad():
        table: Any = broken.get_input_embeddings()
        table.weight[9] = float("nan")
    broken.save_pretrained(tmp_path / "model")
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(tmp_path / "model")
    one = learner(tmp_path, tmp_path / "model")
    one.save(tmp_path / "before")
    with pytest.raises(TrainingError, match=r"turn 0{15}7 of run 0{31}7 has no finite logprobs at step 1: leave it"):
        one.step([*ROWS[:3], row(7, prompt_ids=(3, 9, 4))])
    one.save(tmp_path / "after")
    assert weights(tmp_path / "after") == weights(tmp_path / "before")


def test_a_training_that_was_cut_short_goes_on_to_the_same_adapter(
    tiny_base: Path, started: Path, tmp_path: Path
) -> None:
    given = recipe(trl={"beta": 0.1, "lr_scheduler_type": "linear"})

    def steps(one: "Learner", number: int) -> list[StepMetrics]:
        return [one.step(ROWS, flat_share=0.25, held_out=0.5) for _ in range(number)]

    whole = learner(tmp_path / "whole", tiny_base, given, start=started)
    told = steps(whole, 3)
    fitted = whole.finish(epochs=1.5)
    cut = learner(tmp_path / "cut", tiny_base, given, start=started)
    steps(cut, 2)
    cut.checkpoint()
    steps(cut, 1)  # Lost: no checkpoint was made of it.
    again = learner(
        tmp_path / "cut", tiny_base, given, start=started, checkpoint=last_whole(tmp_path / "cut" / CHECKPOINTS)
    )
    assert again.done == 2 and len(again.history) == 2
    (last,) = steps(again, 1)
    assert last.model_dump(exclude={"seconds"}) == told[-1].model_dump(exclude={"seconds"})
    assert last.kl is not None and last.kl > 0
    finished = again.finish(epochs=1.5)
    assert weights(tmp_path / "cut" / "adapter") == weights(tmp_path / "whole" / "adapter") != weights(started)
    assert finished.probe == fitted.probe and (finished.steps, finished.epochs) == (3, 1.5)


def test_an_adapter_has_peft_s_two_files_and_none_of_the_reference(
    tiny_base: Path, started: Path, tmp_path: Path
) -> None:
    one = learner(tmp_path, tiny_base, recipe(trl={"beta": 0.1}), start=started)
    one.step(ROWS)
    one.save(tmp_path / "version")
    assert sorted(path.name for path in (tmp_path / "version").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]


def test_an_alarm_lowers_the_rate_and_a_kill_does_not_raise_it_again(tiny_base: Path, tmp_path: Path) -> None:
    given = recipe(alarms={"window": 1, "ratio": "lower", "ratio_off": 1e-6, "strikes": 9}, trl={"beta": 0.0})
    one = learner(tmp_path, tiny_base, given)
    first, second = one.step(ROWS), one.step(ROWS)
    assert [alarm.name for alarm in first.alarms] == ["ratio"] and not first.stops
    assert (first.learning_rate, second.learning_rate) == (1e-2, 5e-3)
    one.checkpoint()
    again = learner(tmp_path, tiny_base, given, checkpoint=last_whole(tmp_path / CHECKPOINTS))
    assert again.step(ROWS).learning_rate == 5e-3


def test_a_checkpoint_of_another_recipe_or_method_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    one = learner(tmp_path, tiny_base)
    one.step(ROWS)
    one.checkpoint()
    checkpoint = last_whole(tmp_path / CHECKPOINTS)
    with pytest.raises(TrainingError, match="checkpoint-1 is of another recipe: train with that one, or remove it"):
        learner(tmp_path, tiny_base, recipe(trl={"beta": 0.3}), checkpoint=checkpoint)
    empty = Checkpoint(folder=tmp_path, step=1, seconds=0.0)
    with pytest.raises(TrainingError, match="isn't a checkpoint of grpo: remove it to start again"):
        learner(tmp_path, tiny_base, checkpoint=empty)


def test_a_reference_that_is_gone_is_named(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"the reference worker@3 is gone from .*: put it back, or start from"):
        learner(tmp_path, tiny_base, start=tmp_path / "worker@3")


@pytest.mark.parametrize(
    ("trl", "complaint"),
    [
        ({"beta": "much"}, '^recipe: trl.beta = "much": Input should be a valid number'),
        ({"optim": "magic"}, "magic is not a valid OptimizerNames"),
    ],
)
def test_a_value_that_trl_refuses_is_told_in_one_line(
    tiny_base: Path, tmp_path: Path, trl: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        learner(tmp_path, tiny_base, recipe(trl=trl)).step(ROWS)


def sampled(base: Path) -> list[TurnRow]:
    """Replies of the embedded model, whose reward is to end within eight tokens."""
    import torch
    from transformers import AutoModelForCausalLM

    from journeyman.training.methods.rows import read_tokenizer

    torch.manual_seed(0)
    words: Any = read_tokenizer(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    ask = [{"role": "user", "content": "Name one colour. Reply with one word."}]
    prompt: list[int] = words.apply_chat_template(ask, add_generation_prompt=True, return_dict=False)
    drawn = model.generate(
        torch.tensor([prompt] * 12),
        do_sample=True,
        top_k=0,
        max_new_tokens=8,
        return_dict_in_generate=True,
        output_scores=True,
    )
    logprobs = model.compute_transition_scores(drawn.sequences, drawn.scores, normalize_logits=True).tolist()
    rows = []
    for number, (ids, told) in enumerate(zip(drawn.sequences[:, len(prompt) :].tolist(), logprobs, strict=True)):
        ended = words.eos_token_id in ids
        length = ids.index(words.eos_token_id) + 1 if ended else len(ids)
        rows.append(
            row(
                number,
                prompt_ids=tuple(prompt),
                completion_ids=tuple(ids[:length]),
                old_logprobs=tuple(told[:length]),
                reward=float(ended),
            )
        )
    mean = sum(one.reward for one in rows) / len(rows)
    return [one.model_copy(update={"advantage": one.reward - mean}) for one in rows]


def test_after_three_steps_the_model_says_sooner_what_was_rewarded(embedded_model: Path, tmp_path: Path) -> None:
    rows = sampled(embedded_model)
    rewarded = [one for one in rows if one.reward]
    assert 0 < len(rewarded) < len(rows)
    from journeyman.training.methods.trainers.grpo.learner import Learner

    one = Learner(
        GRPORecipe.model_validate({"trl": {"learning_rate": 5e-4}}), embedded_model, None, tmp_path, None, steps=3
    )

    def logprob() -> float:
        return sum(float(one._trainer.logprobs(batch).sum()) for batch in one._trainer.batches(rewarded, None))

    before = logprob()
    told = [one.step(rows) for _ in range(3)]
    assert logprob() > before + 1.0
    assert told[0].kl == pytest.approx(0.0, abs=1e-4) and told[-1].kl is not None and told[-1].kl > 0
    assert told[0].ratio_mean == pytest.approx(1.0, abs=0.1), "the model agrees with itself"
    assert all(step.entropy > 0 and step.reward_mean == told[0].reward_mean for step in told)
