"""Cost: all that was spent, over the runs that were solved; what was estimated is called so."""

from typing import Any

import pytest

from journeyman.traces.messages import Usage
from journeyman.traces.prices import Price, price_of
from journeyman.traces.reports.cost import Cost, cost
from journeyman.traces.reports.scope import Scope
from journeyman.traces.reports.shown.sections import cost_words

CHAT = {"operation": "chat"}


def counters(start: float, end: float, source: str = "rapl") -> dict[str, Any]:
    return {
        "journeyman.energy.start_joules": start,
        "journeyman.energy.joules": end,
        "journeyman.energy.source": source,
    }


def asked(runs: Any, **options: Any) -> Cost:
    return cost(runs.store, Scope(), **options)


def test_failures_are_paid_for_by_what_was_solved(runs: Any) -> None:
    runs.add(CHAT, CHAT, score=1.0)
    runs.add(CHAT, CHAT, CHAT, score=0.0)
    runs.add(CHAT, status="failed")
    found = asked(runs)
    assert (found.runs, found.solved, found.usage.input_tokens, found.seconds) == (3, 1, 600, 6.0)
    assert found.per_solved is not None
    assert (found.per_solved.input_tokens, found.per_solved.output_tokens, found.per_solved.seconds) == (600, 60, 6.0)


def test_where_nothing_was_solved_nothing_is_divided(runs: Any) -> None:
    runs.add(CHAT, status="failed")
    assert asked(runs).per_solved is None
    assert "No run was solved" in cost_words(asked(runs))


def test_no_runs_cost_nothing(runs: Any) -> None:
    found = asked(runs, watts=100)
    assert (found.runs, found.usage, found.money, found.energy, found.spent) == (0, Usage(), None, (), ())


def test_the_cache_hit_rate_is_a_share_of_the_input(runs: Any) -> None:
    runs.add({**CHAT, "gen_ai.usage.cache_read.input_tokens": 80}, CHAT)
    found = asked(runs)
    assert found.cache_hit_rate == pytest.approx(0.4)
    assert found.spent[0].cache_hit_rate == pytest.approx(0.4)


def test_money_is_only_of_policies_with_a_price(runs: Any) -> None:
    runs.add(CHAT, {**CHAT, "gen_ai.request.model": "lookup@1"})
    assert asked(runs).money is None
    assert asked(runs).per_solved.money is None  # type: ignore[union-attr]
    found = asked(runs, prices={"base": Price(input=1.0, output=10.0)}, currency="EUR")
    assert found.money == pytest.approx((100 * 1 + 10 * 10) / 1e6)
    assert found.unpriced == ("lookup@1",)
    assert "0.0002 EUR" in cost_words(found) and "Without a price: lookup@1" in cost_words(found)
    default = asked(runs, prices={"base": Price(input=1.0), "default": Price(input=2.0)})
    assert default.money == pytest.approx(300 / 1e6)
    assert default.unpriced == ()


def test_cached_tokens_have_their_own_price_where_one_is_set() -> None:
    usage = Usage(input_tokens=100, cached_tokens=60, output_tokens=10)
    assert Price(input=1.0, output=2.0).of(usage) == pytest.approx(120 / 1e6)
    assert Price(input=1.0, cached=0.1, output=2.0).of(usage) == pytest.approx((40 + 6 + 20) / 1e6)
    assert price_of("base", {}) is None


def test_energy_that_was_measured_is_the_difference_of_two_readings(runs: Any) -> None:
    runs.add({**CHAT, "seconds": 10.0}, start_s=0, attributes=counters(1000, 1500))
    runs.add({**CHAT, "seconds": 10.0}, start_s=100, attributes=counters(4000, 4100))
    found = asked(runs, watts=7.0)
    (energy,) = found.energy
    assert (energy.source, energy.counters, energy.runs, energy.seconds) == ("measured", "rapl", 2, 20.0)
    assert energy.joules == pytest.approx(600)
    assert found.per_solved is not None
    assert found.per_solved.measured_joules == pytest.approx(300)
    assert found.per_solved.estimated_joules is None
    assert "300 J (measured: rapl)" in cost_words(found)


def test_runs_beside_each_other_share_what_the_machine_used(runs: Any) -> None:
    runs.add({**CHAT, "seconds": 10.0}, start_s=0, attributes=counters(0, 500))
    runs.add({**CHAT, "seconds": 10.0}, start_s=5, attributes=counters(250, 750))
    runs.add({**CHAT, "seconds": 2.0}, start_s=6, attributes=counters(300, 400))
    (energy,) = asked(runs).energy
    assert energy.joules == pytest.approx(750)
    assert energy.seconds == pytest.approx(15)


def test_what_was_not_measured_is_estimated_and_says_so(runs: Any) -> None:
    runs.add({**CHAT, "seconds": 10.0}, start_s=0, attributes=counters(0, 500))
    runs.add({**CHAT, "seconds": 10.0}, start_s=100)
    measured, estimated = asked(runs, watts=30.0).energy
    assert (measured.source, estimated.source, estimated.joules) == ("measured", "estimated", 300.0)
    found = asked(runs, watts=30.0)
    assert found.per_solved is not None
    assert (found.per_solved.measured_joules, found.per_solved.estimated_joules) == (None, 400.0)
    assert "400 J (estimated)" in cost_words(found)


def test_without_a_counter_or_watts_there_is_no_energy(runs: Any) -> None:
    runs.add(CHAT, start_s=0, attributes=counters(0, 500))
    runs.add(CHAT, start_s=100)
    found = asked(runs)
    assert [one.source for one in found.energy] == ["measured"]
    # Half of it would be missing, so that a figure for each solved task would be wrong.
    assert found.per_solved is not None
    assert (found.per_solved.measured_joules, found.per_solved.estimated_joules) == (None, None)
    assert " J (" not in cost_words(found)


def test_a_run_that_was_taken_up_again_used_nothing_while_it_waited(runs: Any) -> None:
    runs.add({**CHAT, "seconds": 10.0}, start_s=0, status="needs_input", attributes=counters(0, 500))
    runs.part(start_s=1000, seconds=20.0, attributes=counters(9000, 9700))
    runs.add({**CHAT, "seconds": 10.0}, start_s=500, attributes=counters(5000, 5100))
    found = asked(runs)
    (energy,) = found.energy
    assert (energy.runs, energy.seconds) == (2, 40.0)
    assert energy.joules == pytest.approx(500 + 700 + 100)
    assert (found.runs, found.solved, found.seconds) == (2, 2, 40.0)
