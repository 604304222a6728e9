"""A program that a model wrote computes, and reaches nothing else: the walls are the kernel's, and are tried here."""

import asyncio
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import pytest

from journeyman.tools.call import CallResult, call_tool
from journeyman.tools.python import python
from journeyman.tools.seccomp import ANY_BIT, EQUAL, syscall_filter
from journeyman.tools.tool import Tool
from journeyman.traces.errors import ConfigError

LEFT_BEHIND = "journeyman-python-*"


@pytest.fixture(scope="module")
def sandbox() -> Tool:
    return python(max_seconds=5, memory_mb=256, disk_mb=4)


@pytest.fixture(scope="module")
def hasty() -> Tool:
    return python(max_seconds=0.5, disk_mb=4)


@pytest.fixture(autouse=True)
def _nothing_is_left_behind() -> Iterator[None]:
    before = set(Path(tempfile.gettempdir()).glob(LEFT_BEHIND))
    yield
    assert set(Path(tempfile.gettempdir()).glob(LEFT_BEHIND)) <= before


async def ran(tool: Tool, code: str) -> CallResult:
    return await call_tool(tool, {"code": code})


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("print('a')\nprint('b')", "a\nb"),
        ("x = 3\nx * 2", "6"),
        ("x = 3", "it printed nothing"),
        ("import os\nopen('f', 'w').write('é'); print(open('f').read(), os.listdir())", "é ['f']"),
        (
            "import asyncio\nasync def f():\n    await asyncio.sleep(0.01)\n    return 'slept'\nasyncio.run(f())",
            "'slept'",
        ),
        ("import threading as t\na = t.Thread(target=print, args=['in it']); a.start(); a.join()", "in it"),
        (
            "import csv, decimal, hashlib, json, lzma, sqlite3, ssl, statistics, zoneinfo\nstatistics.mean([1, 2])",
            "1.5",
        ),
    ],
)
async def test_a_program_shows_what_it_prints_and_its_last_value(sandbox: Tool, code: str, shown: str) -> None:
    called = await ran(sandbox, code)
    assert (called.status, called.content) == ("ok", shown)


async def test_a_mistake_comes_back_with_its_line_and_what_was_printed_before(sandbox: Tool) -> None:
    called = await ran(sandbox, "print('so far')\ndef half(x):\n    return x / 0\nhalf(1)")
    assert called.status == "failed"
    assert "so far" in called.content and "line 3, in half" in called.content
    assert called.content.endswith("ZeroDivisionError: division by zero")
    assert "sandbox.py" not in called.content
    assert "line 1\n    print('a\n" in (await ran(sandbox, "print('a")).content
    for stop in ("KeyboardInterrupt", "GeneratorExit"):
        called = await ran(sandbox, f"raise {stop}")
        assert called.status == "failed" and called.content.endswith(stop) and "sandbox.py" not in called.content
    assert (await ran(sandbox, "import sys; sys.exit(3)")).content == "python: the program ended with exit status 3"


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.create_connection(('127.0.0.1', PORT))",
        "import socket; socket.socket(socket.AF_UNIX)",
        "import socket; socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
        "import os\nwhile True: os.fork()",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.execv('/bin/true', ['true'])",
        "import multiprocessing as m; m.Process(target=print).start()",
        "import os; os.kill(os.getppid(), 9)",
        "import ctypes, os; e = ctypes.CDLL(None, use_errno=True)\n"
        "if e.ptrace(16, os.getppid(), 0, 0): raise PermissionError(1, 'Operation not permitted')",
        "import ctypes; e = ctypes.CDLL(None, use_errno=True)\n"
        "if e.prctl(1, 0, 0, 0, 0): raise PermissionError(1, 'Operation not permitted')",
        "import resource, os; resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (4, 4))",
        "import fcntl, os; r, w = os.pipe(); fcntl.fcntl(r, fcntl.F_SETOWN, os.getppid())",
        "import os; os.chmod('SECRET', 0)",
        "import os; os.utime('SECRET')",
        "import os; os.memfd_create('room')",
    ],
)
async def test_the_kernel_refuses_the_call(sandbox: Tool, tmp_path: Path, code: str) -> None:
    (tmp_path / "secret").write_text("hush")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = code.replace("PORT", str(server.getsockname()[1])).replace("SECRET", str(tmp_path / "secret"))
        called = await ran(sandbox, code)
    assert called.status == "failed"
    assert "PermissionError" in called.content and "Operation not permitted" in called.content


@pytest.mark.parametrize(
    "code",
    [
        "open('SECRET').read()",
        "open('SECRET', 'w')",
        "import os; os.truncate('SECRET', 0)",
        "import os; os.unlink('SECRET')",
        "import os; os.symlink('SECRET', 'link'); open('link').read()",
        "import os; os.link('SECRET', 'link'); open('link').read()",
        "import os; os.rename('SECRET', 'mine')",
        "open('NEW', 'w')",
        "import os; os.mkdir('NEW')",
        "import os; os.listdir('/tmp')",
        "import os; open(f'/proc/{os.getppid()}/environ').read()",
        "open('/etc/passwd').read()",
        "open('/dev/shm/room', 'w')",
    ],
)
async def test_files_outside_its_folder_are_out_of_reach(sandbox: Tool, tmp_path: Path, code: str) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hush")
    called = await ran(sandbox, code.replace("SECRET", str(secret)).replace("NEW", str(tmp_path / "new")))
    assert called.status == "failed"
    assert "Permission denied" in called.content or "cross-device" in called.content
    assert secret.read_text() == "hush"
    assert os.listdir(tmp_path) == ["secret"]  # noqa: PTH208


async def test_nothing_is_handed_down(sandbox: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", "hush")
    with tempfile.TemporaryFile() as file:
        os.set_inheritable(file.fileno(), True)
        said = await ran(
            sandbox,
            "import os, sys\n"
            "def there(n):\n    try: os.fstat(n); return True\n    except OSError: return False\n"
            "[n for n in range(64) if there(n)], 'API_TOKEN' in os.environ, 'site-packages' in str(sys.path)",
        )
    assert said.content == "([0, 1, 2], False, False)"


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)", "import signal\nsignal.pause()"])
async def test_a_program_without_end_is_killed_at_the_end_of_its_time(hasty: Tool, code: str) -> None:
    started = perf_counter()
    called = await ran(hasty, "print('begun')\n" + code)
    assert called.content == "python: the program was stopped after 0.5 s\nbegun"
    assert perf_counter() - started < 2


async def test_memory_is_limited(sandbox: Tool) -> None:
    assert (await ran(sandbox, "x = 'a' * 10**9")).content.endswith("MemoryError")
    assert "MemoryError" in (await ran(sandbox, "x = []\nwhile True: x.append('a' * 10**6 + str(len(x)))")).content


NAMELESS = "import tempfile, time\nheld = [tempfile.TemporaryFile(buffering=0) for _ in range(9)]\n"


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("open('f', 'wb').write(b'x' * 10**7)", "File too large"),
        ("while True: print('x' * 1000)", "printed more than 4 MB"),
        ("n = 0\nwhile True:\n    n += 1\n    open(str(n), 'wb').write(b'x' * 10**6)", "its files take more than 4 MB"),
        ("n = 0\nwhile True:\n    n += 1\n    open(str(n), 'wb')", "it made more than 1,000 files"),
        (f"{NAMELESS}for f in held: f.write(b'x' * 10**6)\ntime.sleep(9)", "its files take more than 4 MB"),
        (
            f"{NAMELESS}import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\nfor f in held: f.write(b'x' * 10**6)\n"
            "time.sleep(9)",
            "more than 4 MB" if os.getuid() == 0 else "unreadable",
        ),
        ("import os\nwhile True: os.mkdir('d'); os.chdir('d')", "nested more than 32 deep"),
    ],
)
async def test_disk_is_limited(sandbox: Tool, code: str, why: str) -> None:
    called = await ran(sandbox, code)
    assert called.status == "failed"
    assert why in called.content


async def test_of_a_long_output_the_beginning_and_the_end_are_shown(sandbox: Tool) -> None:
    shown = (await ran(sandbox, "print('first', 'x' * 10**6, 'last')")).content
    assert shown.startswith("first") and shown.endswith("last")
    assert len(shown) < 10_100 and "characters left out" in shown


async def test_a_cancelled_call_leaves_no_process(sandbox: Tool) -> None:
    call = asyncio.create_task(ran(sandbox, "import os, time; open('here', 'w'); time.sleep(60)"))
    async with asyncio.timeout(10):
        while not (running := _begun()):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not _begun()
    assert not _processes_with(str(running[0].parent))


def _begun() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob(f"{LEFT_BEHIND}/here"))


def _processes_with(argument: str) -> list[Path]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if argument.encode() in process.read_bytes():
                found.append(process)
    return found


async def test_a_wall_is_left_out_only_when_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "open").write_text("public")
    reads = python(files="allowed")
    assert (await ran(reads, f"open('{tmp_path}/open').read()")).content == "'public'"
    assert "PermissionError" in (await ran(reads, "import socket; socket.socket()")).content
    connects = python(network="allowed")
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket; socket.create_connection(('localhost', {server.getsockname()[1]})).close()"
        assert (await ran(connects, code)).status == "ok"
    assert "PermissionError" in (await ran(connects, f"open('{tmp_path}/open').read()")).content
    assert "PermissionError" in (await ran(connects, "import socket; socket.socket(socket.AF_UNIX)")).content


def test_both_machines_have_a_filter_and_others_none() -> None:
    for machine in ("x86_64", "aarch64"):
        code = syscall_filter(machine, network=False)
        instructions = list(struct.iter_unpack("=HBBI", code))
        assert len(instructions) < 4096
        jumps = [
            place + 1 + max(yes, no)
            for place, (kind, yes, no, _) in enumerate(instructions)
            if kind in (EQUAL, ANY_BIT)
        ]
        assert max(jumps) < len(instructions)
        assert len(syscall_filter(machine, network=True)) > len(code)
    with pytest.raises(ConfigError, match="no sandbox for a riscv64 machine"):
        syscall_filter("riscv64", network=False)
