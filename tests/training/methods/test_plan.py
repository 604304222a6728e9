"""What a recipe leaves open follows from the rows and the model, and is told with its reason."""

from typing import Any

import pytest

from journeyman.traces.errors import ConfigError
from journeyman.traces.messages import Message
from journeyman.training.data.samples import SFTSample
from journeyman.training.methods.job import load_recipe
from journeyman.training.methods.plan import Facts, Plan, hold_out, plan_training


def samples(count: int, *, turns: int = 1) -> list[SFTSample]:
    """Runs of some turns each."""
    return [
        SFTSample(
            agent="clerk",
            policy="teacher",
            trace_id=f"{number // turns:032x}",
            span_ids=(f"{number:016x}",),
            messages=(Message(role="user", content=str(number)),),
            completion="yes",
        )
        for number in range(count)
    ]


def planned(rows: int, *, longest: int = 100, parameters: int = 135_000_000, held_out: int = 0, **trl: Any) -> Plan:
    recipe = load_recipe("sft", {f"trl.{key}": value for key, value in trl.items()})
    facts = Facts(rows=rows, held_out=held_out, longest=longest, parameters=parameters)
    return plan_training(recipe, trl, facts, {"optim": "adamw", "max_length": 1024})


@pytest.mark.parametrize(("rows", "epochs", "steps"), [(8, 8, 8), (160, 5, 100), (526, 3, 198), (100_000, 3, 37_500)])
def test_few_rows_are_seen_more_often(rows: int, epochs: float, steps: int) -> None:
    plan = planned(rows)
    assert (plan.trl["num_train_epochs"], plan.steps) == (epochs, steps)
    assert plan.epochs == pytest.approx(epochs, rel=0.01)


def test_what_the_recipe_says_counts() -> None:
    plan = planned(526, num_train_epochs=1, learning_rate=3e-4, per_device_train_batch_size=4)
    assert (plan.steps, plan.batch, plan.trl["learning_rate"]) == (132, 4, 3e-4)
    sources = {choice.key: choice.source for choice in plan.choices}
    assert sources["trl.learning_rate"] == sources["lora.r"] == "recipe"
    assert sources["trl.seed"] == "rule" and sources["trl.optim"] == "TRL"
    assert len(sources) == len(plan.choices), "no number is told twice"


def test_a_number_of_steps_is_the_length() -> None:
    plan = planned(526, max_steps=60)
    assert plan.steps == 60 and "num_train_epochs" not in plan.trl
    assert plan.epochs == pytest.approx(0.91, abs=0.01)


def test_long_rows_are_computed_in_smaller_pieces() -> None:
    plan = planned(100, longest=2000)
    assert (plan.trl["per_device_train_batch_size"], plan.trl["gradient_accumulation_steps"]) == (2, 4)
    assert (plan.batch, plan.trl["max_length"]) == (8, 2000)
    assert planned(100, longest=9000).trl["per_device_train_batch_size"] == 1


def test_larger_models_learn_slower_and_save_memory() -> None:
    rates = [planned(100, parameters=parameters).trl["learning_rate"] for parameters in (10**8, 10**9, 10**10)]
    assert rates == sorted(rates, reverse=True) and len(set(rates)) == 3
    assert not planned(100).trl["gradient_checkpointing"]
    assert planned(100, parameters=7 * 10**9).trl["gradient_checkpointing"]


@pytest.mark.parametrize(("rows", "epochs"), [(1, 8), (4, 8), (9, 8), (17, 8)])
def test_a_last_step_of_fewer_rows_makes_no_epoch_longer(rows: int, epochs: float) -> None:
    plan = planned(rows)
    assert plan.epochs == plan.trl["num_train_epochs"] == epochs


def test_what_is_held_out_is_among_the_choices() -> None:
    shares = {choice.key: (choice.value, choice.source) for choice in planned(90, held_out=10).choices}
    assert shares["eval.share"] == (0.1, "rule") and shares["eval.patience"] == (3, "recipe")


def test_a_share_that_holds_nothing_out_is_said() -> None:
    recipe = load_recipe("sft", {"eval.share": 0.5})
    (sample,) = samples(1)
    assert hold_out([sample], recipe) == ([sample], [])
    facts = Facts(rows=1, held_out=0, longest=100, parameters=1)
    told = "8.0 epochs of 1 row, 8 steps, no row held out: every run has more rows than eval.share allows"
    assert str(plan_training(recipe, {}, facts, {})) == told


def test_what_is_planned_is_said() -> None:
    assert str(planned(526, held_out=52)) == "3.0 epochs of 526 rows, 198 steps, 52 rows held out to stop early"


def test_a_tenth_of_many_rows_is_held_out_by_whole_runs() -> None:
    rows = samples(200, turns=3)
    learned, held_out = hold_out(rows, load_recipe("sft"))
    assert 17 <= len(held_out) <= 20 and len(learned) + len(held_out) == 200
    assert {one.trace_id for one in learned}.isdisjoint(one.trace_id for one in held_out)
    again = hold_out(rows[::-1], load_recipe("sft"))
    assert {one.span_ids for one in again[1]} == {one.span_ids for one in held_out}, "in any order of the file"


def test_the_rows_held_out_are_never_many() -> None:
    assert len(hold_out(samples(2000), load_recipe("sft"))[1]) == 64


@pytest.mark.parametrize(
    ("count", "changes"), [(59, {}), (200, {"trl.max_steps": 20}), (200, {"eval.share": 0}), (3, {"eval.share": 0.1})]
)
def test_nothing_is_held_out(count: int, changes: dict[str, Any]) -> None:
    rows = samples(count)
    assert hold_out(rows, load_recipe("sft", changes)) == (rows, [])


def test_a_share_that_is_asked_for_is_held_out_of_few_rows_too() -> None:
    learned, held_out = hold_out(samples(10), load_recipe("sft", {"eval.share": 0.3, "trl.max_steps": 2}))
    assert (len(learned), len(held_out)) == (7, 3)


def test_smaller_pieces_make_the_same_step_until_a_piece_is_one_row() -> None:
    plan = planned(526, held_out=60, per_device_train_batch_size=6)
    half = plan.in_smaller_pieces()
    assert half is not None
    assert half.pieces(1) == {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}
    assert (half.batch, half.steps, half.trl["per_device_eval_batch_size"]) == (plan.batch, plan.steps, 3)
    assert str(half).endswith("in pieces of 3 rows because memory ran out with 6")
    one = half.in_smaller_pieces()
    assert one is not None and one.pieces(1)["gradient_accumulation_steps"] == 6
    assert one.in_smaller_pieces() is None


def test_processes_share_a_step_and_do_not_enlarge_it() -> None:
    assert planned(526).pieces(2) == {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1}
    several = planned(526, per_device_train_batch_size=1, gradient_accumulation_steps=8)
    assert several.pieces(4) == {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 2}
    with pytest.raises(ConfigError, match=r"a step of 8 rows can't be divided among 3 processes: set trl.per_device"):
        planned(526).pieces(3)
