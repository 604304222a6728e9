"""A corpus: texts besides the record, from a folder or out of what a crew's own look-up searches in."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from journeyman.agents.crew_file import CrewFile
from journeyman.runtime.serving.embedded import resolve_model
from journeyman.tools.passages import read_passages, text_files
from journeyman.traces.base import parse_config, read_text, read_toml
from journeyman.traces.errors import ConfigError
from journeyman.training.data.samples import DocumentOrigin

LOOKUP = "retrieve"
"""`use` of a tool that searches in texts."""


class Paragraph(NamedTuple):
    source: str
    """The file that it is from."""
    text: str


class Corpus(NamedTuple):
    origin: DocumentOrigin
    paths: tuple[Path, ...]
    licence: str
    """What the owner of the texts allows."""
    tokens: int
    """Most tokens of a row."""
    tokens_of: Callable[[str], int] | None = None
    """Tokens of a text by the base model's tokenizer; None where it isn't at hand."""

    def paragraphs(self) -> Iterator[Paragraph]:
        """Of a folder's text and Markdown files what stands between blank lines, of another file its documents.

        Raises `ConfigError` where one can't be read.
        """
        for path in self.paths:
            if not path.is_dir():
                yield from (Paragraph(path.name, text) for text in read_passages(path))
                continue
            for file in text_files(path):
                name = file.relative_to(path).as_posix()
                yield from (Paragraph(name, text) for part in read_text(file).split("\n\n") if (text := part.strip()))


def find_corpus(
    folder: Path | None, crew: Path | None, agent: str, licence: str | None, tokens: int, model: str
) -> Corpus:
    """The texts of `folder`, else those that `agent` looks up in the crew's file.

    Raises `ConfigError` where there are none, or where nobody says what their owner allows.
    """
    if folder is None and crew is None:
        raise ConfigError("--kind documents needs texts: --documents FOLDER, or --crew FILE of an agent that looks up")
    if licence is None or not licence.strip():
        raise ConfigError("--kind documents needs --licence TEXT: what the owner of the texts allows")
    if folder is not None:
        if not folder.exists():
            raise ConfigError(f"{folder}: there is no such folder; check the path")
        return Corpus("folder", (folder,), licence, tokens, token_count(model))
    assert crew is not None
    return Corpus("corpus", _looked_up(crew, agent), licence, tokens, token_count(model))


def token_count(model: str) -> Callable[[str], int] | None:
    """How many tokens a text has for a base model; None where its tokenizer isn't on this machine."""
    try:
        folder = resolve_model(model)
        from tokenizers import Tokenizer
    except (ConfigError, ImportError):
        return None
    if not isinstance(folder, Path) or not (folder / "tokenizer.json").is_file():
        return None
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


def _looked_up(crew: Path, agent: str) -> tuple[Path, ...]:
    """Files and folders of the look-up tools of an agent."""
    written = parse_config(CrewFile, read_toml(crew), str(crew))
    worker = written.workers.get(agent)
    if worker is None:
        raise ConfigError(f"{crew} has no worker {agent!r}; it has: {', '.join(written.workers)}")
    tables = (written.tools.get(name, {}) for name in worker.tools)
    paths = tuple(crew.parent / str(table.get("path")) for table in tables if table.get("use") == LOOKUP)
    if not paths:
        raise ConfigError(f"{crew}: {agent} has no tool with use = {LOOKUP!r}: name --documents FOLDER")
    return paths
