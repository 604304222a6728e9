"""The server that a benchmark works on: its own, or one that runs already and is left as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager

from journeyman.runtime.adapters import AdapterServer
from journeyman.runtime.config import Workspace
from journeyman.training.demo import OnDemand


@contextmanager
def borrowed(workspace: Workspace, url: str | None) -> Iterator[OnDemand]:
    """A server on demand; of the one that `url` names, adapters that the block loaded are unloaded after it."""
    with OnDemand(workspace, workspace.config.server, url=url) as server:
        before = _loaded(url)
        try:
            yield server
        finally:
            for policy in _loaded(url) - before:
                with AdapterServer(str(url)) as live:
                    live.unload(policy)


def _loaded(url: str | None) -> set[str]:
    if url is None:
        return set()
    with AdapterServer(url) as live:
        return set(live.served())
