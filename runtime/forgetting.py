"""Forgetting: what the run store and the memory hold of runs that leave the record."""

from collections.abc import Collection

from journeyman.runtime.config import Workspace
from journeyman.runtime.memory import Memory

EVERY = 1_000_000
"""More runs than a store keeps."""


async def forget(
    place: Workspace, trace_ids: Collection[str], *, user: str | None = None, session: str | None = None
) -> tuple[int, int]:
    """Deletes the kept runs of those traces, and everything of the user or the session that is named.

    Returns how many runs and how many memories went. A workspace that keeps no runs is left without any.
    """
    if place.config.runs.store is None and not (place.root / "runs.db").exists():
        return 0, 0
    runs = await place.runs.open()
    try:
        doomed = [
            record.id
            for record in await runs.find(limit=EVERY)
            if record.trace_id in trace_ids
            or (user is not None and record.task.user == user)
            or (session is not None and record.task.session == session)
        ]
        for run_id in doomed:
            await runs.delete(run_id)
        named = user is not None or session is not None
        return len(doomed), await Memory(runs).forget(user=user, session=session) if named else 0
    finally:
        await runs.aclose()
