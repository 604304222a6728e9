"""Steps: what one node of a run has already done, so that a second pass after a crash or a question repeats nothing.

An agent's work is a function of what its model and its tools answered. When a node of the graph runs a second time,
each call that was answered before is answered from here, in the same order, and the work goes on where it stopped.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import JsonValue

if TYPE_CHECKING:
    from journeyman.runtime.store.run_store import RunStore


class Steps:
    """The calls of one step of a run, whose key is `plan`, an assignment's id, or the like. Without a store
    nothing is kept."""

    def __init__(
        self,
        step_key: str,
        *,
        run_id: str = "",
        store: "RunStore | None" = None,
        kept: Mapping[int, Mapping[str, JsonValue]] | None = None,
    ) -> None:
        self.step_key = step_key
        self._run_id = run_id
        self._store = store
        self._kept = {number: dict(value) for number, value in (kept or {}).items()}
        self._taken = 0

    def take(self) -> int:
        """The number of the next call. Callers take numbers in an order that is the same each time."""
        self._taken += 1
        return self._taken

    def kept(self, number: int) -> Mapping[str, JsonValue]:
        """What is known of a call; empty for one that was never begun."""
        return self._kept.get(number, {})

    async def note(self, number: int, **values: JsonValue) -> None:
        """Adds to what is known of a call; a kill -9 after this takes nothing away. Raises `StoreError`."""
        if self._store is None:
            return
        known = self._kept[number] = {**self.kept(number), **values}
        await self._store.note_step(self._run_id, self.step_key, number, known)
