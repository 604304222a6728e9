"""A run in memory: its steps taken one after the other, for runs that nobody keeps and no graph of others contains.

What LangGraph adds to the nodes is checkpoints, interrupts and a part in the app's graph. Where none of that is wanted
its bookkeeping would be most of what a run with quick models takes, and its import a second of the first one.
"""

from collections.abc import Callable
from typing import Any, cast, get_type_hints

from journeyman.runtime.flow import nodes
from journeyman.runtime.flow.state import State, Work
from journeyman.runtime.loops import side_by_side
from journeyman.runtime.run.endings import HaltedError
from journeyman.runtime.run.run import Run

REDUCERS: dict[str, Callable[[Any, Any], Any]] = {
    name: hint.__metadata__[0]
    for name, hint in get_type_hints(State, include_extras=True).items()
    if hasattr(hint, "__metadata__")
}


async def take_steps(run: Run) -> State:
    """The state that the run ends with; raises `StoreError`, and `HaltedError` where it stops without having failed."""
    decided = await nodes.plan(run)
    state = _merged({}, decided.update)
    while not decided.ended:
        for update in await _done(run, decided.work):
            state = _merged(state, update)
        decided = await nodes.gather(run, state)
        state = _merged(state, decided.update)
    return state


async def _done(run: Run, work: tuple[Work, ...]) -> list[State]:
    """What came of all of the work; a part of it that halts lets the others end."""
    updates: list[State] = []
    for one in await side_by_side(_unless_halted(run, one) for one in work):
        if isinstance(one, HaltedError):
            raise one
        updates.append(one)
    return updates


async def _unless_halted(run: Run, work: Work) -> State | HaltedError:
    try:
        return await nodes.work(run, work)
    except HaltedError as halted:
        return halted


def _merged(state: State, update: State) -> State:
    """As LangGraph does it: each key by the rule that is written at the state's."""
    known, new = cast(dict[str, Any], state), cast(dict[str, Any], update)
    reduced = {
        name: reduce(known[name], new[name]) for name, reduce in REDUCERS.items() if name in known and name in new
    }
    return cast(State, {**known, **new, **reduced})
