"""Prompts: what the model calls of one run were sent, where each shares with the earlier ones what it grew from."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeVar, overload

from pydantic import JsonValue

from journeyman.traces import attributes as a
from journeyman.traces.capture.growth import GROWING, Growths
from journeyman.traces.capture.span import SpanRecord, shrunk
from journeyman.traces.capture.wholes import Part, Wholes, by_id, part_of
from journeyman.traces.messages import Message, read_prompt

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Grown(Sequence[T_co]):
    """A list that begins with all of `before`: only the new members take room."""

    def __init__(self, before: Sequence[T_co], new: Sequence[T_co]) -> None:
        self._before = before
        self._new = new
        self._count = len(before) + len(new)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | Sequence[T_co]:
        return self._all()[index]

    def __iter__(self) -> Iterator[T_co]:
        return iter(self._all())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and self._all() == tuple(other)

    def __hash__(self) -> int:
        return hash(self._all())

    def __repr__(self) -> str:
        return repr(self._all())

    def _all(self) -> tuple[T_co, ...]:
        parts: list[Sequence[T_co]] = []
        rest: Sequence[T_co] = self
        while isinstance(rest, Grown):
            parts.append(rest._new)
            rest = rest._before
        return tuple(chain(rest, *reversed(parts)))


class Prompts:
    """The prompts of the spans of one run. Those that grew are to be asked for after those that they grew from."""

    def __init__(self, ordered: Iterable[SpanRecord]) -> None:
        """`ordered`: by start."""
        growths = Growths()  # Of spans that were recorded whole, too.
        self._spans = {span_id: shrunk(span, growths) for span_id, span in by_id(ordered).items()}
        self._wholes = Wholes(lambda _, span_id, name: part_of(self._spans.get(span_id), name))
        self._read: dict[tuple[str, str], Sequence[Any]] = {}
        self._gone = {(span_id, name) for name in GROWING for span_id, whole in self._can_be_whole(name) if not whole}

    def lacks(self, span: SpanRecord) -> bool:
        """Whether a span that one of its lists grew from is gone."""
        return any((span.span_id, name) in self._gone for name in GROWING)

    def messages(self, span: SpanRecord) -> tuple[Message, ...]:
        """System message first; raises `ValueError` with a reason where it is no list of messages."""
        system = read_prompt({a.SYSTEM_INSTRUCTIONS: span.attributes.get(a.SYSTEM_INSTRUCTIONS)})
        others = self._list(span, a.INPUT_MESSAGES, lambda value: read_prompt({a.INPUT_MESSAGES: value}))
        return (*system, *others)

    def token_ids(self, span: SpanRecord, read: Callable[[JsonValue], Sequence[int]]) -> Sequence[int]:
        """Empty where it has none; `read` makes numbers of what the attribute holds."""
        return self._list(span, a.PROMPT_TOKEN_IDS, read)

    def _can_be_whole(self, name: str) -> Iterable[tuple[str, bool]]:
        """By span id, whether all that its list grew from is there; a ring has no beginning."""
        known: dict[str, bool] = {}
        for span_id in self._spans:
            chain = [span_id]
            while chain[-1] not in known:
                span = self._spans.get(chain[-1])
                growth = None if span is None else span.grown.get(name)
                known[chain[-1]] = span is not None and growth is None
                if growth is not None:
                    chain.append(growth.after)
            known |= dict.fromkeys(chain, known[chain[-1]])
        return known.items()

    def _list(self, span: SpanRecord, name: str, read: Callable[[JsonValue], Sequence[T]]) -> Sequence[T]:
        part = self._spans[span.span_id]
        growth = part.grown.get(name)
        if (span.span_id, name) in self._gone:
            found: Sequence[T] = ()
        elif growth is None:
            found = read(part.attributes.get(name))
        elif growth.appends and (before := self._read.get((growth.after, name))) is not None:
            found = Grown(before, read(part.attributes.get(name)))
        else:
            found = read(self._wholes.of(span.trace_id, span.span_id, name, Part(part.attributes.get(name), growth)))
        self._read[span.span_id, name] = found
        return found
