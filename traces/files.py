"""Files that survive: written whole, grown row by row, and locked by the kernel.

"Durable" means on the disk, name and contents, so that neither a kill nor a power cut takes it back. `OSError` travels:
the caller knows what its file is.
"""

import errno
import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from io import BufferedWriter, FileIO
from pathlib import Path
from typing import IO

PARTIAL = ".partial"
"""How the hidden name ends under which a file is written."""


def regular(path: Path) -> Path:
    """The path, to be opened; raises `OSError` for a pipe or a device, on which a reader may wait for ever."""
    kind = path.stat().st_mode
    if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # A folder has an error of its own.
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    return path


def write_whole(path: Path, contents: bytes | str) -> None:
    """Replaces the file, or makes it; durable on return. A kill leaves the old contents or the new ones."""
    with whole_file(path) as file:
        file.write(contents.encode() if isinstance(contents, str) else contents)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """The same for contents that the block writes bit by bit; where it raises, the old file stays.

    A replaced file passes on its permissions. Writers of one path wait for each other. A kill may leave the hidden
    `.NAME.partial` beside the file, which nobody holds (`is_closed`) and the next writer of that path takes over.
    """
    make_folder(path.parent)
    hidden = path.with_name(f".{path.name}{PARTIAL}")
    with BufferedWriter(lock(hidden)) as file:
        if file.tell():
            file.truncate(file.seek(0))
        try:
            yield file
            file.flush()
            with suppress(FileNotFoundError):
                hidden.chmod(path.stat().st_mode & 0o777)
            publish(hidden, path)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise


def publish(draft: Path, path: Path) -> None:
    """Gives a finished file, or a folder of files, its name; durable on return. A kill leaves it under one of both."""
    for part in (*draft.rglob("*"), draft):
        sync(part)
    draft.replace(path)
    sync(path.parent)


def make_folder(folder: Path) -> None:
    """Makes the folder and those above it, durably, where they are missing."""
    if not folder.exists():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def sync(path: Path) -> None:
    """Makes what a file holds durable, or the names in a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class RowFile:
    """A file of JSON lines that any number of processes append to; only `rewrite` takes rows away."""

    def __init__(self, path: Path, *, mode: int = 0o666) -> None:
        self.path = path
        self._mode = mode

    def append(self, rows: bytes) -> None:
        """Adds whole lines, durably; where the disk refuses, none of them. A kill leaves the first ones, or a part of
        the next one, which the next append cuts off."""
        with self.writing() as append:
            append(rows)

    @contextmanager
    def writing(self) -> Iterator[Callable[[bytes], None]]:
        """`append`, while other writers wait: what the block reads is still so when it appends."""
        make_folder(self.path.parent)
        with lock(self.path, mode=self._mode) as file:
            yield partial(append_rows, file)

    def __iter__(self) -> Iterator[bytes]:
        """Every line as it is, also a last one that `is_torn`, by a kill or because it is being written."""
        with suppress(FileNotFoundError), regular(self.path).open("rb") as file:
            yield from file

    def rewrite(self, keep: Callable[[bytes], bool]) -> int:
        """Takes away the lines that are not to be kept, and says how many; a kill leaves the old file or the new."""
        if not self.path.exists():
            return 0
        with self.writing():
            lines = list(self)
            kept = [line for line in lines if keep(line)]
            if len(kept) < len(lines):
                write_whole(self.path, b"".join(kept))
        return len(lines) - len(kept)


def append_rows(file: FileIO, rows: bytes) -> None:
    """What `RowFile.append` does, to a file that the caller has locked; without rows it mends the end."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        sync(Path(file.name).parent)
    elif os.pread(file.fileno(), 1, end - 1) != b"\n":
        start = _last_line(file, end)
        if is_torn(os.pread(file.fileno(), end - start, start)):
            end = file.truncate(start)
        else:
            rows = b"\n" + rows
    if not rows:
        return
    try:
        rest = memoryview(rows)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())
    except OSError:
        with suppress(OSError):
            file.truncate(end)
        raise


def lock(path: Path, *, mode: int = 0o666) -> FileIO:
    """The file, made where it is missing and open to read and append, under a lock that whoever else wants it waits
    for. Closing lets go of it, and so does any end of the process."""
    file = _lock(path, "a+b", mode, 0)
    assert file is not None
    return file


def try_lock(path: Path, *, mode: int = 0o666) -> FileIO | None:
    """The same without waiting: None where another holds it."""
    return _lock(path, "a+b", mode, fcntl.LOCK_NB)


def lock_closed(path: Path) -> FileIO | None:
    """The file, open to read, under its lock; None where it is not there, or another holds it."""
    try:
        return _lock(regular(path), "rb", 0, fcntl.LOCK_NB)
    except FileNotFoundError:
        return None


def is_closed(path: Path) -> bool:
    """Whether the file is there, and nobody holds its lock."""
    with lock_closed(path) or nullcontext() as file:
        return file is not None


def _lock(path: Path, how: str, mode: int, flags: int) -> FileIO | None:
    while True:
        file = FileIO(path, how, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK, mode))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | flags)
            # Whoever held it may have removed or replaced the file meanwhile, and a lock on that keeps nobody out.
            if os.path.samestat(os.fstat(file.fileno()), regular(path).stat()):
                return file
        except FileNotFoundError:
            pass
        except BlockingIOError:
            file.close()
            return None
        except BaseException:
            file.close()
            raise
        file.close()


def is_torn(line: bytes) -> bool:
    """Whether a kill cut the line short; one that lacks only its newline, as an editor may leave it, is whole."""
    try:
        json.loads(line)
    except ValueError:
        return not line.endswith(b"\n")
    return False


def _last_line(file: FileIO, end: int) -> int:
    """Where the line that ends at `end` begins."""
    return os.pread(file.fileno(), end, 0).rfind(b"\n") + 1
