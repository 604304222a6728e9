"""Forgetting: what the run store and the memory hold of runs that leave the record."""

from collections.abc import Collection

from journeyman.runtime.store.memory import Memory
from journeyman.runtime.workspace import Workspace


async def forget(
    workspace: Workspace, trace_ids: Collection[str], *, user: str | None = None, session: str | None = None
) -> tuple[int, int]:
    """Deletes the kept runs of those traces, and everything of the user or the session that is named.

    Returns how many runs and how many memories went. A workspace that keeps no runs is left without any.
    """
    if not workspace.has_runs:
        return 0, 0
    runs = await workspace.runs.open()
    try:
        count = await runs.forget(trace_ids)
        if user is None and session is None:
            return count, 0
        # Also those that died before they recorded anything.
        for record in await runs.find():
            if (user is None or record.task.user == user) and (session is None or record.task.session == session):
                await runs.delete(record.id)
                count += 1
        return count, await Memory(runs).forget(user=user, session=session)
    finally:
        await runs.aclose()
