"""What was written under older names or in an older shape is read as if it had been written today."""

import json
from pathlib import Path

import pytest
from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SPAN_VERSION, LogReader
from journeyman.traces.messages import read_prompt, read_reply
from journeyman.traces.reports.check import check
from journeyman.traces.translate import translate

SPANS = Path(__file__).parent.parent / "data" / "spans"


def test_a_log_of_the_first_version_reads_as_one_of_today() -> None:
    spans = list(LogReader(SPANS))
    assert len(spans) == sum(len(path.read_bytes().splitlines()) for path in SPANS.glob("*.jsonl"))
    assert {span.version for span in spans} == {SPAN_VERSION}
    assert check(spans) == []


def test_no_message_is_lost_or_changed_in_translation() -> None:
    for path in SPANS.glob("*.jsonl"):
        lines = [json.loads(line.partition(b" ")[2])["attributes"] for line in path.read_bytes().splitlines()]
        for old, span in zip(lines, LogReader(SPANS).scan_file(path), strict=True):
            today = span.attributes
            told = [message.model_dump(exclude_defaults=True) for message in read_prompt(today)]
            assert told == json.loads(old.get(a.INPUT_MESSAGES, "[]"))
            reply = read_reply(today)
            replies = [] if reply is None else [reply.model_dump(exclude_defaults=True)]
            assert replies == json.loads(old.get(a.OUTPUT_MESSAGES, "[]"))


@pytest.mark.parametrize(
    ("older", "today"),
    [
        ({"gen_ai.system": "openai"}, {"gen_ai.provider.name": "openai"}),
        ({"gen_ai.system": "vertex_ai"}, {"gen_ai.provider.name": "gcp.vertex_ai"}),
        ({"gen_ai.usage.prompt_tokens": 3}, {"gen_ai.usage.input_tokens": 3}),
        ({"gen_ai.usage.completion_tokens": 4}, {"gen_ai.usage.output_tokens": 4}),
        ({"gen_ai.usage.cache_creation.input_tokens": 5}, {"gen_ai.usage.cache_write.input_tokens": 5}),
        ({"gen_ai.openai.request.response_format": "json_schema"}, {"gen_ai.output.type": "json"}),
        ({"gen_ai.prompt": "Which films?"}, {"gen_ai.prompt": "Which films?"}),
        ({"llm.vendor": "x", "n": [1, None]}, {"llm.vendor": "x", "n": [1, None]}),
    ],
)
@pytest.mark.parametrize("version", [0, 1])
def test_older_names_become_todays(older: dict[str, JsonValue], today: dict[str, JsonValue], version: int) -> None:
    assert translate(older, version) == today


NUMBERED: dict[str, JsonValue] = {
    "llm.request.type": "chat",
    "gen_ai.system": "openai",
    "gen_ai.prompt.0.role": "system",
    "gen_ai.prompt.0.content": "You look things up.",
    "gen_ai.prompt.1.role": "user",
    "gen_ai.prompt.1.content": "How many moons has Mars?",
    "gen_ai.completion.0.role": "assistant",
    "gen_ai.completion.0.finish_reason": "tool_calls",
    "gen_ai.completion.0.tool_calls.0.id": "call_1",
    "gen_ai.completion.0.tool_calls.0.name": "search",
    "gen_ai.completion.0.tool_calls.0.arguments": '{"query": "moons of Mars"}',
}


def test_messages_with_an_attribute_for_each_field_become_messages() -> None:
    today = translate(NUMBERED, 0)
    system, user = read_prompt(today)
    assert (system.role, system.content) == ("system", "You look things up.")
    assert (user.role, user.content) == ("user", "How many moons has Mars?")
    reply = read_reply(today)
    assert reply is not None
    assert (reply.tool_calls[0].name, reply.tool_calls[0].arguments) == ("search", {"query": "moons of Mars"})
    assert (today[a.OPERATION], today[a.PROVIDER], today[a.FINISH_REASONS]) == ("chat", "openai", ["tool_calls"])
    assert not any(name.startswith(("gen_ai.prompt.", "gen_ai.completion.")) for name in today)


def test_messages_with_fields_that_make_no_sense_stay_as_they_are() -> None:
    odd = {**NUMBERED, "gen_ai.prompt.1.role": "wizard"}
    assert translate(odd, 0).items() >= {name: odd[name] for name in odd if name != "gen_ai.system"}.items()


def test_of_an_older_and_a_newer_name_the_newer_counts() -> None:
    both: dict[str, JsonValue] = {"gen_ai.usage.prompt_tokens": 3, "gen_ai.usage.input_tokens": 5}
    assert translate(both, 0) == {"gen_ai.usage.input_tokens": 5}


def test_what_is_written_today_stays_as_it_is() -> None:
    old: dict[str, JsonValue] = {"gen_ai.system": "openai"}
    assert translate(old, SPAN_VERSION) == old


@pytest.mark.parametrize("text", ["no JSON", '["x"]', '[{"role": "user", "parts": []}]'])
def test_messages_of_no_shape_that_is_known_stay_as_they_are(text: str) -> None:
    assert translate({a.INPUT_MESSAGES: text, a.OUTPUT_MESSAGES: text}, 1) == {
        a.INPUT_MESSAGES: text,
        a.OUTPUT_MESSAGES: text,
    }
