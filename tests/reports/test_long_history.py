"""A coding agent's conversation was recorded whole with each of its turns, until nothing of that agent could be mined.

What is kept is in proportion to what was new, also of logs from before; every prompt comes back to the letter.
"""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from journeyman.runtime.recording.intake import Intake
from journeyman.runtime.workspace import Workspace
from journeyman.traces.capture.log import LogReader
from journeyman.traces.capture.span import format_line
from journeyman.traces.capture.texts import Texts
from journeyman.traces.exchange.importing import read_file
from journeyman.training.data.mine import Mined, mine_sft
from journeyman.training.data.source import MineConfig, Source

TURNS, CHARACTERS = 60, 2000


@pytest.fixture
def talk() -> list[dict[str, Any]]:
    words = random.Random(0)
    messages: list[dict[str, Any]] = [{"role": "user", "content": "fix it"}]
    for turn in range(TURNS):
        function = {"name": "bash", "arguments": json.dumps({"cmd": f"ls {turn}"})}
        call = {"id": f"c{turn}", "type": "function", "function": function}
        seen = " ".join(f"{words.randrange(16**6):06x}" for _ in range(CHARACTERS // 7))
        messages.append({"role": "assistant", "content": f"step {turn}", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{turn}", "content": seen})
    return [*messages, {"role": "assistant", "content": "done"}]


@pytest.fixture
def imported(workspace: Workspace, talk: list[dict[str, Any]]) -> Workspace:
    file = workspace.root.parent / "chat.jsonl"
    file.write_text(json.dumps({"messages": talk}) + "\n", encoding="utf-8")
    with Intake(workspace.create()) as intake:
        for entry in read_file(file, "chat", agent="coder", family="default"):
            assert not hasattr(entry, "reason")
            intake.take(entry)
    return workspace


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def mined(workspace: Workspace) -> Mined:
    return mine_sft(Source(workspace.store, "coder", MineConfig()))


def as_before(workspace: Workspace) -> None:
    """Writes the log anew as it was written before: each prompt whole."""
    spans = list(LogReader(workspace.spans))
    for path in workspace.spans.glob("*.jsonl"):
        path.unlink()
    texts = Texts(workspace.spans)
    lines = [format_line(span.model_copy(update={"version": 2}), texts) for span in spans]
    (workspace.spans / "20251009T000000.000000Z-1-00000000.jsonl").write_bytes(b"".join(lines))


def test_a_long_conversation_takes_its_own_size_and_is_mined(imported: Workspace, talk: list[dict[str, Any]]) -> None:
    said = sum(len(message["content"]) for message in talk)
    assert size(imported.spans) < 3 * said
    rows = mined(imported).samples
    assert len(rows) == TURNS + 1
    for number, row in enumerate(rows):
        assert [message.content for message in row.messages] == [one["content"] for one in talk[: 2 * number + 1]]
    (trace,) = imported.store.traces()
    assert [len(turn.messages) for turn in trace.turns] == [2 * number + 1 for number in range(TURNS + 1)]
    assert trace.turns[-1].messages[-1].content == talk[-2]["content"]


def test_it_is_the_same_from_a_segment(imported: Workspace, talk: list[dict[str, Any]], journeyman: Any) -> None:
    before, spans = mined(imported), sorted(imported.store.spans(), key=lambda span: span.span_id)
    assert journeyman("traces", "compact", "-C", imported.root).code == 0
    assert size(imported.spans) < 3 * sum(len(message["content"]) for message in talk)
    assert mined(imported) == before
    assert sorted(imported.store.spans(), key=lambda span: span.span_id) == spans


def test_a_log_from_before_is_read_and_becomes_a_small_segment(
    imported: Workspace, talk: list[dict[str, Any]], journeyman: Any
) -> None:
    rows = mined(imported)
    as_before(imported)
    said = sum(len(message["content"]) for message in talk)
    assert size(imported.spans) > 5 * said, "as it was"
    assert mined(imported) == rows
    assert journeyman("traces", "compact", "-C", imported.root).code == 0
    assert size(imported.spans) < 3 * said
    assert mined(imported) == rows
