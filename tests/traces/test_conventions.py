"""The table of the conventions holds together, and our names are in it."""

import re

from journeyman.traces import attributes as a
from journeyman.traces.conventions import conventions

TABLE = conventions()


def test_every_name_of_ours_that_is_not_journeymans_is_in_the_table() -> None:
    names = {value for name, value in vars(a).items() if name.isupper() and isinstance(value, str)}
    theirs = {name for name in names if not name.startswith("journeyman.")} - {a.DIGEST_ONLY}
    assert theirs <= TABLE.types.keys()


def test_every_attribute_that_a_span_metric_or_event_may_have_has_a_type() -> None:
    metrics = [*TABLE.metrics.values(), *TABLE.events.values(), *TABLE.spans]
    asked = frozenset[str]().union(*(one.attributes for one in metrics))
    assert {name for name in asked if TABLE.type_of(name) is None and name not in TABLE.templates} == set()
    assert {name for name, kind in TABLE.types.items() if kind == "any"} == TABLE.shapes.keys()


def test_every_operation_has_a_span() -> None:
    operations = set(TABLE.values[a.OPERATION])
    assert {operation for span in TABLE.spans for operation in span.operations} == operations
    assert all(metric.operations <= operations for metric in TABLE.metrics.values())


def test_a_remote_agent_is_told_from_one_in_this_process() -> None:
    remote, own = TABLE.span("invoke_agent", "client"), TABLE.span("invoke_agent", "internal")
    assert remote is not None and own is not None
    assert a.PROVIDER in remote.required
    assert a.PROVIDER not in own.required


def test_a_name_that_was_given_up_is_not_in_use() -> None:
    assert not TABLE.renamed.keys() & TABLE.types.keys()
    assert {name for name in TABLE.renamed.values() if name.startswith("gen_ai.")} <= TABLE.types.keys()


def test_histograms_have_rising_buckets_and_counters_have_none() -> None:
    for metric in (TABLE.metrics | TABLE.older_metrics).values():
        assert bool(metric.buckets) == (metric.instrument == "histogram")
        assert list(metric.buckets) == sorted(set(metric.buckets))


def test_the_table_says_of_which_commit_it_is() -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", TABLE.commit)


def test_an_attribute_with_a_name_of_its_own_has_the_type_of_its_template() -> None:
    assert TABLE.type_of("gen_ai.prompt.variable.user_name") == "string"
    assert TABLE.type_of("gen_ai.prompt.variables") is None
