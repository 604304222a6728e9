"""Pace: how many rows to read at a time, so that they are about so many bytes, whatever is in them."""

SLICE_BYTES = 16 * 2**20

_FIRST = 8
"""The first slice is so much smaller than the largest: those who want only a few rows wait for no more."""
_FASTER = 4


class Pace:
    """Each slice is as long as the one before says."""

    def __init__(self, most: int) -> None:
        """`most`: rows of the largest slice."""
        self._most = most
        self.rows = max(1, most // _FIRST)
        """To be read next."""

    def took(self, rows: int, size: int) -> None:
        """So many rows were so many bytes."""
        fitting = SLICE_BYTES * rows // max(1, size)
        self.rows = max(1, min(self._most, fitting, rows * _FASTER))
