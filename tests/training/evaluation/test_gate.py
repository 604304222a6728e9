"""The gate: numbers that are the same every time, and decisions that follow from them."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman.traces.errors import AdapterError, ConfigError
from journeyman.training.evaluation.evaluate import Episode
from journeyman.training.evaluation.gate import VERDICT, GateConfig, Verdict, decide, read_verdict, write_verdict

NAMES = ("worker@2", "worker@1")
PINNED = (0.25, 0.05, 0.45)
"""Gain and interval of one comparison: other numbers mean another gate."""

CONFIG = GateConfig()


def episodes(scores: list[float], tokens: int = 100, seconds: float = 1.0) -> list[Episode]:
    return [
        Episode(
            task_id=f"q{number:03}",
            score=score,
            status="ok",
            input_tokens=500,
            output_tokens=tokens,
            model_calls=3,
            seconds=seconds,
            trace_id=f"t{number}",
        )
        for number, score in enumerate(scores)
    ]


def draw(seed: int, chance: float, tasks: int) -> list[float]:
    dice = random.Random(seed)
    return [float(dice.random() < chance) for _ in range(tasks)]


def verdict(ours: list[float], theirs: list[float], config: GateConfig = CONFIG) -> Verdict:
    return decide(episodes(ours), episodes(theirs), config, names=NAMES)


def test_a_clear_gain_is_promoted() -> None:
    found = verdict(draw(1, 0.8, 60), draw(2, 0.3, 60))
    assert found.decision == "promote"
    assert found.interval[0] > 0 and found.tasks_needed is None
    assert (found.candidate, found.incumbent, found.tasks) == ("worker@2", "worker@1", 60)


def test_a_clear_loss_is_rejected() -> None:
    found = verdict(draw(1, 0.2, 60), draw(2, 0.7, 60))
    assert found.decision == "reject" and found.interval[1] < 0
    assert found.reasons[0].startswith("worse")


def test_what_cannot_be_told_apart_is_inconclusive_and_says_how_many_tasks_would_tell() -> None:
    found = verdict([*[1.0] * 6, *[0.0] * 34], [*[0.0] * 6, *[1.0] * 4, *[0.0] * 30])
    assert found.decision == "inconclusive"
    assert found.tasks_needed is not None and found.tasks_needed > 40


def test_the_numbers_are_pinned() -> None:
    found = verdict(draw(1, 0.55, 40), draw(2, 0.45, 40))
    again = verdict(draw(1, 0.55, 40), draw(2, 0.45, 40))
    assert found == again
    assert found.mean_delta == pytest.approx(PINNED[0], abs=1e-9)
    assert found.interval == pytest.approx(PINNED[1:], abs=1e-9)


def test_the_order_of_the_episodes_changes_nothing() -> None:
    ours, theirs = episodes(draw(1, 0.6, 40)), episodes(draw(2, 0.4, 40))
    shuffled = random.Random(3).sample(ours, len(ours))
    assert decide(shuffled, theirs, CONFIG, names=NAMES) == decide(ours, theirs, CONFIG, names=NAMES)


def test_a_gain_within_the_margin_is_not_promoted() -> None:
    ours, theirs = [0.6] * 40, [0.5] * 40
    assert verdict(ours, theirs).decision == "promote"
    assert verdict(ours, theirs, GateConfig(margin=0.1)).decision == "inconclusive"
    assert verdict(ours, theirs, GateConfig(margin=0.2)).decision == "reject"


def test_no_difference_at_all_is_inconclusive_and_no_number_of_tasks_would_help() -> None:
    found = verdict([0.5] * 40, [0.5] * 40)
    assert found.decision == "inconclusive" and found.interval == (0.0, 0.0)
    assert found.tasks_needed is None


def test_too_few_tasks_decide_nothing() -> None:
    found = verdict([1.0] * 19, [0.0] * 19)
    assert found.decision == "inconclusive" and found.tasks_needed == 20
    assert "19 tasks, at least 20 are needed" in found.reasons[0]


def test_different_tasks_are_not_compared() -> None:
    with pytest.raises(ConfigError, match=r"only one side has 'q039' \(1 such tasks\)"):
        decide(episodes([1.0] * 40), episodes([1.0] * 39), CONFIG, names=NAMES)
    with pytest.raises(ConfigError, match="two episodes of one task"):
        decide(episodes([1.0] * 2) * 2, episodes([1.0] * 2), CONFIG, names=NAMES)
    with pytest.raises(ConfigError, match="no task to compare on"):
        decide([], [], CONFIG, names=NAMES)


def test_a_side_of_which_nothing_was_measured_gets_no_verdict() -> None:
    nothing = [
        episode.model_copy(update={"model_calls": 0, "status": "failed", "error": "no room"})
        for episode in episodes([0.0] * 40)
    ]
    for sides in ((nothing, episodes([1.0] * 40)), (episodes([1.0] * 40), nothing)):
        with pytest.raises(ConfigError, match=r"nothing was measured of worker@.: no model answered .* no room"):
            decide(*sides, CONFIG, names=NAMES)


@pytest.mark.parametrize(("tokens", "seconds", "words"), [(400, 1.0, "generated tokens"), (100, 4.0, "seconds")])
def test_a_better_score_at_a_blown_up_cost_is_rejected(tokens: int, seconds: float, words: str) -> None:
    ours = episodes([0.7] * 40, tokens=tokens, seconds=seconds)
    found = decide(ours, episodes([0.5] * 40), CONFIG, names=NAMES)
    assert found.decision == "reject" and found.reasons[0].startswith(words)


def test_a_higher_cost_that_buys_its_score_is_promoted() -> None:
    ours, theirs = episodes([0.6] * 40, tokens=400, seconds=4.0), episodes([0.1] * 40)
    assert decide(ours, theirs, CONFIG, names=NAMES).decision == "promote"


@pytest.mark.parametrize(("ours", "theirs", "decision"), [(0.5, 0.0, "promote"), (0.0, 0.0, "reject")])
def test_against_a_policy_that_does_nothing_only_score_pays(ours: float, theirs: float, decision: str) -> None:
    spent = episodes([ours] * 40, tokens=400)
    assert decide(spent, episodes([theirs] * 40, tokens=0), CONFIG, names=NAMES).decision == decision


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_the_mean_gain_lies_in_its_interval_and_swapping_sides_never_promotes_both(
    pairs: list[tuple[float, float]],
) -> None:
    ours, theirs = [one for one, _ in pairs], [other for _, other in pairs]
    there, back = verdict(ours, theirs), verdict(theirs, ours)
    low, high = there.interval
    assert low - 1e-9 <= there.mean_delta <= high + 1e-9
    assert not (there.decision == back.decision == "promote")


def test_a_null_candidate_is_seldom_promoted() -> None:
    promoted = sum(
        verdict(draw(2 * seed, 0.5, 60), draw(2 * seed + 1, 0.5, 60)).decision == "promote" for seed in range(60)
    )
    assert promoted <= 5


def test_a_verdict_is_kept_beside_the_adapter(tmp_path: Path) -> None:
    assert read_verdict(tmp_path) is None
    found = verdict(draw(1, 0.8, 60), draw(2, 0.3, 60))
    write_verdict(tmp_path, found)
    assert read_verdict(tmp_path) == found
    (tmp_path / VERDICT).write_text("{}")
    with pytest.raises(AdapterError, match="not a verdict"):
        read_verdict(tmp_path)
