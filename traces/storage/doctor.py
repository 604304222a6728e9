"""The record's doctor: reads everything against its checksums, and says what is damaged, missing or left over."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from time import time

from journeyman.traces.base import Record
from journeyman.traces.capture.log import Damage, LogReader
from journeyman.traces.errors import StoreError
from journeyman.traces.files import is_closed
from journeyman.traces.storage.columns import REPEATED
from journeyman.traces.storage.compact import sole_compactor
from journeyman.traces.storage.layout import Progress
from journeyman.traces.storage.segment_file import NEWER
from journeyman.traces.storage.segments import Segments, Snapshot


class Health(Record):
    """How the record is."""

    files: int
    """Log files."""
    live: int
    """Those of them that a process is writing."""
    file_bytes: int
    segments: int
    """Segments that are whole."""
    segment_bytes: int
    spans: int
    """Spans that can be read."""
    damage: Damage
    corrupt: Mapping[str, str]
    """Segments that cannot be read, and why."""
    superseded: int
    """Segments that another one replaces; the next compaction deletes them."""
    partials: tuple[str, ...]
    """Files that writers left unfinished when they died."""
    texts: int
    """Large texts that are kept once."""
    orphans: tuple[str, ...]
    """Digests of texts that no span refers to, where that is certain."""
    aside: int
    """Files in `damaged/`, which a repair or a compaction put there."""
    repaired: tuple[str, ...] = ()
    """What a repair did."""


def examine(spans: Path, segments: Segments, *, repair: bool = False, progress: Progress | None = None) -> Health:
    """Reads the whole record; `repair` sets corrupt segments aside and removes what nobody needs.

    Raises `StoreError` for a repair while a compaction is at work.
    """
    tell = progress or (lambda what, done, total: None)
    if not repair or not spans.exists():
        return _examine(spans, segments, tell)
    with sole_compactor(spans) as origin:
        if origin is None:
            raise StoreError(f"a compaction is at work in {spans}: repair when it has ended")
        began = time()
        done = tuple(_repair(_examine(spans, segments, tell), segments, began))
        return _examine(spans, segments, tell).model_copy(update={"repaired": done})


def _examine(spans: Path, segments: Segments, tell: Progress) -> Health:
    snapshot = segments.snapshot(spans)
    # Before anything is read: a process that begins to write after this makes sure of its texts anew.
    live = sum(not is_closed(path) for path in snapshot.files)
    texts = set(segments.texts)
    in_files, used_by_files, damage = _read_files(spans, snapshot, tell)
    in_segments, used_by_segments = _read_segments(segments, snapshot, tell)
    missing = damage.texts + len(used_by_segments - texts)
    corrupt = segments.snapshot().damaged
    whole = [segment for segment in snapshot.segments if segment.path not in corrupt]
    aside = segments.aside()
    # What cannot be read may refer to any text, and object storage may be shared with another workspace.
    sure = segments.local and not live and not corrupt and not any(name.endswith(".parquet") for name in aside)
    return Health(
        files=len(snapshot.files),
        live=live,
        file_bytes=sum(path.stat().st_size for path in snapshot.files if path.exists()),
        segments=len(whole),
        segment_bytes=sum(segment.size for segment in whole),
        spans=in_files + in_segments,
        damage=damage.model_copy(update={"segments": len(corrupt), "texts": missing}),
        corrupt=corrupt,
        superseded=len(snapshot.superseded),
        partials=tuple(map(str, segments.partials())),
        texts=len(texts),
        orphans=tuple(sorted(texts - used_by_files - used_by_segments)) if sure else (),
        aside=len(aside),
    )


def _read_files(spans: Path, snapshot: Snapshot, tell: Progress) -> tuple[int, set[str], Damage]:
    """How many spans there are, the digests of their texts, and the damage."""
    count, used = 0, set()
    reader = LogReader(spans, replaced=snapshot.replaced, whole=False)
    for done, path in enumerate(snapshot.files):
        tell("log files", done, len(snapshot.files))
        with suppress(FileNotFoundError):
            for span in reader.scan_file(path):
                count += 1
                texts = (span.attributes.get(name) for name in REPEATED.values())
                used |= {sha256(text.encode("utf-8", "replace")).hexdigest() for text in texts if isinstance(text, str)}
    tell("log files", len(snapshot.files), len(snapshot.files))
    return count, used, reader.damage


def _read_segments(segments: Segments, snapshot: Snapshot, tell: Progress) -> tuple[int, set[str]]:
    count, used = 0, set()
    for done, segment in enumerate(snapshot.segments):
        tell("segments", done, len(snapshot.segments))
        with suppress(StoreError, FileNotFoundError):
            for group in segments.groups(segment.path):
                count += group.num_rows
                used |= {digest for name in REPEATED for digest in group[name].unique().to_pylist() if digest}
    tell("segments", len(snapshot.segments), len(snapshot.segments))
    return count, used


def _repair(found: Health, segments: Segments, began: float) -> Iterator[str]:
    for path, why in found.corrupt.items():
        if why != NEWER:
            yield f"set aside {segments.set_aside(path)}: {why}"
    for partial in found.partials:
        Path(partial).unlink(missing_ok=True)
        yield f"removed {partial}: its writer died"
    removed = sum(segments.texts.remove(digest, unused_since=began) for digest in found.orphans)
    if removed:
        yield f"removed {removed} texts that no span refers to"
