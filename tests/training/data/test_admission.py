"""Nobody learns from what they are measured by, whatever order things happened in."""

import json
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanLog, SpanRecord
from journeyman.traces.exchange.importing import Broken, read_file
from journeyman.traces.storage.compact import compact
from journeyman.traces.storage.segments import Segments
from journeyman.traces.storage.store import TraceStore
from journeyman.traces.trace import HELD_OUT, LEARNED_FROM, Purpose
from journeyman.training.data.mine import Mined, mine_sft
from journeyman.training.data.source import MineConfig, Source

ANY = MineConfig()
WITH_UNKNOWN = MineConfig(purposes=("service", "teach", "rollout", "unknown"))


def run(
    number: int,
    purpose: str | None,
    *,
    killed: bool = False,
    replay_of: str | None = None,
) -> list[SpanRecord]:
    """A run of one turn; one that was killed has no span of its own."""
    whole: dict[str, Any] = {a.OPERATION: "invoke_workflow", a.STATUS: "ok", a.PURPOSE: purpose}
    every = {a.RUN_ID: str(number), a.REPLAY_OF: replay_of}
    agent: dict[str, Any] = {a.OPERATION: "invoke_agent", a.AGENT_NAME: "worker", a.STATUS: "ok"}
    text = {"parts": [{"type": "text", "content": f"{number}"}]}
    chat: dict[str, Any] = {
        a.OPERATION: "chat",
        a.AGENT_NAME: "worker",
        a.REQUEST_MODEL: "base",
        a.RESPONSE_MODEL: "base",
        a.FINISH_REASONS: ["stop"],
        a.INPUT_MESSAGES: json.dumps([{"role": "user", **text}]),
        a.OUTPUT_MESSAGES: json.dumps([{"role": "assistant", **text, "finish_reason": "stop"}]),
        a.PROMPT_TOKEN_IDS: "[1]",
        a.TOKEN_IDS: f"[{number}]",
        a.LOGPROBS: "[-0.5]",
    }
    spans = [
        SpanRecord(
            trace_id=f"{number:032x}",
            span_id=f"{number:015x}{place}",
            parent_id=f"{number:015x}{place - 1}" if place else None,
            name="",
            kind="internal",
            start_ns=1_000 * number + place,
            end_ns=1_000 * number + 10,
            status="ok",
            attributes={name: value for name, value in (every | attributes).items() if value is not None},
        )
        for place, attributes in enumerate((whole, agent, chat))
    ]
    return spans[1:] if killed else spans


def recorded(folder: Path, spans: list[SpanRecord]) -> TraceStore:
    log = SpanLog(folder / "spans")
    log.append_many(spans, sync=True)
    log.close()
    return TraceStore(folder / "spans", folder / "labels.jsonl")


def mined(store: TraceStore, config: MineConfig = ANY, evaluated: Collection[str] = ()) -> Mined:
    return mine_sft(Source(store, "worker", config, evaluated=evaluated))


def numbers(rows: Mined) -> list[int]:
    return sorted(int(sample.trace_id, 16) for sample in rows.samples)


@pytest.mark.parametrize("purpose", [*LEARNED_FROM, *HELD_OUT, None])
def test_a_row_comes_from_what_was_made_for_service_teaching_or_training(tmp_path: Path, purpose: str | None) -> None:
    rows = mined(recorded(tmp_path, run(1, purpose)))
    reason = f"made for {purpose}" if purpose else "nothing says why it was made"
    assert (numbers(rows), rows.refused) == (([1], {}) if purpose in LEARNED_FROM else ([], {reason: 1}))


def test_runs_made_for_something_else_than_was_asked_are_passed_over(tmp_path: Path) -> None:
    store = recorded(tmp_path, [*run(1, "service"), *run(2, "teach"), *run(3, "gate")])
    rows = mined(store, MineConfig(purposes=("teach",)))
    assert (numbers(rows), rows.refused) == ([2], {"made for gate": 1})


def test_an_older_run_is_judged_by_what_is_known_of_it(tmp_path: Path) -> None:
    replayed = run(3, None, replay_of="a" * 32)
    store = recorded(tmp_path, [*run(1, None), *run(2, None), *replayed, *run(4, "teach")])
    episodes = {f"{2:032x}", f"{4:032x}"}
    rows = mined(store, WITH_UNKNOWN, episodes)
    assert (numbers(rows), rows.refused) == ([1, 4], {"made for evaluation": 1, "made for replay": 1})
    assert numbers(mined(store, ANY, episodes)) == [4]


def test_what_was_imported_is_somebodys_service_unless_told_otherwise(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"}]
    (tmp_path / "chats.jsonl").write_text(json.dumps({"messages": said}) + "\n")

    def imported(purpose: Purpose | None) -> list[SpanRecord]:
        read = read_file(tmp_path / "chats.jsonl", "chat", agent="worker", family="f", purpose=purpose)
        return [span for entry in read if not isinstance(entry, Broken) for span in entry.spans]

    assert len(mined(recorded(tmp_path / "told", imported(None))).samples) == 1
    older = imported(None)
    for span in older:
        span.attributes.pop(a.PURPOSE, None)
    assert len(mined(recorded(tmp_path / "older", older)).samples) == 1
    assert mined(recorded(tmp_path / "gate", imported("gate"))).refused == {"made for gate": 1}


def test_of_a_run_that_was_killed_nobody_knows_whether_it_was_for_measuring(tmp_path: Path) -> None:
    store = recorded(tmp_path, run(1, "service", killed=True))
    assert mined(store, WITH_UNKNOWN).refused == {"run unfinished": 1}


KINDS = st.fixed_dictionaries(
    {
        "purpose": st.sampled_from([*LEARNED_FROM, *HELD_OUT, None]),
        "killed": st.booleans(),
    }
)


@settings(max_examples=40, deadline=None)
@given(st.lists(KINDS, min_size=1, max_size=6), st.sets(st.integers(1, 6)), st.randoms(), st.data())
def test_no_row_of_a_held_out_purpose_gets_in_whatever_the_order_of_events(
    kinds: list[dict[str, Any]], evaluated: set[int], random: Any, data: st.DataObject
) -> None:
    spans = [span for number, kind in enumerate(kinds, start=1) for span in run(number, **kind)]
    spans += data.draw(st.lists(st.sampled_from(spans), max_size=4))
    random.shuffle(spans)
    compacted = data.draw(st.integers(0, len(spans)))
    episodes = {f"{number:032x}" for number in evaluated}
    with tempfile.TemporaryDirectory() as folder:
        recorded(Path(folder), spans[:compacted])
        compact(Path(folder) / "spans", Segments(Path(folder) / "spans"))
        rows = mined(recorded(Path(folder), spans[compacted:]), WITH_UNKNOWN, episodes)

    def learnable(number: int, purpose: str | None, killed: bool) -> bool:
        if purpose is None:
            return not killed and number not in evaluated
        return not killed and purpose in LEARNED_FROM

    assert numbers(rows) == [number for number, kind in enumerate(kinds, start=1) if learnable(number, **kind)]
