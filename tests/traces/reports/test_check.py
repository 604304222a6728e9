"""The conformance checker: it finds what is wrong with a span, and nothing where nothing is."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord
from journeyman.traces.conventions import conventions
from journeyman.traces.reports.check import RULES, check, check_event, check_metric

Golden = Callable[[str], list[SpanRecord]]

REMOVED = object()


def chat(golden: Golden) -> SpanRecord:
    return next(span for span in golden("learned") if span.attributes[a.OPERATION] == "chat")


def changed(span: SpanRecord, **attributes: Any) -> SpanRecord:
    """The span with other attributes, named as the constants are."""
    named = {getattr(a, name): value for name, value in attributes.items()}
    merged = {name: value for name, value in {**span.attributes, **named}.items() if value is not REMOVED}
    return span.model_copy(update={"attributes": merged})


def found(*spans: SpanRecord) -> list[tuple[str, str]]:
    return [(finding.rule, finding.message) for finding in check(spans)]


@pytest.mark.parametrize("name", ["learned", "taught", "crashed"])
def test_what_the_runtime_recorded_conforms(name: str, golden: Golden) -> None:
    assert check(golden(name)) == []


@pytest.mark.parametrize(
    ("changes", "rule", "message"),
    [
        ({"PROVIDER": REMOVED}, "required", "gen_ai.provider.name is missing"),
        ({"OPERATION": REMOVED}, "operation", "it has gen_ai attributes and no gen_ai.operation.name"),
        ({"OPERATION": "dream"}, "operation", "'dream' is no operation of the conventions"),
        ({"INPUT_TOKENS": "3"}, "type", "gen_ai.usage.input_tokens is str '3', not int"),
        ({"INPUT_TOKENS": True}, "type", "gen_ai.usage.input_tokens is bool True, not int"),
        ({"REQUEST_TEMPERATURE": 0}, "type", "gen_ai.request.temperature is int 0, not double"),
        ({"FINISH_REASONS": "stop"}, "type", "gen_ai.response.finish_reasons is str 'stop', not strings"),
        ({"OUTPUT_TYPE": "JSON"}, "value", "gen_ai.output.type is 'JSON'; the well-known value is 'json'"),
        ({"PROVIDER": "OpenAI"}, "value", "gen_ai.provider.name is 'OpenAI'; the well-known value is 'openai'"),
        (
            {"CACHED_TOKENS": 61},
            "value",
            "gen_ai.usage.cache_read.input_tokens is 61, but it is part of gen_ai.usage.input_tokens, which is 60",
        ),
        ({"INPUT_MESSAGES": "hello"}, "shape", "gen_ai.input.messages: it is text that is not JSON"),
        ({"INPUT_MESSAGES": "{}"}, "shape", "gen_ai.input.messages: it is not a list"),
        ({"INPUT_MESSAGES": '[{"role": "user"}]'}, "shape", "gen_ai.input.messages: [0] has no parts"),
        (
            {"INPUT_MESSAGES": '[{"role": "user", "parts": [{"type": "text"}]}]'},
            "shape",
            "gen_ai.input.messages: [0].parts[0] has no content",
        ),
        (
            {"OUTPUT_MESSAGES": '[{"role": "assistant", "parts": [], "finish_reason": 0}]'},
            "shape",
            "gen_ai.output.messages: [0].finish_reason is not a string",
        ),
        ({"TOOL_DEFINITIONS": '[{"name": "search"}]'}, "shape", "gen_ai.tool.definitions: [0] has no type"),
        ({"TOOL_CALL_RESULT": "[57]"}, "shape", "gen_ai.tool.call.result: it is not an object"),
        ({"ERROR_TYPE": "timeout"}, "error", "it has error.type and did not fail"),
        ({"REQUEST_MODEL": "base"}, "name", "its name is 'chat orchestrator@3', not 'chat base'"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], rule: str, message: str, golden: Golden) -> None:
    assert found(changed(chat(golden), **changes)) == [(rule, message)]


@pytest.mark.parametrize(
    ("name", "rule", "message"),
    [
        ("gen_ai.mood", "unknown", "gen_ai.mood is no attribute of the conventions"),
        ("gen_ai.usage.prompt_tokens", "deprecated", "gen_ai.usage.prompt_tokens is deprecated: it is"),
        ("gen_ai.prompt", "deprecated", "gen_ai.prompt is deprecated"),
    ],
)
def test_a_name_that_is_unknown_or_of_the_past_is_a_warning(name: str, rule: str, message: str, golden: Golden) -> None:
    span = chat(golden)
    (finding,) = check([span.model_copy(update={"attributes": {**span.attributes, name: "x"}})])
    assert (finding.rule, finding.severity) == (rule, "warning")
    assert finding.message.startswith(message)
    assert (finding.trace_id, finding.span_id, finding.subject) == (span.trace_id, span.span_id, span.name)


@pytest.mark.parametrize("name", ["journeyman.anything", "http.route", "gen_ai.prompt.variable.user"])
def test_names_of_other_conventions_and_of_templates_are_nobodys_business(name: str, golden: Golden) -> None:
    span = chat(golden)
    assert check([span.model_copy(update={"attributes": {**span.attributes, name: "x"}})]) == []


def test_a_kind_is_named(golden: Golden) -> None:
    span = chat(golden).model_copy(update={"kind": "server"})
    assert found(span) == [("kind", "its kind is 'server', not 'client' or 'internal'")]


def test_a_failure_needs_a_type(golden: Golden) -> None:
    assert found(chat(golden).model_copy(update={"status": "error"})) == [("error", "it failed and has no error.type")]


def test_a_servers_own_account_of_a_call_needs_no_operation(golden: Golden) -> None:
    attributes = {a.RESPONSE_ID: "chatcmpl-1", a.ENGINE_QUEUE: 0.1, a.INPUT_TOKENS: 3}
    engine = chat(golden).model_copy(update={"name": "llm_request", "kind": "server", "attributes": attributes})
    assert check([engine]) == []


def test_a_content_of_which_only_the_digest_is_kept_conforms(golden: Golden) -> None:
    digest = f"sha256:{'0' * 64}"
    kept = dict.fromkeys(("INPUT_MESSAGES", "OUTPUT_MESSAGES", "SYSTEM_INSTRUCTIONS"), digest)
    assert check([changed(chat(golden), **kept)]) == []


def test_the_spans_of_a_trace_belong_to_one_conversation(golden: Golden) -> None:
    first, second, *_ = (span for span in golden("learned") if span.attributes[a.OPERATION] == "chat")
    told = changed(first, CONVERSATION_ID="s1")
    (finding,) = check([told, second])
    assert (finding.rule, finding.span_id) == ("conversation", second.span_id)
    assert len(check([told, changed(second, CONVERSATION_ID="s2")])) == 2
    elsewhere = second.model_copy(update={"trace_id": "d" * 32})
    assert check([told, elsewhere]) == []


def test_every_form_of_the_table_is_checked(golden: Golden) -> None:
    shapes = {"message[]": "[{}]", "output_message[]": "[{}]", "part[]": "[{}]", "tool[]": "[{}]", "record[]": "[{}]"}
    for name, shape in conventions().shapes.items():
        broken = shapes.get(shape, '[{"score": "high"}]')
        span = chat(golden)
        findings = check([span.model_copy(update={"attributes": {**span.attributes, name: broken}})])
        assert {finding.rule for finding in findings} == {"shape"}, name


@pytest.mark.parametrize("part", conventions().parts)
def test_a_part_that_lacks_what_its_type_needs_is_named(part: str, golden: Golden) -> None:
    needed = [field for field, kind in conventions().parts[part].items() if not kind.endswith("?")]
    messages = json.dumps([{"role": "user", "parts": [{"type": part}]}])
    lacks = [f"gen_ai.input.messages: [0].parts[0] has no {field}" for field in needed]
    assert [message for _, message in found(changed(chat(golden), INPUT_MESSAGES=messages))] == lacks


def test_a_metric_is_checked_by_unit_instrument_and_attributes() -> None:
    name, told = "gen_ai.client.inference.duration", {a.OPERATION: "chat", a.PROVIDER: "vllm"}
    assert check_metric(name, "s", "histogram", told) == []
    assert [finding.rule for finding in check_metric(name, "ms", "counter", told)] == ["type", "type"]
    assert [finding.message for finding in check_metric(name, "s", "histogram", {a.OPERATION: "chat"})] == [
        "gen_ai.provider.name is missing"
    ]
    (surplus,) = check_metric(name, "s", "histogram", {**told, a.TASK_ID: "q1"})
    assert (surplus.rule, surplus.message) == ("unknown", "journeyman.task.id is not for it")
    assert [finding.rule for finding in check_metric("gen_ai.mood", "s", "histogram", {})] == ["unknown"]


def test_an_older_metric_may_have_its_older_attribute() -> None:
    told = {a.OPERATION: "chat", a.PROVIDER: "vllm", "gen_ai.token.type": "input"}
    assert check_metric("gen_ai.client.token.usage", "{token}", "histogram", told) == []


def test_an_event_is_checked_by_its_attributes() -> None:
    assert check_event("gen_ai.evaluation.result", {a.EVALUATION_NAME: "score", a.EVALUATION_VALUE: 1.0}) == []
    assert [finding.rule for finding in check_event("gen_ai.evaluation.result", {a.EVALUATION_VALUE: 1})] == [
        "required",
        "type",
    ]
    assert [finding.rule for finding in check_event("gen_ai.choice", {})] == ["unknown"]


def test_every_rule_has_a_severity(golden: Golden) -> None:
    assert set(RULES.values()) == {"error", "warning"}
