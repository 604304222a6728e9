"""The inner side of the `python` tool: a script that puts up the walls around itself, then runs a program.

It is started as `python -I -S sandbox.py {walls}` with the program on standard input, and imports nothing but the
standard library. A wall that cannot be put up ends it before the program begins.
"""

import ast
import ctypes
import json
import linecache
import os
import resource
import signal
import struct
import sys
import traceback
import types
from typing import Any, NoReturn

NO_WALL = 125
"""Exit status where a wall could not be put up."""
PROGRAM = "<program>"

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 1, 22, 38, 2
CAPABILITY_VERSION_3 = 0x20080522

# landlock(7); the numbers of its calls are the same on all machines.
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION, PATH_BENEATH = 1, 1
READ_FILE, READ_FOLDER = 1 << 2, 1 << 3
EXECUTE, MAKE_CHARACTER_DEVICE, MAKE_SOCKET, MAKE_BLOCK_DEVICE, REFER, TRUNCATE, IOCTL_DEVICE = (
    *(1 << 0, 1 << 6, 1 << 9, 1 << 11, 1 << 13, 1 << 14, 1 << 15),
)
WRITE_FILE = 1 << 1
ALL_RIGHTS = {3: (1 << 15) - 1, 5: (1 << 16) - 1}
OLDEST = 3
"""Version of Landlock: before it, any file that may be opened could be emptied (it came with Linux 6.2)."""

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    walls = json.loads(sys.argv[1])
    program = sys.stdin.buffer.read().decode()
    try:
        put_up(walls)
    except OSError as error:
        print(f"the sandbox has no wall: {error.strerror}", flush=True)
        sys.exit(NO_WALL)
    run(program)


def put_up(walls: dict[str, Any]) -> None:
    """Limits, then no privileges, then files, then system calls; none of it can be taken back."""
    _call("prctl", PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    for name, limit in walls["limits"].items():
        kind = getattr(resource, name)
        soft, hard = limit
        resource.setrlimit(kind, (soft, hard))
    _call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if walls["read"] is not None:
        restrict_files(walls["read"], walls["own"], network=walls["network"])
    _drop_capabilities()
    _filter_calls(bytes.fromhex(walls["filter"]))


def restrict_files(readable: list[str], own: str, *, network: bool) -> None:
    version = libc.syscall(CREATE_RULESET, None, 0, VERSION)
    if version < OLDEST:
        has = "no Landlock" if version < 0 else f"Landlock {version}"
        raise OSError(0, f"this kernel has {has}, files need version {OLDEST} (Linux 6.2)")
    rights = ALL_RIGHTS[5 if version >= 5 else 3]
    tcp = 0b11 if version >= 4 and not network else 0
    scopes = 0b11 if version >= 6 else 0  # No signal and no abstract socket leads out.
    attributes = struct.pack("=QQQ", rights, tcp, scopes)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = _called("landlock_create_ruleset", libc.syscall(CREATE_RULESET, attributes, len(attributes), 0))
    devices = EXECUTE | MAKE_CHARACTER_DEVICE | MAKE_BLOCK_DEVICE | MAKE_SOCKET | IOCTL_DEVICE
    _permit(ruleset, own, rights & ~devices)
    _permit(ruleset, "/dev/null", READ_FILE | WRITE_FILE)
    for path in readable:
        _permit(ruleset, path, READ_FILE | READ_FOLDER)
    _called("landlock_restrict_self", libc.syscall(RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def run(program: str) -> NoReturn:
    """Runs `program` as `__main__`; the value of a last line that is an expression is printed, as at a prompt."""
    main_module = types.ModuleType("__main__")
    sys.modules["__main__"] = main_module
    sys.argv = [PROGRAM]
    linecache.cache[PROGRAM] = (len(program), None, program.splitlines(keepends=True), PROGRAM)
    try:
        tree = ast.parse(program, PROGRAM)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, PROGRAM, "exec"), main_module.__dict__)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), PROGRAM, "eval"), main_module.__dict__)
            if value is not None:
                print(repr(value))
    except SystemExit:
        raise
    except BaseException as error:  # What stands above the program on the stack is nothing to its writer.
        at = error.__traceback__
        while at is not None and at.tb_frame.f_code.co_filename != PROGRAM:
            at = at.tb_next
        traceback.print_exception(error.with_traceback(at), limit=-8)
        sys.exit(1)
    sys.exit(0)


def _permit(ruleset: int, path: str, rights: int) -> None:
    """Gives `rights` beneath `path`, if it exists."""
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not os.path.isdir(path):  # noqa: PTH112 (pathlib takes a third of the start to import)
        rights &= READ_FILE | WRITE_FILE
    rule = struct.pack("=Qi", rights, opened)
    _called("landlock_add_rule", libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0))
    os.close(opened)


def _drop_capabilities() -> None:
    """Those of root; a program without them is root in name only."""
    header, none = struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24)
    _call("capset", ctypes.create_string_buffer(header, 8), ctypes.create_string_buffer(none, 24))


def _filter_calls(instructions: bytes) -> None:
    code = ctypes.create_string_buffer(instructions, len(instructions))
    program = struct.pack("@HP", len(instructions) // 8, ctypes.addressof(code))
    _call("prctl", PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(program, len(program)), 0, 0)


def _call(name: str, *arguments: Any) -> None:
    wide = [ctypes.c_ulong(value) if isinstance(value, int) else value for value in arguments]
    _called(name, getattr(libc, name)(*wide))


def _called(name: str, result: int) -> int:
    if result < 0:
        raise OSError(0, f"{name}: {os.strerror(ctypes.get_errno())}")
    return result


if __name__ == "__main__":
    main()
