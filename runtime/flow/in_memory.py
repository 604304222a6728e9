"""A run in memory: its steps taken one after the other, for runs that nobody keeps and no graph of others contains.

What LangGraph adds to the nodes is checkpoints, interrupts and a part in the app's graph. Where none of that is wanted
its bookkeeping would be most of what a run with quick models takes, and its import a second of the first one.
"""

from journeyman.runtime.flow import nodes
from journeyman.runtime.flow.state import State, Work, merged
from journeyman.runtime.loops import side_by_side
from journeyman.runtime.run.endings import HaltedError
from journeyman.runtime.run.run import Run


async def take_steps(run: Run) -> State:
    """The state that the run ends with; raises `StoreError`, and `HaltedError` where it stops without having failed."""
    decided = await nodes.plan(run)
    state = merged({}, decided.update)
    while not decided.ended:
        for update in await _done(run, decided.work):
            state = merged(state, update)
        decided = await nodes.gather(run, state)
        state = merged(state, decided.update)
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
