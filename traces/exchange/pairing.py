"""Pairing: which call each result of a tool answers, also where a log has no ids, or has one twice."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from journeyman.traces.errors import StoreError
from journeyman.traces.exchange.conversation import Entry


class _Open(NamedTuple):
    """A call that no result has answered."""

    turn: int
    logged: str
    """Its id in the log, which may be empty, or another call's too."""
    id: str
    name: str


def paired(entries: Sequence[Entry]) -> tuple[Entry, ...]:
    """The entries, in which each call of a turn has an id of its own, and each result the id of the call it answers.

    A result answers the call of its id; where ids don't tell, the next call of its turn with its tool's name. Raises
    `StoreError` for one that answers no call: it would be filed under another.
    """
    pairs: list[Entry] = []
    waiting: list[_Open] = []
    for turn, entry in enumerate(entries):
        if entry.message.tool_calls:
            entry = _identified(entry, turn)
            logged = (call.id for call in entries[turn].message.tool_calls)
            calls = zip(logged, entry.message.tool_calls, strict=True)
            waiting += [_Open(turn, before, call.id, call.name) for before, call in calls]
        elif entry.message.role == "tool":
            call = _answered(entry, waiting)
            waiting.remove(call)
            message = entry.message.model_copy(update={"tool_call_id": call.id})
            entry = entry.model_copy(update={"message": message, "tool": entry.tool or call.name})
        pairs.append(entry)
    return tuple(pairs)


def _identified(entry: Entry, turn: int) -> Entry:
    seen: set[str] = {""}
    calls = []
    for number, call in enumerate(entry.message.tool_calls):
        calls.append(call.model_copy(update={"id": f"call_{turn}_{number}"}) if call.id in seen else call)
        seen.add(call.id)
    return entry.model_copy(update={"message": entry.message.model_copy(update={"tool_calls": tuple(calls)})})


def _answered(entry: Entry, waiting: Sequence[_Open]) -> _Open:
    given, tool = entry.message.tool_call_id, entry.tool
    if given:
        wanted = [call for call in waiting if call.logged == given] or _of_last_turn(
            call for call in waiting if not call.logged
        )
        # A log may count its ids anew in each turn.
        named = [call for call in _of_last_turn(wanted) if call.name == tool]
        candidates = named or _of_last_turn(wanted)
    else:
        candidates = [call for call in _of_last_turn(waiting) if tool in (None, call.name)]
    if not candidates:
        what = f"call {given!r}" if given else f"a call of {tool!r}" if tool else "a call"
        raise StoreError(f"a tool's result answers {what}, which no message before it makes, or which has its result")
    return candidates[0]


def _of_last_turn(calls: Iterable[_Open]) -> list[_Open]:
    known = list(calls)
    return [call for call in known if call.turn == known[-1].turn]
