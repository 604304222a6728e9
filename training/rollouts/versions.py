"""Versions: the weights of each step of a training in the live server, every one under a name of its own.

While `lookup@3` is trained, its weights after step 7 answer to `lookup@3.7`. That is what runs ask for and what their
spans name, so that a row always tells which weights sampled it. Nobody else may ask for it: it is no adapter.
"""

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter

from journeyman.runtime.adapters.adapter import digest_files
from journeyman.runtime.adapters.live import AdapterServer
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.serving.server import ServerState
from journeyman.runtime.workspace import Workspace
from journeyman.traces.base import Record
from journeyman.traces.errors import AdapterError, JourneymanError

VERSIONS = "versions"
"""Their folder, in that of an unfinished run."""


class Version(Record):
    policy: str
    """What the server answers to."""
    number: int
    """Steps that the weights have learned for."""
    digest: str
    swap_ms: float
    """The load call, and that which unloaded the version before; 0 where the server had it already."""

    def table(self, policies: PolicyTable, agent: str) -> PolicyTable:
        """`policies` with this version for the agent, and for no one in its place."""
        update = {
            "agents": {**policies.agents, agent: self.policy},
            "fallbacks": {name: behind for name, behind in policies.fallbacks.items() if name != agent},
            "digests": {**policies.digests, self.policy: self.digest},
        }
        return policies.model_copy(update=update)


class Versions:
    """Of one training, one at a time in the server: what sampled the last step makes room for the next."""

    def __init__(self, workspace: Workspace, server: ServerState, policy: str, partial: Path) -> None:
        """`policy` is the adapter that is being trained, `partial` the folder of its training."""
        self._workspace = workspace
        self._server = server
        self._policy = policy
        self._folder = partial / VERSIONS

    def keep(self, number: int, save: Callable[[Path], None]) -> None:
        """Writes the weights of a step by `save`, unless they are there."""
        if self._find(number) is not None:
            return
        draft = self._folder / "draft"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save(draft)
        # The server's cache is keyed by name and path: other weights of the same number never get the same path.
        draft.rename(self._folder / f"{number}-{digest_files(draft)[:12]}")

    def bring_in(self, number: int) -> Version:
        """Loads a step's weights, and unloads the others of this training; no run may be at work with those.

        Raises `AdapterError` or `ServerError`.
        """
        folder, policy = self._find(number), f"{self._policy}.{number}"
        if folder is None:
            raise AdapterError(f"the weights of {policy} are gone: remove {self._folder.parent} and train it again")
        with AdapterServer(self._server.url) as live, self._workspace.lock("swap"):
            served = live.served()
            began = perf_counter()
            new = Path(served.get(policy, "")) != folder.resolve()
            ours = [name for name in served if name.startswith(f"{self._policy}.") and (new or name != policy)]
            for name in ours:
                live.unload(name)
                del served[name]
            if new:
                self._check_room(list(served))
                live.load(policy, folder)
            swap_ms = (perf_counter() - began) * 1e3 if new else 0.0
        return Version(policy=policy, number=number, digest=digest_files(folder), swap_ms=swap_ms)

    def drop(self, before: int) -> None:
        """Removes the weights of steps before that one, which nobody samples with any more."""
        for folder in self._folder.glob("*-*"):
            if int(folder.name.partition("-")[0]) < before:
                shutil.rmtree(folder)

    def clear(self) -> None:
        """Takes them all out of the server, as far as it answers."""
        with suppress(JourneymanError), AdapterServer(self._server.url) as live, self._workspace.lock("swap"):
            for name in live.served():
                if name.startswith(f"{self._policy}."):
                    live.unload(name)

    def _find(self, number: int) -> Path | None:
        return next(iter(sorted(self._folder.glob(f"{number}-*"))), None)

    def _check_room(self, served: list[str]) -> None:
        if len(served) >= self._server.max_loras:
            raise AdapterError(
                f"the server has room for {self._server.max_loras} adapters and serves {', '.join(served)}: raise "
                "server.max_loras and start it again"
            )
