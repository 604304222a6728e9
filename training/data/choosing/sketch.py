"""Sketches: what a row says, in half a kilobyte, by which near rows are told."""

from rensa import RMinHash

from journeyman.training.data.choosing.row import Row
from journeyman.training.data.tasks.near import plain, shingles

HASHES = 128
"""Of a sketch, which takes half a kilobyte; the similarity that it tells is right to about 0.05."""
LETTERS = 5
"""Of a shingle: in long texts that have nothing to do with each other many shorter ones are the same."""


def sketch(row: Row) -> RMinHash:
    """Of what the agent was first told, what it was told last, and its reply.

    What is between is in other rows of the same run too, and instructions are in all.
    """
    told = [message["content"] for message in row.asked]
    ends = [*told[:1], *told[1:][-1:], *(str(reply.get("completion", "")) for reply in row.replies)]
    minhash = RMinHash(HASHES, 1)
    minhash.update(sorted(shingles(plain("\n".join(ends)), LETTERS)))
    return minhash
