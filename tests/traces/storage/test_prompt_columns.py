"""Prompt columns: a turn has the prompt that its model was sent, however the record holds it."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from journeyman.traces import attributes as a
from journeyman.traces.capture.growth import Growths
from journeyman.traces.capture.log import SpanLog, SpanRecord
from journeyman.traces.capture.span import shrunk
from journeyman.traces.messages import as_json
from journeyman.traces.prompts import Prompts
from journeyman.traces.storage.compact import compact
from journeyman.traces.storage.segments import Segments
from journeyman.traces.storage.store import TraceStore

Make = Callable[..., SpanRecord]

HISTORY: list[dict[str, object]] = [
    {"role": "user", "parts": [{"type": "text", "content": f"{k} {'x' * 3000}"}]} for k in range(9)
]


@pytest.fixture
def make(span: SpanRecord) -> Make:
    def made(number: int, history: Sequence[dict[str, object]], operation: str = "chat") -> SpanRecord:
        ids = [10_000 + 700 * HISTORY.index(entry) + k for entry in history for k in range(600)]
        known = {a.OPERATION: operation, a.INPUT_MESSAGES: as_json([*history]), a.PROMPT_TOKEN_IDS: as_json(ids)}
        fields = {"span_id": f"{number:016x}", "parent_id": "a" * 16, "start_ns": number, "attributes": known}
        return span.model_copy(update=fields)

    return made


def write(folder: Path, spans: Sequence[SpanRecord]) -> None:
    log = SpanLog(folder / "spans")
    for span in spans:
        log.append(span, sync=False)
    log.close()


def stores(folder: Path, spans: Sequence[SpanRecord]) -> Iterator[TraceStore]:
    """The record as it was written, and compacted."""
    write(folder, spans)
    yield TraceStore(folder / "spans", folder / "labels.jsonl")
    compact(folder / "spans", Segments(folder / "spans"))
    yield TraceStore(folder / "spans", folder / "labels.jsonl")


def check(folder: Path, spans: Sequence[SpanRecord]) -> None:
    written = {span.span_id: span.attributes for span in spans}
    calls = {name for name, known in written.items() if known[a.OPERATION] == "chat"}
    for store in stores(folder, spans):
        assert {span.span_id: span.attributes for span in store.spans()} == written
        rows = {row[0]: row[1:] for row in store.turns(["span_id", "input_messages", "prompt_token_ids"])}
        assert rows.keys() == calls
        (trace,) = store.traces()
        turns = {turn.span_id: turn for trajectory in trace.trajectories for turn in trajectory.turns}
        assert all(
            as_json([*(turns[name].prompt_token_ids or ())]) == written[name][a.PROMPT_TOKEN_IDS] for name in calls
        )
        for name, (messages, ids) in rows.items():
            assert (messages, as_json(ids.tolist())) == (
                written[name][a.INPUT_MESSAGES],
                written[name][a.PROMPT_TOKEN_IDS],
            )


def test_a_span_that_is_sent_again_keeps_its_prompt(tmp_path: Path, make: Make) -> None:
    once = [make(number, HISTORY[: number + 1]) for number in range(1, 5)]
    check(tmp_path, [*once, once[-1], *once, make(9, HISTORY)])


def test_a_turn_does_not_grow_from_what_is_no_turn(tmp_path: Path, make: Make) -> None:
    operations = ["invoke_agent", "chat", "execute_tool", "chat", "chat"]
    check(tmp_path, [make(number, HISTORY[: number + 3], name) for number, name in enumerate(operations, start=1)])


def test_a_prompt_of_which_only_the_beginning_is_new_is_to_the_letter(tmp_path: Path, make: Make) -> None:
    longer = [HISTORY[8], *HISTORY[2:6]]
    check(tmp_path, [make(1, HISTORY[:6]), make(2, longer), make(3, [HISTORY[7], *longer]), make(4, longer[1:])])


def test_a_span_that_is_sent_again_in_another_order_keeps_its_prompt(tmp_path: Path, make: Make) -> None:
    first, second, third = (make(number, HISTORY[: number + 2]) for number in range(1, 4))
    for again in ([first, second], [second, first], [third, first]):
        write(tmp_path, again)
    check(tmp_path, [first, second, third])


def test_a_turn_whose_beginning_is_gone_is_refused_also_where_its_base_began_later(make: Make) -> None:
    growths = Growths()
    spans = [shrunk(make(number, HISTORY[: 6 - number]), growths) for number in (4, 3, 2, 1)]
    prompts = Prompts(reversed(spans[1:]))
    assert all(map(prompts.lacks, spans[1:]))
    assert not any(map(Prompts(reversed(spans)).lacks, spans))
