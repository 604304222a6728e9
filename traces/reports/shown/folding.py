"""Folding: of many agents or turns alike only the first few are shown, of the others how many there are."""

from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, TypeVar

from journeyman.traces.reports.wording import count, duration
from journeyman.traces.trace import Trajectory, Turn

S = TypeVar("S", Trajectory, Turn)

SHOWN = 2
"""Of those alike, how many are shown before the others are folded."""

FEWEST = 2
"""How many must be folded at least: a line that says "1 more" saves nothing."""


class Fold(NamedTuple):
    """Agents at work, or turns, that are like those shown before them."""

    folded: tuple[Trajectory, ...] | tuple[Turn, ...]

    @property
    def words(self) -> tuple[str, ...]:
        first, last = min(one.started_ns for one in self.folded), max(one.ended_ns for one in self.folded)
        turns = [turn for one in self.folded for turn in (one.turns if isinstance(one, Trajectory) else (one,))]
        used = sum(turn.usage.tokens for turn in turns)
        names = [one.assignment for one in self.folded if isinstance(one, Trajectory) and one.assignment]
        return (
            f"{len(self.folded)} more like this" + (f" ({names[0]} to {names[-1]})" if names else ""),
            f"together {duration((last - first) / 1e9)}",
            count(len(turns), "turn") if names else "",
            f"{used:,} tokens",
        )

    def critical(self, span_ids: Collection[str]) -> int:
        return sum(one.span_id in span_ids for one in self.folded)


def folded_agents(agents: Sequence[Trajectory], shown: Callable[[str], bool]) -> Iterator[Trajectory | Fold]:
    """The agents that one agent started; alike are branches of one fan-out that ended in the same way.

    What did not end well is never folded, nor what `shown` says of its span id.
    """
    return _folded(
        agents,
        alike=lambda one: (one.agent, (one.assignment or "").split(".")[0]),
        keep=lambda one: one.status != "ok" or shown(one.span_id),
    )


def folded_turns(turns: Sequence[Turn], shown: Callable[[str], bool]) -> Iterator[Turn | Fold]:
    """One agent's turns; alike are those in a row that called the same tools with the same success.

    The last turn is never folded, nor one that failed, nor what `shown` says of its span id.
    """
    return _folded(
        turns,
        alike=lambda turn: (turn.policy, tuple((result.tool, result.status) for result in turn.tool_results)),
        keep=lambda turn: turn is turns[-1] or turn.error is not None or shown(turn.span_id),
    )


def _folded(spans: Sequence[S], *, alike: Callable[[S], Hashable], keep: Callable[[S], bool]) -> Iterator[S | Fold]:
    for _, group in groupby(spans, key=alike):
        members = list(group)
        foldable = [one for place, one in enumerate(members) if place >= SHOWN and not keep(one)]
        if len(foldable) < FEWEST:
            yield from members
            continue
        hidden = {one.span_id for one in foldable}
        yield from (one for one in members if one.span_id not in hidden)
        yield Fold(tuple(foldable))
