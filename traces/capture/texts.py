"""Texts: what many spans repeat word for word, such as system instructions and tool schemas, kept once, by SHA-256."""

import os
import re
import secrets
from collections.abc import Iterator, MutableMapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from time import time
from typing import TYPE_CHECKING, Protocol

from journeyman.traces import attributes as a
from journeyman.traces.errors import ConfigError
from journeyman.traces.files import PARTIAL, regular, write_whole

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

REPEATED = (a.SYSTEM_INSTRUCTIONS, a.TOOL_DEFINITIONS)
"""Attributes whose text is kept once."""

LARGE = 256
"""Texts of fewer bytes stay where they are: a digest alone has 64."""

_REMEMBERED = 512
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def is_large(text: str) -> bool:
    """Whether a text is worth a file of its own; half a surrogate pair has no UTF-8 form, so no digest either."""
    return len(text) >= LARGE and (text.isascii() or not _HALF_PAIR.search(text))


class Texts(MutableMapping[str, str]):
    """Texts by digest, in `texts/` of `root`: a folder, or an fsspec URL. A text is durable once it is set."""

    def __init__(self, root: str | Path) -> None:
        self._files = files_of(root, "texts")
        self._remembered: dict[str, str] = {}
        self._kept: set[str] = set()
        self._digests: dict[str, str] = {}

    def keep(self, text: str) -> str:
        """Keeps the text durably if it is new; gives its digest."""
        digest = self._digests.get(text)
        if digest is None:
            digest = sha256(text.encode()).hexdigest()
            self[digest] = text
            _remember(self._digests, text, digest)
        return digest

    def __setitem__(self, digest: str, text: str) -> None:
        if digest not in self._kept:
            self._files.write(digest, text.encode())
            self._kept.add(digest)

    def setdefault(self, digest: str, default: str = "") -> str:
        """Keeps the text, as `keep` does, without reading the one that may be there."""
        self[digest] = default
        return default

    def __getitem__(self, digest: str) -> str:
        """Raises `KeyError` where the text is missing, or is not what its digest says."""
        text = self._remembered.get(digest)
        if text is None:
            try:
                content = self._files.read(digest)
            except FileNotFoundError:
                raise KeyError(digest) from None
            if sha256(content).hexdigest() != digest:
                raise KeyError(digest)
            text = content.decode()
            _remember(self._remembered, digest, text)
        return text

    def __contains__(self, digest: object) -> bool:
        return digest in self._kept or super().__contains__(digest)

    def __delitem__(self, digest: str) -> None:
        if not self.remove(digest, unused_since=time()):
            raise KeyError(digest)

    def remove(self, digest: str, *, unused_since: float) -> bool:
        """Deletes a text, unless somebody kept it again since that time (seconds since 1970)."""
        self._kept.discard(digest)
        self._remembered.pop(digest, None)
        self._digests.clear()
        return self._files.remove(digest, unused_since)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files.names())

    def __len__(self) -> int:
        return len(self._files.names())


class Files(Protocol):
    """Whole files of one folder, by name."""

    def write(self, name: str, content: bytes) -> None:
        """Durable and whole, or not there at all."""

    def read(self, name: str) -> bytes: ...
    def remove(self, name: str, unused_since: float) -> bool:
        """False if it is not there, or was written again since that time (seconds since 1970; local folders only)."""

    def names(self) -> list[str]: ...


def files_of(root: str | Path, folder: str) -> Files:
    if is_local(root):
        return _LocalFiles(local_path(root) / folder)
    filesystem, path = filesystem_of(root)
    return _RemoteFiles(filesystem, f"{path}/{folder}")


def is_local(root: str | Path) -> bool:
    return isinstance(root, Path) or "://" not in root or root.startswith("file://")


def local_path(root: str | Path) -> Path:
    return Path(str(root).removeprefix("file://"))


def filesystem_of(root: str | Path) -> tuple["AbstractFileSystem", str]:
    """The fsspec file system of a folder or URL, and the path in it; credentials come from the environment."""
    from fsspec.core import url_to_fs

    try:
        # Other processes write there too: what was listed before says nothing.
        filesystem, path = url_to_fs(str(root), use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise ConfigError(f"segments {root!r} cannot be opened: {error}") from None
    return filesystem, path.rstrip("/")


class _LocalFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, name: str, content: bytes) -> None:
        path = self._folder / name
        with suppress(FileNotFoundError):
            os.utime(path)  # Says to `remove` that somebody counts on it.
            return
        write_whole(path, content)

    def read(self, name: str) -> bytes:
        return regular(self._folder / name).read_bytes()

    def remove(self, name: str, unused_since: float) -> bool:
        path, hidden = self._folder / name, self._folder / f".{name}.{secrets.token_hex(4)}{PARTIAL}"
        try:
            path.rename(hidden)
        except FileNotFoundError:
            return False
        if hidden.stat().st_mtime >= unused_since:
            hidden.rename(path)
            return False
        hidden.unlink()
        return True

    def names(self) -> list[str]:
        return sorted(path.name for path in self._folder.glob("[!.]*"))


class _RemoteFiles:
    def __init__(self, filesystem: "AbstractFileSystem", folder: str) -> None:
        self._filesystem = filesystem
        self._folder = folder

    def write(self, name: str, content: bytes) -> None:
        if not self._filesystem.exists(f"{self._folder}/{name}"):
            self._filesystem.pipe_file(f"{self._folder}/{name}", content)

    def read(self, name: str) -> bytes:
        content: bytes = self._filesystem.cat_file(f"{self._folder}/{name}")
        return content

    def remove(self, name: str, unused_since: float) -> bool:
        self._filesystem.rm_file(f"{self._folder}/{name}")
        return True

    def names(self) -> list[str]:
        return sorted(path.rsplit("/", 1)[-1] for path in self._filesystem.find(self._folder))


def _remember(known: dict[str, str], key: str, value: str) -> None:
    if len(known) >= _REMEMBERED:
        known.clear()
    known[key] = value
