"""Python: programs that a model wrote, each in a process of its own behind four walls.

- **System calls** (seccomp, a list of what is allowed): it opens no socket, starts no program, forks no process, sends
  no signal, looks into no other process, changes no mode or owner of a file.
- **Files** (Landlock): it reads the standard library and the system's shared libraries, and reads and writes in a
  temporary folder of its own, which is its working folder and is deleted afterwards. Nothing else can be opened.
- **Limits**: memory, processor time, size of a file, open files; in all, the number of its files and their size, also
  of those that it deleted and holds open. At the end of its time the process is killed.
- **Nothing handed down**: an empty environment, no open files, no capabilities, no packages, no way to gain privileges.

A wall that the kernel cannot put up is never left out in silence: the tool is not built, unless `files="allowed"` or
`network="allowed"` says that this wall is not wanted.

What it does not protect from. It is one kernel: a program that exploits a fault of the kernel gets out, as it would
from a container; for code that an enemy writes, run journeyman in a virtual machine. It sees names, sizes and dates of
files anywhere (`stat` is open), the machine's name and load, and the clock. It uses a processor core for its time, and
threads use all of them. A file that it deleted and holds by nothing but a mapping, or sent to itself, is not counted:
with such files it may fill the disk of the temp folder until it ends. With `files="allowed"` it reads and writes what
you may, the environment of your other processes under `/proc` included; with `network="allowed"` it reaches whatever
this machine reaches.
"""

import asyncio
import json
import math
import os
import platform
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import IO, Any, Literal

from journeyman.tools.sandbox import NO_WALL
from journeyman.tools.seccomp import syscall_filter
from journeyman.tools.tool import Count, Seconds, Tool
from journeyman.traces.errors import ConfigError, ToolError

MAX_FILES = 1_000
MAX_DEPTH = 32
OPEN_FILES = 64
SECONDS_BETWEEN_LOOKS = 0.1
"""At the size of the folder; what is written between two looks comes on top of the limit."""
SHOWN_CHARS = 10_000
"""Of what a program prints; of more, the beginning and the end are shown."""
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
MACHINE = ("/usr/share/zoneinfo", "/etc/localtime", "/dev/urandom", "/dev/random", "/dev/zero")
NAMES = (
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/services",
    "/etc/ssl",
    "/usr/share/ca-certificates",
)


def python(
    *,
    max_seconds: Seconds = 10.0,
    memory_mb: Count = 512,
    disk_mb: Count = 16,
    files: Literal["own", "allowed"] = "own",
    network: Literal["none", "allowed"] = "none",
    name: str = "python",
) -> Tool:
    """A tool `name(code: str) -> str` that runs `code` and returns what it printed, and the value of its last line.

    A program that fails, or is stopped, is a `ToolError` with what it had printed. Raises `ConfigError` where a wall
    cannot be put up.

    - `max_seconds`: of wall-clock, and of processor time.
    - `memory_mb`: address space in MiB, of which the interpreter itself takes about 30.
    - `disk_mb`: MiB for all files together, and for what is printed.
    - `files`: what a program may read and write: its own folder, or all that you may.
    - `network`: whether a program may reach what this machine can.
    """
    sandbox = _Sandbox(max_seconds, memory_mb, disk_mb, files, network)
    sandbox.check()

    async def run(code: str) -> str:
        """Runs a Python program (standard library only) and returns what it prints."""
        return await sandbox.run(code)

    return Tool(run, name=name, timeout_s=max_seconds + 5)


class _Sandbox:
    def __init__(self, max_seconds: float, memory_mb: int, disk_mb: int, files: str, network: str) -> None:
        if sys.platform != "linux":
            raise ConfigError(f"the python tool needs the walls of a Linux kernel; this is {sys.platform}")
        self._max_seconds = max_seconds
        self._disk = disk_mb * 2**20
        seconds = max(math.ceil(max_seconds), 1)
        base = Path(sys.base_prefix)
        self._walls: dict[str, Any] = {
            "limits": {
                "RLIMIT_AS": [memory_mb * 2**20] * 2,
                "RLIMIT_CPU": [seconds, seconds + 1],
                "RLIMIT_FSIZE": [self._disk] * 2,
                "RLIMIT_NOFILE": [OPEN_FILES] * 2,
                "RLIMIT_CORE": [0, 0],
            },
            "read": None
            if files == "allowed"
            else [
                str(base / "lib"),
                str(base / "lib64"),
                *LIBRARIES,
                *MACHINE,
                *(NAMES if network == "allowed" else ()),
            ],
            "network": network == "allowed",
            "filter": syscall_filter(platform.machine(), network=network == "allowed").hex(),
        }

    def check(self) -> None:
        """Runs the empty program; raises `ConfigError` with what the kernel lacks."""
        with _own_folder() as folder:
            ran = subprocess.run(
                self._command(folder), cwd=folder, env={}, input=b"", capture_output=True, timeout=60, check=False
            )
        if ran.returncode:
            told = (ran.stdout + ran.stderr).decode(errors="replace").strip() or f"exit status {ran.returncode}"
            raise ConfigError(
                f'the python tool cannot be made safe here: {told}; files="allowed" or network="allowed" does without'
            )

    async def run(self, code: str) -> str:
        with (
            _own_folder() as folder,
            tempfile.TemporaryFile() as output,
        ):
            process = await asyncio.create_subprocess_exec(
                *self._command(folder),
                cwd=folder,
                env={},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                stopped = await self._ended(process, code, Path(folder))
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
            printed = _printed(output)
            if stopped is None and output.tell() >= self._disk:
                stopped = f"the program printed more than {self._disk // 2**20} MB"
        if stopped is None and process.returncode == 0:
            return printed or "it printed nothing"
        if process.returncode == NO_WALL and printed.startswith("the sandbox has no wall"):
            raise ToolError(f"the program was not run: {printed}")
        raise ToolError("\n".join(filter(None, [stopped or self._reason(process.returncode), printed])))

    def _command(self, folder: str) -> list[str]:
        script = Path(__file__).with_name("sandbox.py")
        options = ["-I", "-S", "-B", "-u", "-X", "utf8"]
        return [sys.executable, *options, str(script), json.dumps({**self._walls, "own": folder})]

    async def _ended(self, process: asyncio.subprocess.Process, code: str, folder: Path) -> str | None:
        """Waits for the end; returns why the program must be stopped before."""
        fed = asyncio.ensure_future(process.communicate(code.encode()))
        try:
            async with asyncio.timeout(self._max_seconds):
                while not (await asyncio.wait([fed], timeout=SECONDS_BETWEEN_LOOKS))[0]:
                    if too_much := self._excess(folder, process.pid):
                        return too_much
        except TimeoutError:
            return f"the program was stopped after {self._max_seconds:g} s"
        finally:
            fed.cancel()
        return self._excess(folder, process.pid)

    def _excess(self, folder: Path, process: int) -> str | None:
        size = 0
        try:
            for number, found in enumerate(chain(_walk(folder), _nameless(process))):
                size += found.st_blocks * 512
                if size > self._disk:
                    return f"the program was stopped: its files take more than {self._disk // 2**20} MB"
                if number >= MAX_FILES:
                    return f"the program was stopped: it made more than {MAX_FILES:,} files"
        except _HiddenFilesError:
            return f"the program was stopped: its folders are unreadable, or nested more than {MAX_DEPTH} deep"
        return None

    def _reason(self, status: int | None) -> str:
        if status == -signal.SIGXCPU:
            return f"the program was stopped after {self._max_seconds:g} s of processor time"
        if status is not None and status < 0:
            return f"the program crashed ({signal.Signals(-status).name})"
        return f"the program ended with exit status {status}"


class _HiddenFilesError(Exception):
    """Files lie where their size can't be seen."""


def _walk(folder: Path) -> Iterator[os.stat_result]:
    pending = [(str(folder), 0)]
    while pending:
        path, depth = pending.pop()
        if depth > MAX_DEPTH:
            raise _HiddenFilesError
        try:
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append((entry.path, depth + 1))
                    yield entry.stat(follow_symlinks=False)
        except PermissionError:
            raise _HiddenFilesError from None
        except FileNotFoundError:  # It has gone meanwhile.
            continue


def _nameless(process: int) -> list[os.stat_result]:
    """Files that have no name any more and are held open, such as temporary ones; what it prints goes to one, too."""
    found: dict[int, os.stat_result] = {}
    try:
        with os.scandir(f"/proc/{process}/fd") as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # It was closed meanwhile.
                    held = entry.stat()
                    if stat.S_ISREG(held.st_mode) and not held.st_nlink:
                        found[held.st_ino] = held
    except PermissionError:
        raise _HiddenFilesError from None
    except (FileNotFoundError, ProcessLookupError):  # It has ended.
        return []
    return list(found.values())


@contextmanager
def _own_folder() -> Iterator[str]:
    folder = tempfile.mkdtemp(prefix="journeyman-python-")
    try:
        yield folder
    finally:
        try:
            shutil.rmtree(folder)
        except (OSError, RecursionError):
            # Unreadable, or nested deeper than `rmtree` can go; these two don't recurse, nor follow links.
            subprocess.run(["chmod", "-R", "u+rwx", folder], check=False, capture_output=True)
            subprocess.run(["rm", "-rf", folder], check=False, capture_output=True)


def _printed(output: IO[bytes]) -> str:
    output.seek(0)
    text = output.read().decode(errors="replace").strip()
    if len(text) <= SHOWN_CHARS:
        return text
    half = SHOWN_CHARS // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters left out …]\n{text[-half:]}"
