"""The database: DuckDB in memory over segments, live files and labels as they are at the moment of each question.

Nothing of it is on the disk or shared between processes; it can read the segments, and can write nowhere.
"""

import os
import tempfile
from collections import ChainMap, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import RLock
from typing import Any

import duckdb
import pyarrow as pa

from journeyman.traces.capture.log import Damage
from journeyman.traces.capture.texts import filesystem_of
from journeyman.traces.errors import ConfigError, StoreError
from journeyman.traces.labels import Label, LabelLog, newest
from journeyman.traces.storage.arrays import to_array
from journeyman.traces.storage.conditions import value_text
from journeyman.traces.storage.live import LiveFiles
from journeyman.traces.storage.relations import RELATIONS, SPANS, SPANS_LESS_DELETED, literal, one_file, recorded
from journeyman.traces.storage.segments import Segments, Snapshot
from journeyman.traces.tombstones import Tombstones

CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")

MEMORY_SHARE = 0.25
"""Of the machine's memory, DuckDB may take so much unless told otherwise."""

ATTEMPTS = 8
"""How often a question is asked again when compaction takes its files away meanwhile."""

LABELS = pa.schema(
    {
        "trace_id": pa.string(),
        "span_id": pa.string(),
        "name": pa.string(),
        "source": pa.string(),
        "source_type": pa.string(),
        "version": pa.int64(),
        "value": pa.string(),
        "number": pa.float64(),
        "comment": pa.string(),
        "at_ns": pa.int64(),
    }
)
"""Columns of `labels`: the value as text, and as a number where it is one, true counting as 1."""


def machine_memory() -> int:
    """Bytes that this machine has, or this container may use."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError, ValueError):  # No such file, or `max`.
        sizes.append(int(CONTAINER_LIMIT.read_text()))
    return min(sizes)


class Database:
    """One connection; threads may share it and wait for each other."""

    def __init__(self, spans: Path, labels: Path, segments: str | None, memory_mb: float | None = None) -> None:
        self._memory_mb = memory_mb or machine_memory() * MEMORY_SHARE / 1e6
        self._spans = spans
        self._root = spans if segments is None else segments
        self._segments = Segments(self._root)
        self._live = LiveFiles(spans)
        self._tombstones = Tombstones(spans)
        self._label_log = LabelLog(labels)
        self._label_path = labels
        self._lock = RLock()
        self._seen: dict[str, object] = {}
        self._damaged_segments = 0
        self._live_spans = 0
        self.labels: Mapping[str, Sequence[Label]] = {}
        """By trace id."""
        self.texts: Mapping[str, str] = ChainMap(self._live.texts, self._segments.texts)
        """Large repeated texts by digest."""
        self._connection = self._connect()

    @property
    def damage(self) -> Damage:
        """What the last question had to do without."""
        return Damage(**self._live.flaws(), segments=self._damaged_segments, labels=self._label_log.damaged)

    def ask(self, sql: str, parameters: Sequence[Any] = (), **tables: pa.Table) -> pa.Table:
        """The rows of a query, over the views of `relations` and over `tables`, which exist for this query only.

        Raises `StoreError` where files cannot be read, `ConfigError` in DuckDB's words for a query that it refuses.
        """
        with self._lock:
            for _ in range(ATTEMPTS):
                self._refresh()
                try:
                    return self._execute(sql, parameters, tables)
                except (duckdb.Error, OSError) as error:
                    refused = error
                if not self._has_moved_on(refused):
                    break
        raise _explained(refused) from refused

    def check_is_question(self, sql: str) -> None:
        """Raises `ConfigError` unless `sql` is one statement that only reads."""
        try:
            statements = self._connection.extract_statements(sql)
        except duckdb.Error as error:
            raise _explained(error) from error
        if len(statements) != 1 or statements[0].type is not duckdb.StatementType.SELECT:
            raise ConfigError("one SELECT can be asked, nothing else: a query never changes the record")

    def _connect(self) -> duckdb.DuckDBPyConnection:
        filesystem, path = filesystem_of(self._root)
        connection = duckdb.connect(":memory:")
        if not self._segments.local:
            connection.register_filesystem(filesystem)
        root = path if self._segments.local else filesystem.unstrip_protocol(path)
        settings: dict[str, bool | str | list[str]] = {
            # Also as it is asked for: what names a folder and looks like a pattern goes to DuckDB in brackets.
            "allowed_directories": [root, one_file(root)],
            "temp_directory": str(Path(tempfile.gettempdir()) / f"journeyman-{os.getpid()}-{id(self):x}"),
            "memory_limit": f"{self._memory_mb:.0f}MB",
            "parquet_metadata_cache": True,
            "preserve_insertion_order": False,
            "python_enable_replacements": False,
            "autoload_known_extensions": False,
            "enable_external_access": False,
            "lock_configuration": True,
        }
        for name, value in settings.items():
            connection.execute(f"SET {name} = {literal(value)}")
        return connection

    def _execute(self, sql: str, parameters: Sequence[Any], tables: Mapping[str, pa.Table]) -> pa.Table:
        for name, table in tables.items():
            self._connection.register(name, table)
        try:
            relation = self._connection.sql(sql, params=list(parameters))
            return pa.table({}) if relation is None else relation.to_arrow_table()
        finally:
            for name in tables:
                self._connection.unregister(name)

    def _refresh(self) -> None:
        """Brings the views to what is on the disk now; raises `StoreError` where that can't be read."""
        try:
            self._bring_up()
        except (duckdb.Error, OSError) as error:
            self._seen.clear()
            raise StoreError(f"the record cannot be read: {_in_short(error)}") from error

    def _bring_up(self) -> None:
        snapshot, live = self._read_files()
        self._damaged_segments = len(snapshot.damaged)
        urls: dict[frozenset[str], list[str]] = defaultdict(list)
        for segment in snapshot.segments:
            url = segment.path if self._segments.local else self._segments.filesystem.unstrip_protocol(segment.path)
            urls[segment.columns].append(url)
        new = not self._seen
        if live is not None:
            self._connection.register("live", live)
            self._live_spans = len(live)
        if self._sees("segments", (urls, self._live_spans > 0)):
            self._connection.execute(recorded(urls, self._live_spans > 0))
        deleted = self._tombstones.trace_ids()
        if self._sees("deleted", deleted):
            self._connection.register("deleted", pa.table({"trace_id": to_array(sorted(deleted), pa.string())}))
            self._connection.execute(SPANS_LESS_DELETED if deleted else SPANS)
        if self._sees("labels", (_state(self._label_path), deleted)):
            self._read_labels()
        if new:
            for relation in RELATIONS:
                self._connection.execute(relation)

    def _read_files(self) -> tuple[Snapshot, pa.Table | None]:
        """What there is, and the spans of the live files, None where they are the same as before."""
        for _ in range(ATTEMPTS):
            snapshot = self._segments.snapshot(self._spans)
            try:
                table, changed = self._live.table(snapshot.files, snapshot.replaced)
            except FileNotFoundError:
                continue  # Compacted since it was listed.
            return snapshot, table if changed or not self._seen else None
        raise StoreError(
            f"the files of {self._spans} vanish faster than they can be read: try again after the deletion"
        )

    def _read_labels(self) -> None:
        by_trace: dict[str, list[Label]] = defaultdict(list)
        deleted = self._tombstones.trace_ids()
        rows = newest(label for label in self._label_log if label.trace_id not in deleted)
        for label in rows:
            by_trace[label.trace_id].append(label)
        self.labels = dict(by_trace)
        columns = {name: [getattr(label, name, None) for label in rows] for name in LABELS.names}
        columns["value"] = [value_text(label.value) for label in rows]
        columns["number"] = [None if isinstance(label.value, str) else float(label.value) for label in rows]
        arrays = [to_array(columns[field.name], field.type) for field in LABELS]
        self._connection.register("labels", pa.Table.from_arrays(arrays, schema=LABELS))

    def _sees(self, what: str, state: object) -> bool:
        """Whether that is another state than the last time."""
        before = self._seen.get(what, _NEVER)
        self._seen[what] = state
        return before != state

    def _has_moved_on(self, error: Exception) -> bool:
        """Whether asking again may help: files were compacted meanwhile, or one turns out to be corrupt."""
        if isinstance(error, _ASKED_WRONGLY) and not isinstance(error, duckdb.InvalidInputException):
            return False
        before = self._seen["segments"]
        self._refresh()
        if self._seen["segments"] == before:
            self._segments.check()
            self._refresh()
        return self._seen["segments"] != before


_NEVER = object()
_ASKED_WRONGLY = (duckdb.ProgrammingError, duckdb.DataError, duckdb.PermissionException)


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _in_short(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(line.strip() for line in str(error).split("\n\nLINE")[0].splitlines() if line.strip())


def _explained(error: Exception) -> StoreError | ConfigError:
    """In one line, without the picture of the query that DuckDB draws."""
    said = _in_short(error)
    if isinstance(error, _ASKED_WRONGLY):
        return ConfigError(said)
    return StoreError(f"the record cannot be read: {said}")
