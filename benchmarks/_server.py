"""The server that a benchmark works on: its own, or one that runs already and is left as it was found."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from journeyman.runtime.adapters.live import AdapterServer
from journeyman.runtime.workspace import Workspace
from journeyman.training.demo.demo import OnDemand


@contextmanager
def borrowed(workspace: Workspace, url: str | None) -> Iterator[OnDemand]:
    """A server on demand; the one that `url` names has the same adapters after the block as before."""
    with OnDemand(workspace, workspace.config.server, url=url) as server:
        if url is None:
            yield server
            return
        with AdapterServer(url) as live:
            before = live.served()
            try:
                yield server
            finally:
                after = live.served()
                for policy in after.keys() - before.keys():
                    live.unload(policy)
                for policy in before.keys() - after.keys():
                    live.load(policy, Path(before[policy]))
