"""The conventions' metrics, measured on spans as they end."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric, NumberDataPoint, Sum

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.conventions import conventions
from journeyman.traces.exchange.metrics import Metrics
from journeyman.traces.reports.check import check_metric

Golden = Callable[[str], list[SpanRecord]]


def measured(spans: list[SpanRecord], *, older: bool = False) -> dict[str, Metric]:
    reader = InMemoryMetricReader()
    metrics = Metrics(reader, older=older)
    for span in spans:
        metrics.append(span, sync=False)
    data = reader.get_metrics_data()
    metrics.close()
    return {
        metric.name: metric
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def points(metric: Metric, **wanted: Any) -> Iterator[Any]:
    for point in metric.data.data_points:
        if wanted.items() <= _named(point.attributes or {}).items():
            yield point


def _named(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name.rpartition(".")[2]: value for name, value in attributes.items()}


def only(metric: Metric, **wanted: Any) -> Any:
    (point,) = points(metric, **wanted)
    return point


@pytest.mark.parametrize("older", [False, True])
def test_every_metric_conforms_and_has_the_buckets_that_are_advised(older: bool, golden: Golden) -> None:
    found = measured(golden("learned"), older=older)
    table = conventions().metrics | (conventions().older_metrics if older else {})
    assert found.keys() == table.keys()
    for metric in found.values():
        instrument = "counter" if isinstance(metric.data, Sum) else "histogram"
        for point in metric.data.data_points:
            told: Any = dict(point.attributes or {})
            assert check_metric(metric.name, metric.unit or "", instrument, told) == []
            if isinstance(point, HistogramDataPoint):
                assert tuple(point.explicit_bounds) == table[metric.name].buckets


def test_durations_are_those_of_the_spans(golden: Golden) -> None:
    spans = golden("learned")
    found = measured(spans)
    for operation, name in (
        ("chat", "gen_ai.client.inference.duration"),
        ("execute_tool", "gen_ai.execute_tool.duration"),
        ("invoke_agent", "gen_ai.invoke_agent.duration"),
        ("invoke_workflow", "gen_ai.invoke_workflow.duration"),
    ):
        of_kind = [span for span in spans if span.attributes[a.OPERATION] == operation]
        assert sum(point.count for point in points(found[name])) == len(of_kind)
        seconds = sum(span.end_ns - span.start_ns for span in of_kind) / 1e9
        assert sum(point.sum for point in points(found[name])) == pytest.approx(seconds)


def test_a_failed_call_is_told_apart_by_its_error(golden: Golden) -> None:
    failed = [span for span in golden("learned") if span.status == "error" and span.kind == "client"]
    found = measured(golden("learned"))["gen_ai.client.inference.duration"]
    assert sum(point.count for point in points(found, type=failed[0].attributes[a.ERROR_TYPE])) == len(failed) > 0


def test_tokens_are_counted_in_all_and_for_each_call(golden: Golden) -> None:
    spans, found = golden("learned"), measured(golden("learned"))
    for name, attribute in (
        ("gen_ai.client.inference.usage.input_tokens", a.INPUT_TOKENS),
        ("gen_ai.client.inference.usage.output_tokens", a.OUTPUT_TOKENS),
        ("gen_ai.client.inference.usage.cache_read.input_tokens", a.CACHED_TOKENS),
    ):
        counts = [value for span in spans if isinstance(value := span.attributes.get(attribute), int)]
        counted = list(points(found[name], modality="text"))
        assert all(isinstance(point, NumberDataPoint) for point in counted)
        assert sum(point.value for point in counted) == sum(counts)
    each = found["gen_ai.client.inference.operation.input_tokens"]
    assert sum(point.count for point in points(each)) == sum(a.INPUT_TOKENS in span.attributes for span in spans)


def test_the_older_metrics_are_there_when_asked_for(golden: Golden) -> None:
    found = measured(golden("learned"), older=True)
    new, old = found["gen_ai.client.inference.operation.input_tokens"], found["gen_ai.client.token.usage"]
    assert sum(point.sum for point in points(old, type="input")) == sum(point.sum for point in points(new))
    assert "gen_ai.client.token.usage" not in measured(golden("learned"))


def test_calls_are_counted_for_the_agent_that_made_them_and_for_no_other(golden: Golden) -> None:
    found = measured(golden("learned"))
    inference, tools = found["gen_ai.invoke_agent.inference_calls"], found["gen_ai.invoke_agent.tool_calls"]
    assert only(inference, name="orchestrator").sum == 1  # Under its plan, and none of its workers'.
    assert (only(inference, name="lookup").count, only(inference, name="lookup").sum) == (4, 8)
    assert (only(tools, name="orchestrator").count, only(tools, name="orchestrator").sum) == (1, 0)
    asked = sum(span.attributes[a.OPERATION] == "execute_tool" for span in golden("learned"))
    assert only(tools, name="lookup").sum == asked


def test_a_span_of_no_operation_is_not_measured(golden: Golden) -> None:
    engine = golden("learned")[0].model_copy(update={"attributes": {a.ENGINE_QUEUE: 0.5}})
    assert measured([engine]) == {}
