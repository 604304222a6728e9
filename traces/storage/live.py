"""Live files: the span log that no segment covers yet, as Arrow; a file that has grown is read from where it ended."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import pyarrow as pa

from journeyman.traces.capture.log import SpanRecord, parse_line, utc_day
from journeyman.traces.capture.texts import Texts
from journeyman.traces.files import regular
from journeyman.traces.storage.columns import SCHEMA, to_table

FLAWS = ("torn", "corrupt", "refused", "texts")

_NOTHING = pa.Table.from_batches([], schema=SCHEMA)


class LiveFiles:
    """The files of one folder, as far as they were read."""

    def __init__(self, folder: Path) -> None:
        self.texts: dict[str, str] = {}
        """By digest, what the tables name."""
        self._texts = Texts(folder)
        self._parts: dict[tuple[Path, frozenset[str]], _Part] = {}

    def table(self, files: Collection[Path], replaced: Mapping[str, Collection[str]]) -> tuple[pa.Table, bool]:
        """All spans of `files` that lie in no segment, and whether it differs from what the last call gave.

        `replaced` names files and the days for which a segment has their spans. Raises `FileNotFoundError` where a
        file vanished: a segment has its spans by now.
        """
        wanted = {(path, frozenset(replaced.get(path.name, ()))) for path in files}
        changed = wanted != self._parts.keys()
        self._parts = {key: self._parts.get(key) or _Part() for key in sorted(wanted, key=lambda key: key[0])}
        for (path, days), part in self._parts.items():
            changed |= self._read(path, days, part)
        tables = [table for part in self._parts.values() for table in part.tables]
        return pa.concat_tables([_NOTHING, *tables]), changed

    def flaws(self) -> dict[str, int]:
        """Records that the last call left out, or read without a text, by kind."""
        return {flaw: sum(part.flaws.get(flaw, 0) for part in self._parts.values()) for flaw in FLAWS}

    def _read(self, path: Path, days: frozenset[str], part: "_Part") -> bool:
        if path.stat().st_size == part.read_to + len(part.tail):
            return False
        with regular(path).open("rb") as file:
            file.seek(part.read_to)
            lines = list(file)
        spans = [span for span in self._spans(lines, part) if not (days and utc_day(span.start_ns) in days)]
        if spans:
            part.tables.append(to_table(spans, self.texts))
        return True

    def _spans(self, lines: list[bytes], part: "_Part") -> Iterator[SpanRecord]:
        part.flaws.pop("torn", None)
        part.tail = b""
        for line in lines:
            span, flaw = parse_line(line, self._texts)
            if flaw == "torn":
                part.tail = line
            else:
                part.read_to += len(line)
            if flaw and line != b"\n":  # An empty line ends a torn record.
                part.flaws[flaw] = part.flaws.get(flaw, 0) + 1
            if span is not None:
                yield span


class _Part:
    """What is known of one file."""

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []
        self.flaws: dict[str, int] = {}
        self.read_to = 0
        """Bytes, up to the end of the last whole record."""
        self.tail = b""
        """A record after that, torn or being written."""
