"""The policies of the moment: what the journal has in service, under what the project's `[agents]` says."""

from itertools import chain
from pathlib import Path
from time import time_ns
from typing import NamedTuple, TypeAlias

from journeyman.runtime.adapters.adapter import PROMPT, RECORD, adapter_digests, prompt_forms
from journeyman.runtime.adapters.journal import Journal
from journeyman.runtime.adapters.prompts import read_prompts
from journeyman.runtime.models.policies import PolicyTable
from journeyman.runtime.workspace import Workspace

Stamp: TypeAlias = tuple[int, int, int] | None
"""A file's time of change, size and inode; None for one that isn't there. The change time can't be set back."""

TICK_NS = 100_000_000
"""File systems tell times by ticks of up to 10 ms: a file may change again within the tick and keep its stamp."""


class CurrentPolicies:
    """The table for each new run of one workspace, which is called when the run starts.

    Files are looked at for each run, and read again where one of them changed: the next run sees what another process
    promoted. Weights are never read: an adapter's digest is that of its record, and is proved when it is loaded.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._journal = Journal(workspace.journal)
        self._known: _Known | None = None

    def __call__(self) -> PolicyTable:
        known = self._known
        if known is None or not known.is_still_so:
            known = self._known = self._read()
        return known.table

    def _read(self) -> "_Known":
        # Each stamp is taken before its file is read: what changes in between is read again by the next run.
        now_ns, workspace = time_ns(), self._workspace
        stamps = _stamps(workspace.config_file, workspace.journal)
        named = workspace.config.agents
        chosen = {name: agent.policy for name, agent in named.items() if agent.policy is not None}
        fallbacks = {name: agent.fallback for name, agent in named.items() if agent.fallback}
        policies = {*chosen.values(), *chain.from_iterable(fallbacks.values())}
        latest = self._journal.latest().values()
        digests = {entry.policy: entry.digest for entry in latest if entry.digest is not None}
        agents = {entry.agent: entry.policy for entry in latest} | chosen
        asked = {*agents.values(), *policies}
        files = [workspace.adapters / policy / name for policy in asked if "@" in policy for name in (RECORD, PROMPT)]
        stamps |= _stamps(*files)
        digests |= adapter_digests(workspace.adapters, policies)
        forms = prompt_forms(workspace.adapters, asked)
        prompts = read_prompts(workspace.adapters, asked)
        table = PolicyTable(agents=agents, fallbacks=fallbacks, digests=digests, forms=forms, prompts=prompts)
        changed_ns = max((stamp[0] for stamp in stamps.values() if stamp is not None), default=0)
        return _Known(table, stamps, settled=changed_ns < now_ns - TICK_NS)


class _Known(NamedTuple):
    table: PolicyTable
    stamps: dict[Path, Stamp]
    settled: bool
    """Whether no file had changed so lately that another change would leave no trace."""

    @property
    def is_still_so(self) -> bool:
        return self.settled and _stamps(*self.stamps) == self.stamps


def _stamps(*paths: Path) -> dict[Path, Stamp]:
    return {path: _stamp(path) for path in paths}


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ctime_ns, status.st_size, status.st_ino
