"""A prompt that grows is recorded as what came to it, and comes back to the letter."""

import json
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman.traces import attributes as a
from journeyman.traces.capture.growth import Growths
from journeyman.traces.capture.log import LogReader, SpanLog, SpanRecord
from journeyman.traces.capture.span import shrunk
from journeyman.traces.capture.wholes import Wholes, part_of
from journeyman.traces.errors import StoreError
from journeyman.traces.messages import as_json

Make = Callable[[str, list[dict[str, object]]], SpanRecord]


def message(number: int, size: int = 3000) -> dict[str, object]:
    return {"role": "tool", "parts": [{"type": "text", "content": f"{number} {chr(97 + number % 26) * size}"}]}


@pytest.fixture
def make(span: SpanRecord) -> Make:
    def made(name: str, messages: list[dict[str, object]], dump: Callable[[object], str] = as_json) -> SpanRecord:
        known = {a.OPERATION: "chat", a.INPUT_MESSAGES: dump(messages)}
        return span.model_copy(update={"span_id": name, "parent_id": "agent", "attributes": known})

    return made


def there_and_back(spans: Sequence[SpanRecord]) -> tuple[list[SpanRecord], list[SpanRecord]]:
    growths = Growths()
    parts = [shrunk(span, growths) for span in spans]
    known = {span.span_id: span for span in parts}
    wholes = Wholes(lambda _, span_id, name: part_of(known.get(span_id), name))
    return parts, [wholes.span(span) for span in parts]


def room(spans: Sequence[SpanRecord]) -> int:
    return sum(len(str(span.attributes[a.INPUT_MESSAGES])) for span in spans)


HISTORY = [message(number) for number in range(12)]

SHAPES = {
    "grows": [HISTORY[:end] for end in range(2, 12)],
    "stays": [HISTORY] * 10,
    "slides": [HISTORY[end - 6 : end] for end in range(6, 12)],
    "a new first message": [[message(100 + end), *HISTORY[:end]] for end in range(4, 12)],
    "a last message that changes": [[*HISTORY[:end], message(200 + end)] for end in range(4, 12)],
    "shrinks": [HISTORY[:end] for end in range(11, 3, -1)],
}


@pytest.mark.parametrize("dump", [as_json, json.dumps], ids=["ours", "with spaces"])
@pytest.mark.parametrize("prompts", SHAPES.values(), ids=SHAPES)
def test_what_an_earlier_prompt_has_is_left_out_and_comes_back(
    prompts: list[list[dict[str, object]]], dump: Callable[[object], str], make: Callable[..., SpanRecord]
) -> None:
    spans = [make(str(number), prompt, dump) for number, prompt in enumerate(prompts)]
    parts, back = there_and_back(spans)
    assert back == [span.model_copy(update={"version": part.version}) for span, part in zip(spans, parts, strict=True)]
    # Whole is the first one, and with each other at most the two messages that are new to it.
    assert room(parts) < len(dump(prompts[0])) + 2 * 3200 * len(prompts)
    assert all(json.loads(str(part.attributes[a.INPUT_MESSAGES]).replace(",]", "]")) is not None for part in parts)


def test_a_short_prompt_or_one_of_another_agent_is_whole(make: Make, span: SpanRecord) -> None:
    short = [make(str(end), [message(number, 20) for number in range(end)]) for end in range(1, 9)]
    assert there_and_back(short)[0] == short
    others = [make(str(end), HISTORY[:end]).model_copy(update={"parent_id": str(end)}) for end in range(2, 6)]
    assert there_and_back(others)[0] == others


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(st.integers(0, 5), max_size=12), min_size=2, max_size=6), st.booleans())
def test_any_lists_come_back_to_the_letter(prompts: list[list[int]], numbers: bool) -> None:
    def text(prompt: list[int]) -> str:
        if numbers:
            return as_json([1000 + number for number in prompt for _ in range(300)])
        return as_json([message(number, 1500 if number % 2 else 2) for number in prompt])

    name = a.PROMPT_TOKEN_IDS if numbers else a.INPUT_MESSAGES
    fields = {"trace_id": "t", "parent_id": "agent", "name": "chat", "kind": "client", "status": "ok"}
    times = {"start_ns": 0, "end_ns": 0}
    spans = [
        SpanRecord.model_validate(fields | times | {"span_id": str(place), "attributes": {name: text(prompt)}})
        for place, prompt in enumerate(prompts)
    ]
    assert there_and_back(spans)[1] == spans


def test_the_log_gives_whole_prompts_and_holds_each_message_once(tmp_path: Path, make: Make) -> None:
    spans = [make(str(end), HISTORY[:end]) for end in range(1, 12)]
    log = SpanLog(tmp_path)
    for span in spans:
        log.append(span, sync=False)
    log.close()
    assert list(LogReader(tmp_path)) == spans
    parts = list(LogReader(tmp_path, whole=False))
    assert room(parts) < 12 * 3200 and room(spans) > 60 * 3000


def test_each_file_of_a_log_says_everything_by_itself(tmp_path: Path, make: Make) -> None:
    spans = [make(str(end), [message(number, 3000) for number in range(end)]) for end in range(2, 60)]
    log = SpanLog(tmp_path, rotate_bytes=20_000)
    for span in spans:
        log.append(span, sync=False)
    log.close()
    files = sorted(tmp_path.glob("*.jsonl"))
    assert len(files) > 1
    assert [span for path in files for span in LogReader(tmp_path, files=[path])] == spans


def test_nothing_grows_from_a_span_that_the_disk_refused(tmp_path: Path, make: Make) -> None:
    spans = [make(str(end), HISTORY[:end]) for end in range(2, 5)]
    log = SpanLog(tmp_path)
    log.append(spans[0], sync=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 10, before[1]))
    try:
        with pytest.raises(StoreError):
            log.append(spans[1], sync=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.append(spans[2], sync=False)
    log.close()
    assert list(LogReader(tmp_path)) == [spans[0], spans[2]]


def test_of_a_prompt_whose_beginning_was_lost_a_mark_is_left(tmp_path: Path, make: Make) -> None:
    spans = [make(str(end), HISTORY[:end]) for end in range(2, 6)]
    log = SpanLog(tmp_path)
    for span in spans:
        log.append(span, sync=False)
    log.close()
    lines = log.path.read_bytes().splitlines(keepends=True)
    lines[1] = b"0" + lines[1][1:] if lines[1][:1] != b"0" else b"1" + lines[1][1:]
    log.path.write_bytes(b"".join(lines))
    reader = LogReader(tmp_path)
    assert [span.attributes[a.INPUT_MESSAGES] for span in reader] == [
        spans[0].attributes[a.INPUT_MESSAGES],
        a.DIGEST_ONLY,
        a.DIGEST_ONLY,
    ]
    assert (reader.damage.corrupt, reader.damage.texts) == (1, 2)
