"""Passages: what retrieval searches in, read from a file or from a folder of text and Markdown files."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from journeyman.traces.base import read_text
from journeyman.traces.errors import ConfigError

SUFFIXES = frozenset({".md", ".markdown", ".txt", ".rst"})
PASSAGE_CHARS = 1_000
"""A passage is closed at the end of the paragraph that takes it past this; one long paragraph stays whole."""


def read_passages(path: Path) -> list[str]:
    """The documents at `path`.

    A folder: passages of its .md, .markdown, .txt and .rst files at any depth, hidden ones and links left out, each
    with its file and nearest heading in front. A `.jsonl` file: the "text" of each line. Any other file: its lines.
    Raises `ConfigError` naming the file, and for a broken line its number.
    """
    if path.is_dir():
        return [
            passage for file in text_files(path) for passage in _split(read_text(file), str(file.relative_to(path)))
        ]
    numbered = [(n, line.strip()) for n, line in enumerate(read_text(path).split("\n"), start=1) if line.strip()]
    if path.suffix == ".jsonl":
        return [_row_text(line, f"{path} line {number}") for number, line in numbered]
    return [line for _, line in numbered]


def text_files(folder: Path) -> Iterator[Path]:
    """Its text and Markdown files at any depth, hidden ones and links left out, in the order of their names."""
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            file = Path(where) / name
            if file.suffix.lower() in SUFFIXES and not name.startswith(".") and not file.is_symlink():
                yield file


def _split(text: str, source: str) -> Iterator[str]:
    """Whole paragraphs up to `PASSAGE_CHARS`; a Markdown heading begins a new passage."""
    heading, held = "", ""

    def passage() -> str:
        return f"{source}{f' ({heading})' if heading else ''}: {held.strip()}"

    for paragraph in text.split("\n\n"):
        first, _, rest = paragraph.strip("\n").partition("\n")
        if first.startswith("#"):
            if held.strip():
                yield passage()
            heading, held, paragraph = first.strip("# "), "", rest
        held += f"{paragraph.strip()}\n\n"
        if len(held) > PASSAGE_CHARS:
            yield passage()
            held = ""
    if held.strip():
        yield passage()


def _row_text(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f'{where}: not valid JSON ({error.msg}); write {{"text": "..."}}') from None
    text = row.get("text") if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise ConfigError(f'{where}: write {{"text": "..."}}, a JSON object with a string')
    return text
