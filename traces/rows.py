"""A file of rows: JSON lines that any number of processes append, durably, all of a batch or none of it."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from journeyman.traces.capture.texts import sync_folder


class RowFile:
    """An append-only file; only `rewrite` takes rows away. `OSError` travels: the owner knows what its rows are."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, rows: bytes) -> None:
        """Adds whole lines after what is there; on return they are on the disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked() as file:
            _append(file, rows)

    def __iter__(self) -> Iterator[bytes]:
        """Every line as it is, also one that a crash tore."""
        with suppress(FileNotFoundError), self.path.open("rb") as file:
            yield from file

    def rewrite(self, keep: Callable[[bytes], bool]) -> int:
        """Takes away the lines that are not to be kept, and says how many; a crash leaves the old file or the new."""
        if not self.path.exists():
            return 0
        with self._locked():
            lines = list(self)
            kept = [line for line in lines if keep(line)]
            if len(kept) < len(lines):
                self._replace(b"".join(kept))
        return len(lines) - len(kept)

    def _replace(self, contents: bytes) -> None:
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with partial.open("wb") as file:
                file.write(contents)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
        sync_folder(self.path.parent)

    @contextmanager
    def _locked(self) -> Iterator[FileIO]:
        """The file under its writers' lock; anew where a rewrite put another file in its place meanwhile."""
        while True:
            fresh = not self.path.exists()
            with self.path.open("a+b", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if not self._is_current(file):
                    continue
                if fresh:
                    sync_folder(self.path.parent)
                yield file
                return

    def _is_current(self, file: FileIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False


def _append(file: FileIO, rows: bytes) -> None:
    """Appends after a row that a crash tore on a line of its own."""
    end = file.seek(0, os.SEEK_END)
    if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
        rows = b"\n" + rows
    try:
        rest = memoryview(rows)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(end)
        raise
