"""Latency: quantiles of runs, agents, model calls and tools, with the server's own account where there is one."""

from typing import Any

import pytest

from journeyman.traces.reports.latency import Latency, latency
from journeyman.traces.reports.scope import Scope


def by_name(runs: Any) -> dict[tuple[str, str], Latency]:
    return {(one.kind, one.name): one for one in latency(runs.store, Scope())}


def test_quantiles_are_those_of_the_calls(runs: Any) -> None:
    for seconds in range(101):
        runs.add({"operation": "chat", "seconds": float(seconds)})
    found = by_name(runs)["model", "lookup"]
    assert (found.count, found.measured, found.queue) == (101, 0, None)
    assert (found.seconds.p50, found.seconds.p90, found.seconds.p99) == pytest.approx((50.0, 90.0, 99.0))


def test_the_server_s_account_comes_from_its_own_span(runs: Any) -> None:
    for queued in (0.1, 0.3):
        engine = {
            "journeyman.engine.queue_s": queued,
            "journeyman.engine.prefill_s": 0.2,
            "journeyman.engine.decode_s": 0.5,
        }
        runs.add({"operation": "chat", "engine": engine})
    runs.add({"operation": "chat"})
    found = by_name(runs)["model", "lookup"]
    assert (found.count, found.measured) == (3, 2)
    assert found.queue is not None and found.queue.p50 == pytest.approx(0.2)
    assert found.prefill is not None and found.prefill.p99 == pytest.approx(0.2)
    assert found.decode is not None and found.decode.p90 == pytest.approx(0.5)


def test_runs_agents_and_tools_are_told_apart(runs: Any) -> None:
    runs.add({"operation": "chat", "seconds": 2.0}, {"operation": "execute_tool", "seconds": 1.0})
    found = by_name(runs)
    assert {key: one.seconds.p50 for key, one in found.items()} == {
        ("run", "all"): 3.0,
        ("agent", "boss"): 3.0,
        ("agent", "lookup"): 3.0,
        ("model", "lookup"): 2.0,
        ("tool", "search"): 1.0,
    }


def test_work_that_waits_for_a_person_is_not_over(runs: Any) -> None:
    runs.add({"operation": "chat"}, status="needs_input", worker_status="needs_input")
    assert set(by_name(runs)) == {("model", "lookup")}
    runs.part(start_s=5000, seconds=2.0)
    assert by_name(runs)["run", "all"].seconds.p50 == 3.0


def test_what_never_finished_has_no_latency_but_its_calls_do(runs: Any) -> None:
    runs.add({"operation": "chat"}, status=None, worker_status=None)
    assert set(by_name(runs)) == {("model", "lookup")}
