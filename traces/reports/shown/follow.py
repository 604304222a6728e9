"""Following: the spans that runs in any process finish, as they finish them, and a line for a person about each."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from rich.text import Text

from journeyman.traces import attributes as a
from journeyman.traces.capture.log import SpanRecord, parse_line
from journeyman.traces.capture.texts import Texts
from journeyman.traces.files import regular
from journeyman.traces.reports.wording import count, duration, joined, line, shortened, status_text

HISTORY_BYTES = 2**18
"""Of each file that is there already, how much of its end is looked at."""


class Follower:
    """Reads on in the files of a span log, also those that come later. Segments hold nothing new: they are not read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._texts = Texts(directory)
        self._offsets: dict[Path, int] = {}
        self._known = self._files()

    def ended(self) -> list[SpanRecord]:
        """The spans since the last call in the order of their end; on the first call, the latest that were there."""
        spans = [span for path in self._files() for span in self._read(path)]
        return sorted(spans, key=lambda span: (span.end_ns, -span.start_ns))

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob("*.jsonl"))

    def _read(self, path: Path) -> Iterator[SpanRecord]:
        try:
            with regular(path).open("rb") as file:
                if path not in self._offsets:
                    self._offsets[path] = _recent(path) if path in self._known else 0
                file.seek(self._offsets[path])
                for row in file:
                    if not row.endswith(b"\n"):
                        break  # It is being written, or torn.
                    self._offsets[path] += len(row)
                    span, _ = parse_line(row, self._texts)
                    if span is not None:
                        yield span
        except FileNotFoundError:
            return  # Compacted meanwhile; what it held was closed, and seen.


def told(span: SpanRecord) -> Text | None:
    """One line: when, which run, who, what came of it; None for spans that say nothing by themselves."""
    what = _what(span)
    if what is None:
        return None
    ended = datetime.fromtimestamp(span.end_ns / 1e9).astimezone()
    who = " ".join(filter(None, [_text(span, a.AGENT_NAME), _text(span, a.ASSIGNMENT_ID)]))
    return Text.assemble(
        (f"{ended:%H:%M:%S} ", "dim"),
        (f"{span.trace_id[:8]} ", "cyan"),
        (f"{line(who) or 'run':<16} ", "bold" if _text(span, a.OPERATION) == "invoke_workflow" else ""),
        what,
    )


def _what(span: SpanRecord) -> Text | None:
    took = Text(duration((span.end_ns - span.start_ns) / 1e9), "dim")
    error = Text(_short(_text(span, a.ERROR)), "red")
    match _text(span, a.OPERATION):
        case "invoke_workflow":
            status = status_text(_text(span, a.STATUS) or "failed")
            return joined(
                Text("RUN ENDED", "bold"), status, took, error or Text(_short(_field(span, a.OUTCOME, "answer")))
            )
        case "invoke_agent":
            status = status_text(_text(span, a.STATUS) or "failed")
            return joined(Text("work ended"), status, took, error or Text(_short(_text(span, a.OUTPUT))))
        case "plan":
            return joined(Text("planned"), took, error)
        case "chat" | "generate_content" | "text_completion":
            used = f"{count(_number(span, a.OUTPUT_TOKENS), 'token')}"
            return joined(Text(_text(span, a.REQUEST_MODEL) or "model", "magenta"), took, used, error)
        case "execute_tool":
            call = f"{_text(span, a.TOOL_NAME)}({_short(_text(span, a.TOOL_CALL_ARGUMENTS))})"
            status = status_text(_text(span, a.TOOL_STATUS) or _text(span, a.ERROR_TYPE) or "failed")
            return joined(Text(call, "blue"), status, took, error)
        case _:
            return None


def _recent(path: Path) -> int:
    """Where the first whole line begins in the last part of a file."""
    start = max(0, path.stat().st_size - HISTORY_BYTES)
    if start == 0:
        return 0
    with path.open("rb") as file:
        file.seek(start)
        return start + len(file.readline())


def _text(span: SpanRecord, name: str) -> str | None:
    value = span.attributes.get(name)
    return value if isinstance(value, str) else None


def _number(span: SpanRecord, name: str) -> int:
    value = span.attributes.get(name)
    return value if isinstance(value, int) else 0


def _field(span: SpanRecord, name: str, field: str) -> str | None:
    try:
        value = json.loads(_text(span, name) or "{}").get(field)
    except (ValueError, AttributeError):
        return None
    return value if isinstance(value, str) else None


def _short(text: str | None) -> str:
    return shortened(line(text or ""))
