"""Near rows: those that say nearly the same as another one, by MinHash, which guesses well and is quick."""

from collections.abc import Sequence

from rensa import RMinHash, RMinHashLSH

from journeyman.training.data.choosing.entries import Decision, Entry
from journeyman.training.data.choosing.sketch import HASHES


class NearRows:
    """Leaves out each row that is near one that stays. Which one stays is chance's to say, not the file's."""

    def __init__(self, least: float) -> None:
        """`least` is the Jaccard similarity of near rows, 0..1."""
        self._least = least
        # So that of pairs just as alike as that one in a thousand is missed, or fewer.
        self._bands = 16 if least >= 0.85 else 32

    def __call__(self, entries: Sequence[Entry]) -> Decision:
        index, kept, left_out = RMinHashLSH(self._least, HASHES, self._bands), dict[int, RMinHash](), dict[int, str]()
        for entry in sorted(entries, key=lambda entry: entry.order):
            assert entry.sketch is not None
            if any(kept[number].jaccard(entry.sketch) >= self._least for number in index.query(entry.sketch)):
                left_out[entry.number] = "near another row"
            else:
                kept[entry.number] = entry.sketch
                index.insert(entry.number, entry.sketch)
        return Decision(left_out)
