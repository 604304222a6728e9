"""Documents: text to go on pre-training with, as many whole paragraphs in a row as fit."""

from collections import Counter
from collections.abc import Iterator

from journeyman.traces.errors import ConfigError
from journeyman.training.data.corpus import Corpus, Paragraph
from journeyman.training.data.edits import NO_EDITS
from journeyman.training.data.samples import DocumentSample, plain_line
from journeyman.training.data.source import Source
from journeyman.training.data.turns import digest_texts

BETWEEN = "\n\n"
LETTERS_PER_TOKEN = 4
"""About so many, where nobody can count."""


class DocumentMining:
    """One pass over a corpus; in memory are one row, and a digest of each paragraph.

    Paragraphs stay in their order and are joined by a blank line, from one file into the next. One that is longer than
    a row is cut between words. One that came before is left out.
    """

    unit = "paragraph"
    edited = NO_EDITS
    superseded = ()

    def __init__(self, source: Source) -> None:
        if source.corpus is None:
            raise ConfigError("rows of kind documents are made of a corpus: give the source one")
        self._source = source
        self._corpus: Corpus = source.corpus
        self._counted: Counter[str] = Counter()
        self._origins: Counter[str] = Counter()
        self._seen: set[bytes] = set()
        self.turns = 0
        """Paragraphs that are in a row."""

    def __iter__(self) -> Iterator[bytes]:
        """The line of each row, as `sample_line` writes it."""
        held: list[Paragraph] = []
        size = 0
        for paragraph in self._admitted():
            for part in self._cut(paragraph):
                more = self._size(part.text) + 1
                if held and size + more > self._corpus.tokens:
                    yield from self._row(held)
                    held, size = [], 0
                held.append(part)
                size += more
        if held:
            yield from self._row(held)

    def finished(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """The same lines: each was whole."""
        return lines

    @property
    def refused(self) -> dict[str, int]:
        """Paragraphs that are in no row, counted by reason, most frequent first."""
        return dict(self._counted.most_common())

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Rows of each origin."""
        return {"origin": dict(self._origins)}

    def _admitted(self) -> Iterator[Paragraph]:
        for paragraph in self._corpus.paragraphs():
            digest = digest_texts((paragraph.text,))
            refusal = "came before" if digest in self._seen else self._held_out(paragraph.text)
            self._seen.add(digest)
            if refusal is None:
                yield paragraph
            else:
                self._counted[refusal] += 1

    def _held_out(self, text: str) -> str | None:
        return self._source.held_out.messages([{"role": "user", "content": text}])

    def _cut(self, paragraph: Paragraph) -> Iterator[Paragraph]:
        """Parts of at most the size of a row."""
        if self._size(paragraph.text) < self._corpus.tokens or len(words := paragraph.text.split()) < 2:
            yield paragraph
            return
        half = len(words) // 2
        for part in (words[:half], words[half:]):
            yield from self._cut(paragraph._replace(text=" ".join(part)))

    def _size(self, text: str) -> int:
        tokens_of = self._corpus.tokens_of
        return -(-len(text) // LETTERS_PER_TOKEN) if tokens_of is None else tokens_of(text)

    def _row(self, held: list[Paragraph]) -> Iterator[bytes]:
        text = BETWEEN.join(paragraph.text for paragraph in held)
        # What is asked in several paragraphs shows only where they are together.
        if (refusal := self._held_out(text)) is not None:
            self._counted[refusal] += len(held)
            return
        self.turns += len(held)
        self._origins[self._corpus.origin] += 1
        yield plain_line(
            DocumentSample,
            written={},
            agent=self._source.agent,
            origin=self._corpus.origin,
            sources=list(dict.fromkeys(paragraph.source for paragraph in held)),
            licence=self._corpus.licence,
            tokens=None if self._corpus.tokens_of is None else self._size(text),
            text=text,
        )
