"""Arrays: Arrow columns from Python values, and lists of numbers from their JSON text."""

from array import array
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
from pydantic import JsonValue
from pydantic_core import from_json

_CODES = {pa.int32(): "i", pa.int64(): "q", pa.float32(): "f", pa.float64(): "d"}


def to_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """As `pa.array`, which imports all of pandas where that is installed: longer than most of our commands take."""
    if values.count(None) == len(values):
        return pa.nulls(len(values), kind)
    if kind == pa.string():
        return _strings(values)
    present = _bits([value is not None for value in values]) if None in values else None
    if kind == pa.bool_():
        return pa.Array.from_buffers(kind, len(values), [present, _bits([value is True for value in values])])
    numbers = array(_CODES[kind], values if present is None else [value or 0 for value in values])
    return pa.Array.from_buffers(kind, len(values), [present, pa.py_buffer(numbers)])


def to_list(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """As `to_pylist`, but a list of numbers is a NumPy array: it takes a fraction of the time."""
    if not pa.types.is_list(column.type):
        return cast(list[Any], column.to_pylist())
    lists: list[Any] = []
    for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        ends = _numbers(chunk.offsets).tolist()
        numbers = _numbers(chunk.values)
        present = chunk.is_valid().to_pylist()
        lists += [numbers[ends[row] : ends[row + 1]] if kept else None for row, kept in enumerate(present)]
    return lists


class NumberLists:
    """A column of lists of 32-bit numbers, each from its JSON text."""

    def __init__(self, rows: int, kind: pa.ListType) -> None:
        self._rows = rows
        self._kind = kind
        self._code = cast(Literal["i", "f"], _CODES[kind.value_type])
        self._flat = array(self._code)
        self._ends: dict[int, tuple[int, int]] = {}

    def keep(self, row: int, value: JsonValue) -> bool:
        """Whether `value` is JSON text of such a list; if so, its numbers are kept, which are all that it says."""
        try:
            known = from_json(cast(str, value))
            numbers = array(self._code, known)
        except (ValueError, TypeError, OverflowError):
            return False
        kind = int if self._code == "i" else float
        if numbers.tolist() != known or not {kind}.issuperset(map(type, known)):
            return False
        self._ends[row] = (len(self._flat), len(self._flat) + len(numbers))
        self._flat.extend(numbers)
        return True

    def read(self, row: int, value: JsonValue) -> Sequence[Any] | None:
        """The numbers of a row, also where they could not be kept; None where `value` is no list of such numbers."""
        if row in self._ends:
            start, end = self._ends[row]
            return self._flat[start:end]
        kinds = {int} if self._code == "i" else {int, float}
        try:
            numbers = from_json(value) if isinstance(value, str) else value
            if isinstance(numbers, list) and kinds.issuperset(map(type, numbers)):
                return array(self._code, cast(list[Any], numbers))
        except (ValueError, OverflowError):
            pass
        return None

    def array(self) -> pa.Array:
        starts = array("i", [0])
        for row in range(self._rows):
            starts.append(self._ends[row][1] if row in self._ends else starts[-1])
        flat = pa.Array.from_buffers(self._kind.value_type, len(self._flat), [None, pa.py_buffer(self._flat)])
        present = _bits([row in self._ends for row in range(self._rows)])
        return pa.Array.from_buffers(self._kind, self._rows, [present, pa.py_buffer(starts)], children=[flat])


def _numbers(values: pa.Array) -> "np.ndarray[Any, Any]":
    """As `to_numpy`, which imports pandas too."""
    buffer = values.buffers()[1]
    whole = np.frombuffer(b"" if buffer is None else buffer, _CODES[values.type])
    return whole[values.offset : values.offset + len(values)]


def _strings(values: Sequence[str | None]) -> pa.Array:
    builder = pa.lib.StringBuilder()
    try:
        builder.append_values(values)
    except UnicodeEncodeError:
        # As in the log: half a surrogate pair has no UTF-8 form.
        return _strings([value and value.encode("utf-8", "replace").decode() for value in values])
    return builder.finish()


def _bits(flags: list[bool]) -> pa.Buffer:
    """A bit for each flag, the first the lowest."""
    return pa.py_buffer(np.packbits(np.array(flags, bool), bitorder="little"))
