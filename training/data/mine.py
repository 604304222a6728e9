"""Mining: recorded runs become rows for one agent; what may not be learned from is refused, counted and shown."""

import tempfile
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Protocol

from journeyman.traces.base import Record
from journeyman.training.data.choosing.choose import Choosing
from journeyman.training.data.datasets.card import Profile, Provenance, write_card
from journeyman.training.data.edits import Edited
from journeyman.training.data.kto import KTOMining
from journeyman.training.data.prompts import PromptMining
from journeyman.training.data.samples import BUFFER_BYTES, DatasetFile, Kind, SFTSample, write_lines
from journeyman.training.data.sft import SFTMining
from journeyman.training.data.source import Source
from journeyman.training.data.statements import Superseded


class Mining(Protocol):
    """One pass over the record that gives rows of one kind."""

    def __iter__(self) -> Iterator[bytes]:
        """The line of each row, as far as the pass knows it yet."""

    def finished(self, lines: Iterator[bytes]) -> Iterator[bytes]:
        """Those lines as they are now that the pass is over, in their order."""

    @property
    def refused(self) -> dict[str, int]:
        """Turns that gave no row, counted by reason."""

    @property
    def turns(self) -> int:
        """Turns that gave rows."""

    @property
    def edited(self) -> Edited:
        """What came of people's corrections."""

    @property
    def superseded(self) -> tuple[Superseded, ...]:
        """Statements of people that contradict each other."""

    @property
    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Rows by what a person wants to see of them, such as their origin."""


KINDS: Mapping[Kind, Callable[[Source], Mining]] = {
    "sft": SFTMining,
    "kto": KTOMining,
    "prompts": PromptMining,
}
"""A new kind of row is a line here, and a module beside `sft`."""


class Mined(Record):
    samples: tuple[SFTSample, ...]
    """In the order in which the calls began, exact duplicates merged into the first."""
    refused: dict[str, int]
    """Turns that may not be training data, counted by reason."""
    edited: Edited
    """What came of people's corrections."""

    @property
    def turns(self) -> int:
        """Turns that became samples, duplicates included."""
        return sum(sample.count for sample in self.samples)


def mine_sft(source: Source) -> Mined:
    """Replies of an agent worth imitating, one sample for each distinct prompt and reply, all in memory."""
    mining = SFTMining(source)
    first_ones = list(mining)
    samples = tuple(map(SFTSample.model_validate_json, mining.finished(iter(first_ones))))
    return Mined(samples=samples, refused=mining.refused, edited=mining.edited)


def mine_to_file(
    mining: Mining,
    folder: Path,
    name: Callable[[str], str],
    choosing: Choosing,
    made: Provenance | None = None,
) -> DatasetFile | None:
    """Those rows that are chosen, in bounded memory, into a file of `folder` that is named for its digest; None where
    there is no row. What was left out, `choosing.chosen` says.

    With `made` a card is written beside it.
    """
    profile = Profile()

    def write_its_card(file: DatasetFile) -> None:
        if made is not None:
            refused = mining.refused | mining.edited.refused | choosing.chosen.left_out
            write_card(profile.card(file.digest, made, turns=mining.turns, refused=refused), file.path)

    with tempfile.TemporaryFile(buffering=BUFFER_BYTES) as lines:
        lines.writelines(mining)

        def finished() -> Iterator[bytes]:
            lines.seek(0)
            return mining.finished(iter(lines))

        chosen = choosing.over(finished)
        if (first := next(chosen, None)) is None:
            return None
        rows = chain([first], chosen)
        return write_lines(rows if made is None else profile.over(rows), folder, name, write_its_card)
