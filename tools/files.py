"""Files: text files within one folder, to list, read and search, and to write where that is asked for.

What it protects from: a path never leads out of the folder. Each part of a path is opened relative to the one before
and without following links (`openat` with `O_NOFOLLOW`), so `..`, absolute paths, symbolic links, and a folder that is
swapped for a link between check and use all end in an error. Devices, pipes and sockets are not opened. Sizes are
limited. Writing replaces a file in one step: a reader sees the old text or the new one. Its mode stays as it was.

What it does not: hard links are files like any other, so a link made from outside shows what it is linked to. Whatever
lies in the folder can be read, hidden files too, except `.git`. There is no limit on how many files are written.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from uuid import uuid4

from journeyman.tools.tool import Count, Tool
from journeyman.traces.errors import ConfigError, ToolError

HIDDEN = frozenset({".git"})
MAX_LISTED = 500
MAX_MATCHES = 50
MAX_LINE_CHARS = 300
MAX_SEARCHED = 5_000
"""Files that one search looks into."""
FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def files(path: Path, *, write: bool = False, max_bytes: Count = 1_000_000) -> tuple[Tool, ...]:
    """The tools `list`, `read` and `search` over the folder at `path`, and with `write=True` also `write`.

    `read` takes a range of lines, so that a long file can be read in parts. A crew gives them the folder's name:
    `toolbox("notes", files(Path("notes")))`.

    - `path`: the folder; nothing outside of it is read or written.
    - `write`: whether there is a tool that writes.
    - `max_bytes`: a larger file is neither read nor written.
    """
    if not Path(path).is_dir():
        raise ConfigError(f"{path} is not a folder: name one")
    folder = _Folder(Path(path).resolve(), max_bytes)

    def list_(path: str = ".") -> str:
        """Lists the files under a folder, with their sizes in bytes."""
        found = [f"{where} {size}" for where, size in folder.walk(path, MAX_LISTED + 1)]
        if len(found) > MAX_LISTED:
            found[MAX_LISTED:] = [f"[the first {MAX_LISTED} files; list a folder within]"]
        return "\n".join(found) or "no files"

    def read(path: str, first: int = 1, last: int | None = None) -> str:
        """Reads a text file; first and last are line numbers."""
        lines = folder.read(path).splitlines()
        if first < 1 or first > max(len(lines), 1):
            raise ToolError(f"{path} has {len(lines)} lines; first={first} is none of them")
        if last is not None and last < first:
            raise ToolError(f"last={last} comes before first={first}")
        return "\n".join(lines[first - 1 : last])

    def search(text: str, path: str = ".") -> str:
        """Finds the lines that contain a text, upper and lower case alike; each as path:line: text."""
        found: list[str] = []
        for where, number, line in folder.search(text, path):
            if len(found) == MAX_MATCHES:
                return "\n".join([*found, f"[the first {MAX_MATCHES} lines; there are more]"])
            found.append(f"{where}:{number}: {line[:MAX_LINE_CHARS]}")
        return "\n".join(found) or "nothing found"

    def write_(path: str, text: str) -> str:
        """Writes a text file, in place of the one that is there; folders on the way are made."""
        folder.write(path, text)
        return f"wrote {len(text.encode()):,} bytes to {path}"

    tools = (Tool(list_, name="list"), Tool(read), Tool(search))
    return (*tools, Tool(write_, name="write", writes=True, idempotent=True)) if write else tools


class _Folder:
    def __init__(self, root: Path, max_bytes: int) -> None:
        self._root = root
        self._max_bytes = max_bytes

    def read(self, path: str) -> str:
        *folders, name = _parts(path) or [""]
        if not name:
            raise ToolError(f"{path!r} is a folder; list it, or read a file in it")
        with self._descend(folders, path) as above:
            return self._text(above, name, path)

    def walk(self, path: str, limit: int) -> Iterator[tuple[str, int]]:
        """Paths and sizes of the regular files under `path`, in order, at most `limit`."""
        left = limit
        top = _parts(path)
        pending = [(top, self._entries(top, path))]
        while pending:
            parts, entries = pending.pop()
            folders = []
            for name, found in entries:
                below = [*parts, name]
                if stat.S_ISDIR(found.st_mode):
                    folders.append(below)
                elif stat.S_ISREG(found.st_mode):
                    yield "/".join(below), found.st_size
                    left -= 1
                    if not left:
                        return
            for below in reversed(folders):
                with suppress(ToolError):  # It has gone meanwhile, or may not be read.
                    pending.append((below, self._entries(below, path)))

    def search(self, text: str, path: str) -> Iterator[tuple[str, int, str]]:
        if not text.strip():
            raise ToolError("the text to search for is empty")
        wanted = re.compile(re.escape(text), re.IGNORECASE)
        for where, size in self.walk(path, MAX_SEARCHED):
            if size > self._max_bytes:
                continue
            with suppress(ToolError):  # What is no text, or has gone meanwhile, holds no match.
                lines = self.read(where).splitlines()
                yield from ((where, number, line) for number, line in enumerate(lines, 1) if wanted.search(line))

    def write(self, path: str, text: str) -> None:
        content = text.encode()
        if len(content) > self._max_bytes:
            raise ToolError(f"the text has {len(content):,} bytes; write at most {self._max_bytes:,}")
        *folders, name = _parts(path) or [""]
        if not name:
            raise ToolError(f"{path!r} is a folder; name a file")
        with self._descend(folders, path, make=True) as above:
            there = _lstat(above, name)
            if there is not None and not stat.S_ISREG(there.st_mode):
                raise ToolError(f"{path!r} is not a regular file, and is left as it is")
            # Not `traces.files`: that goes by path, over the links on it; this goes by the open folder.
            draft = f".{uuid4().hex}"
            mode = 0o644 if there is None else there.st_mode & 0o777
            try:
                with os.fdopen(os.open(draft, NEW, mode & 0o644, dir_fd=above), "wb") as file:
                    if there is not None:
                        os.fchmod(file.fileno(), mode)
                    file.write(content)
                    os.fsync(file.fileno())
                os.replace(draft, name, src_dir_fd=above, dst_dir_fd=above)
            except OSError as error:
                with suppress(OSError):
                    os.unlink(draft, dir_fd=above)
                raise ToolError(f"{path!r} cannot be written: {error.strerror}") from None

    def _entries(self, parts: list[str], path: str) -> list[tuple[str, os.stat_result]]:
        with self._descend(parts, path) as here, os.scandir(here) as entries:
            names = sorted(entry.name for entry in entries if entry.name not in HIDDEN)
            return [(name, found) for name in names if (found := _lstat(here, name)) is not None]

    def _text(self, above: int, name: str, path: str) -> str:
        try:
            # Without O_NONBLOCK, opening a named pipe would wait for its other end.
            opened = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
        except OSError as error:
            raise ToolError(f"{path!r} cannot be read: {_reason(error)}") from None
        found = os.fstat(opened)
        if not stat.S_ISREG(found.st_mode):
            os.close(opened)
            raise ToolError(f"{path!r} is not a regular file")
        with os.fdopen(opened, "rb") as file:
            content = file.read(self._max_bytes + 1)
        if len(content) > self._max_bytes:
            raise ToolError(f"{path!r} has {found.st_size:,} bytes; at most {self._max_bytes:,} are read")
        try:
            if b"\0" not in content:
                return content.decode()
        except UnicodeDecodeError:
            pass
        raise ToolError(f"{path!r} is not UTF-8 text")

    @contextmanager
    def _descend(self, parts: list[str], path: str, *, make: bool = False) -> Iterator[int]:
        """The open folder that `parts` lead to, one step at a time, no step over a link."""
        here = os.open(self._root, FOLDER)
        try:
            for part in parts:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=here)
                below = os.open(part, FOLDER, dir_fd=here)
                os.close(here)
                here = below
        except OSError as error:
            os.close(here)
            raise ToolError(f"{path!r} cannot be opened: {_reason(error)}") from None
        try:
            yield here
        finally:
            os.close(here)


def _parts(path: str) -> list[str]:
    """The steps of a path within the folder, none for the folder itself."""
    pure = PurePosixPath(path.strip() or ".")
    if pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise ToolError(f"{path!r} leads out of the folder; write a path within it, such as notes/today.md")
    if HIDDEN.intersection(pure.parts):
        raise ToolError(f"{path!r} is not for reading or writing")
    return list(pure.parts)


def _lstat(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None


def _reason(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.ENOTDIR):
        return "there is a link or no folder on the way"
    return error.strerror or str(error)
