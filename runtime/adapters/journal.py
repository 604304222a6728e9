"""The promotion journal: which policy is in service for which agent, and everything that was decided about it.

Each line has a checksum over itself and the line before, so that one that was altered, left out or moved is found.
"""

import os
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from time import time_ns
from typing import BinaryIO, Literal, NamedTuple

from pydantic import JsonValue, ValidationError

from journeyman.agents.model import BASE
from journeyman.runtime.adapters.adapter import split_policy
from journeyman.traces.base import Record
from journeyman.traces.errors import AdapterError, StoreError
from journeyman.traces.files import RowFile, regular

Action = Literal["promote", "rollback", "reject", "gate"]
State = Literal["candidate", "active", "rejected", "retired"]

NEXT: dict[State, set[State]] = {
    "candidate": {"active", "rejected"},
    "active": {"retired"},
    "rejected": set(),
    "retired": {"active"},
}
"""Retired comes back by a rollback; rejected is for good: gating one candidate until it passes is promotion by luck."""

BECOMES: dict[Action, State] = {"promote": "active", "rollback": "active", "reject": "rejected"}
"""Other actions are notes: they change no policy's state."""

SERVES: frozenset[Action] = frozenset({"promote", "rollback"})
"""Actions that put their policy in service."""


class Entry(Record):
    version: int = 2
    """1 had no evidence and no checksum."""
    sequence: int
    """Place in the journal, from 1."""
    at_ns: int
    agent: str
    action: Action
    policy: str
    """What is in service for the agent from now on; for `reject`, what was refused; else what is spoken of."""
    previous: str
    """What was in service before; for what is not in `SERVES`, what still is."""
    digest: str | None
    """Of the adapter that `policy` names; None for the base model."""
    reason: str
    evidence: Mapping[str, JsonValue] = {}
    """What the decision rests on, such as a verdict."""
    checksum: str | None = None
    """16 hexadecimal digits of SHA-256, over the checksum of the line before and this line without its own."""

    def sealed(self, before: str | None) -> "Entry":
        """The same with its checksum, behind a line that has `before`."""
        line = self.model_dump_json(exclude={"checksum"}).encode()
        return self.model_copy(update={"checksum": _checksum(line, before)})


class _Known(NamedTuple):
    """What was read of the file."""

    inode: int = 0
    size: int = 0
    """Bytes of whole lines."""
    last: bytes = b""
    entries: tuple[Entry, ...] = ()
    latest: Mapping[str, Entry] = {}
    """For each agent, the entry that put its policy in service."""


class Journal:
    """An append-only file. An append is a compare-and-swap: of two processes at once, one wins."""

    def __init__(self, path: Path) -> None:
        self._rows = RowFile(path, mode=0o600)
        self._known = _Known()

    def entries(self) -> list[Entry]:
        """Every entry, oldest first; a last line torn by a crash was never acknowledged and is left out."""
        return list(self._read().entries)

    def latest(self) -> dict[str, Entry]:
        """For each agent that the journal knows, the entry that put its policy in service."""
        return dict(self._read().latest)

    def active(self) -> dict[str, str]:
        """The policy in service for each agent that was ever promoted; any other agent has `base`."""
        return {agent: entry.policy for agent, entry in self.latest().items()}

    def in_service(self, agent: str) -> str:
        return self.active().get(agent, BASE)

    def states(self) -> dict[str, State]:
        """The state of each adapter that the journal names; one that it doesn't name is a candidate."""
        states: dict[str, State] = {}
        for entry in self.entries():
            if entry.action in SERVES:
                states[entry.previous] = "retired"
            if entry.action in BECOMES:
                states[entry.policy] = BECOMES[entry.action]
        return {policy: state for policy, state in states.items() if policy != BASE}

    def state(self, policy: str) -> State:
        return self.states().get(policy, "candidate")

    def replaced(self, agent: str) -> str:
        """What a rollback brings back: the policy that the one in service took the place of when it was promoted."""
        below: list[str] = []
        for entry in self.entries():
            if entry.agent == agent and entry.action == "promote":
                below.append(entry.previous)
            elif entry.agent == agent and entry.action == "rollback":
                below.pop()
        if not below:
            raise AdapterError(f"{agent} has the base model in service: there is nothing to roll back")
        return below[-1]

    def append(
        self,
        agent: str,
        action: Action,
        policy: str,
        *,
        expected: str,
        digest: str | None,
        reason: str,
        evidence: Mapping[str, JsonValue] = {},
    ) -> Entry:
        """Adds an entry if `expected` is still in service for the agent; raises `AdapterError` if it is not."""
        try:
            with self._rows.writing() as append_row:
                append_row(b"")  # Mends the end of the file, so that all of it is read.
                previous = self.in_service(agent)
                if previous != expected:
                    raise AdapterError(
                        f"{agent} has {previous} in service, not {expected}: it was changed meanwhile; look again"
                    )
                self.check(agent, action, policy)
                known = self.entries()
                entry = Entry(
                    sequence=len(known) + 1,
                    at_ns=time_ns(),
                    agent=agent,
                    action=action,
                    policy=policy,
                    previous=previous,
                    digest=digest,
                    reason=reason,
                    evidence=evidence,
                ).sealed(known[-1].checksum if known else None)
                append_row(entry.model_dump_json().encode() + b"\n")
        except OSError as error:
            raise StoreError(f"{self._rows.path} cannot be written: {error.strerror}; nothing was changed") from error
        return entry

    def check(self, agent: str, action: Action, policy: str) -> None:
        """Raises `AdapterError` where the policy is not the agent's, or its state does not allow the action."""
        if policy == BASE:
            return
        if split_policy(policy)[0] != agent:
            raise AdapterError(f"{policy} is not an adapter of {agent}: name one, as in {agent}@1")
        state = self.state(policy)
        if action in BECOMES and BECOMES[action] not in NEXT[state]:
            raise AdapterError(f"{policy} is {state}: it can't become {BECOMES[action]}")

    def _read(self) -> _Known:
        """What was read before isn't read again, save for the last line, which shows that the file only grew."""
        try:
            with regular(self._rows.path).open("rb") as file:
                self._known = self._read_on(file, self._known)
        except FileNotFoundError:
            self._known = _Known()
        return self._known

    def _read_on(self, file: BinaryIO, known: _Known) -> _Known:
        inode = os.fstat(file.fileno()).st_ino
        file.seek(known.size - len(known.last))
        if (inode, file.read(len(known.last))) != (known.inode, known.last):
            known = _Known(inode=inode)
            file.seek(0)
        if not (lines := [line for line in file if line.endswith(b"\n")]):
            return known
        new, before = list[Entry](), known.entries[-1] if known.entries else None
        for line in lines:
            new.append(before := self._entry(len(known.entries) + len(new) + 1, line, before))
        return _Known(
            inode=inode,
            size=known.size + sum(map(len, lines)),
            last=lines[-1],
            entries=(*known.entries, *new),
            latest={**known.latest, **{entry.agent: entry for entry in new if entry.action in SERVES}},
        )

    def _entry(self, number: int, line: bytes, before: Entry | None) -> Entry:
        where = f"{self._rows.path}, line {number}"
        try:
            entry = Entry.model_validate_json(line)
        except ValidationError:
            raise StoreError(f"{where}: damaged; mend it or restore the file from a copy") from None
        checked = None if before is None else before.checksum
        # Lines from before there were checksums have none; no line after one that has may lack it.
        if (entry.checksum or checked) and _checksum(_unsealed(line, entry), checked) != entry.checksum:
            raise StoreError(f"{where}: altered, or a line before it is missing; restore the file from a copy")
        return entry


def _unsealed(line: bytes, entry: Entry) -> bytes:
    """The line as it was before its checksum was added, which comes last."""
    return line.rstrip().removesuffix(f',"checksum":"{entry.checksum}"}}'.encode()) + b"}"


def _checksum(line: bytes, before: str | None) -> str:
    return sha256((before or "").encode() + line).hexdigest()[:16]
