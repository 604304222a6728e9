"""Steps look at all rows at once; their order says nothing."""

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from journeyman.traces.errors import ConfigError
from journeyman.training.data.choosing.caps import Cap, Caps
from journeyman.training.data.choosing.entries import Entry, RunOf, Step
from journeyman.training.data.choosing.mix import Balance, Field, Mix, group_of
from journeyman.training.data.choosing.outliers import Outliers

ORIGINS = ("service", "teacher", "person")


def entry(number: int, **values: Any) -> Entry:
    whole: dict[str, Any] = {
        "origin": "service",
        "policy": "base",
        "sampled": True,
        "trace_id": None,
        "run": RunOf(),
        "score": None,
    }
    return Entry(number=number, order=Random(number).randbytes(8), **whole | values)


def of_families(**counts: int) -> list[Entry]:
    names = [name for name, count in counts.items() for _ in range(count)]
    return [entry(number, run=RunOf(family=name)) for number, name in enumerate(names)]


def stay(step: Step, entries: Sequence[Entry]) -> list[Entry]:
    left_out = step(entries).left_out
    return [entry for entry in entries if entry.number not in left_out]


def sizes(entries: Sequence[Entry], field: Field) -> Counter[str | None]:
    return Counter(group_of(entry, field) for entry in entries)


def test_the_most_particular_name_in_the_mix_counts() -> None:
    rows = [
        entry(0, policy="worker@8", origin="service"),
        entry(1, policy="base", origin="service"),
        entry(2, policy="big", origin="teacher", sampled=False),
        entry(3, policy="person", origin="person", sampled=False),
    ]
    mix = Mix({"worker@8": 3, "teacher": 2, "own": 0.5}, ORIGINS)
    factors = mix(rows).factors
    assert {number: (one.group, one.value) for number, one in factors.items()} == {
        0: ("worker@8", 3),
        1: ("own", 0.5),
        2: ("teacher", 2),
    }


def test_a_weight_of_zero_leaves_rows_out() -> None:
    decision = Mix({"own": 0}, ORIGINS)([entry(0), entry(1, sampled=False)])
    assert (decision.left_out, decision.factors) == ({0: "weight 0 in the mix: own"}, {})


def test_a_name_in_the_mix_that_no_row_can_have_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="--mix techer: no row has that origin or policy; have own, base, person"):
        Mix({"techer": 1}, ORIGINS)([entry(0)])
    assert Mix({"teacher": 1}, ORIGINS)([entry(0)]).factors == {}


def test_balanced_groups_count_alike_as_far_as_a_factor_goes() -> None:
    rows = of_families(moons=30, rings=10)
    factors = Balance("family")(rows).factors
    assert {one.group: one.value for one in factors.values()} == {"moons": pytest.approx(2 / 3), "rings": 2}
    lone = Balance("family")(of_families(moons=999, rings=1)).factors
    assert {one.group: round(one.value, 3) for one in lone.values()} == {"moons": 0.501, "rings": 10}


def test_outliers_are_told_by_the_median() -> None:
    rows = [entry(number, score=score) for number, score in enumerate([1.0, 1.1, 0.9, 1.0, 1.2, 50.0])]
    rows.append(entry(9))
    assert Outliers(3.5)(rows).left_out == {5: "a score far from the others'"}
    assert Outliers(3.5)([entry(0)]).left_out == {}


def test_scores_that_are_all_one_number_have_no_outliers() -> None:
    assert Outliers(3.5)([entry(number, score=1.0) for number in range(9)]).left_out == {}


def test_a_cap_is_one_of_each_group_or_of_the_one_it_names() -> None:
    rows = of_families(moons=30, rings=10)
    assert sizes(stay(Caps([Cap(field="family", rows=8)], None), rows), "family") == {"moons": 8, "rings": 8}
    decision = Caps([Cap(field="family", name="moons", rows=8)], None)(rows)
    assert Counter(decision.left_out.values()) == {"over the cap family:moons=8": 22}
    assert len(stay(Caps([], 7), rows)) == 7


def test_what_has_no_group_is_not_capped() -> None:
    rows = [*of_families(moons=5), *(entry(number) for number in range(5, 9))]
    assert sizes(stay(Caps([Cap(field="family", rows=2)], None), rows), "family") == {"moons": 2, None: 4}


def test_a_share_that_so_few_groups_cannot_keep_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match=r"--cap family=0\.1: rows of 2 family groups can't each be so small"):
        Caps([Cap(field="family", share=0.1)], None)(of_families(moons=30, rings=10))


GROUPS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(["x", "y", "z", None])), max_size=60)


@given(GROUPS, st.integers(1, 9), st.sampled_from([0.3, 0.5, 0.8]), st.integers(1, 40), st.randoms())
def test_every_cap_is_kept_and_the_order_of_rows_says_nothing(
    groups: list[tuple[str, str | None]], most: int, share: float, max_rows: int, random: Random
) -> None:
    rows = [entry(number, run=RunOf(family=family, user=user)) for number, (family, user) in enumerate(groups)]
    caps = Caps([Cap(field="family", rows=most), Cap(field="user", share=share)], max_rows)
    try:
        left = stay(caps, rows)
    except ConfigError:
        return
    assert max(sizes(left, "family").values(), default=0) <= most
    assert all(count <= share * len(left) for user, count in sizes(left, "user").items() if user is not None)
    assert len(left) <= max_rows
    random.shuffle(rows)
    assert {one.number for one in stay(caps, rows)} == {one.number for one in left}
