"""A detached process with all that it starts: begun, known again later, and ended whole. Linux only: it reads /proc.

psutil would save some 20 of these lines, those that read a process's start and state: it neither starts a session nor
lists one. It would be one more dependency, with compiled code, for those who install journeyman without a server.
"""

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

from journeyman.traces.base import Record

PROC = Path("/proc")


class Process(Record):
    """A process that leads a session of its own."""

    pid: int
    birth: str
    """Boot and clock tick at which it started: a later process with the same pid has another."""

    @property
    def alive(self) -> bool:
        return _birth(self.pid) == self.birth

    def exit_code(self, *, patience_s: float = 2.0) -> int | None:
        """What it ended with, negative for a signal; None where it still runs, or this process did not start it."""
        deadline = monotonic() + patience_s
        while True:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid or monotonic() > deadline:
                return os.waitstatus_to_exitcode(status) if pid else None
            sleep(0.05)  # Its first thread may be gone before the others.

    def end(self, *, patience_s: float = 20.0) -> None:
        """Ends the whole session, politely and then not; returns when nothing of it runs."""
        if _birth(self.pid) not in {self.birth, None}:
            return  # The pid is a stranger's, and the kernel gives a pid away only when its session is empty.
        for number, seconds in ((signal.SIGTERM, patience_s), (signal.SIGKILL, 10.0)):
            deadline = monotonic() + seconds
            for pid in self._members():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            while self._members() and monotonic() < deadline:
                sleep(0.1)
        self.exit_code()  # A child that nobody asks after stays in the process table.

    def _members(self) -> list[int]:
        """Processes of the session that still run, its leader's orphans included."""
        pids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
        return [pid for pid in pids if (stat := _stat(pid)) and stat.session == self.pid and stat.running]


def spawn(command: Sequence[str], *, env: Mapping[str, str], log: Path) -> Process:
    """Starts `command` in a session of its own, its output in `log`; it outlives whoever started it."""
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    pid = os.posix_spawn(command[0], list(command), dict(env), file_actions=files, setsid=True)
    return Process(pid=pid, birth=_birth(pid) or "ended")


class _Stat(Record):
    state: str
    session: int
    ticks: int
    """Clock ticks from boot to the start of the process."""

    @property
    def running(self) -> bool:
        return self.state not in "ZX"


def _stat(pid: int) -> _Stat | None:
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The name stands in brackets and may hold anything, brackets too; proc(5) counts the fields after it from 3.
    fields = text.rpartition(")")[2].split()
    return _Stat(state=fields[0], session=int(fields[3]), ticks=int(fields[19]))


def _birth(pid: int) -> str | None:
    stat = _stat(pid)
    if stat is None or not stat.running:
        return None
    boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return f"{boot}/{stat.ticks}"
