"""The filter of system calls: what the kernel does for a sandboxed program, and what it refuses.

A list of what is allowed, since a list of what is not would never be complete. No program is started, no process
forked, no socket opened, no signal sent, no mode or owner of a file changed, nothing asked of other processes.
The rest is refused with EPERM, which Python raises as `PermissionError`. See seccomp(2) and the kernel's
`Documentation/userspace-api/seccomp_filter.rst`.
"""

import struct
from collections.abc import Iterator, Sequence

from journeyman.traces.errors import ConfigError

ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Place of a machine's numbers in the tables below, and the kernel's constant for it (linux/audit.h)."""

ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # Reading, writing and moving in files that may be opened.
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "pread64": (17, 67),
    "pwrite64": (18, 68),
    "preadv": (295, 69),
    "pwritev": (296, 70),
    "preadv2": (327, 286),
    "pwritev2": (328, 287),
    "open": (2, None),
    "openat": (257, 56),
    "close": (3, 57),
    "close_range": (436, 436),
    "lseek": (8, 62),
    "flock": (73, 32),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    "fsync": (74, 82),
    "fdatasync": (75, 83),
    "ftruncate": (77, 46),
    "fallocate": (285, 47),
    "fadvise64": (221, 223),
    "copy_file_range": (326, 285),
    "sendfile": (40, 71),
    # Names.
    "stat": (4, None),
    "lstat": (6, None),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "getdents64": (217, 61),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "mkdir": (83, None),
    "mkdirat": (258, 34),
    "rmdir": (84, None),
    "unlink": (87, None),
    "unlinkat": (263, 35),
    "rename": (82, None),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, None),
    "linkat": (265, 37),
    "symlink": (88, None),
    "symlinkat": (266, 36),
    "truncate": (76, 45),
    "creat": (85, None),
    "umask": (95, 166),
    # Memory.
    "brk": (12, 214),
    "mmap": (9, 222),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "mprotect": (10, 226),
    "madvise": (28, 233),
    "msync": (26, 227),
    "mincore": (27, 232),
    "membarrier": (324, 283),
    # Threads, and the end.
    "exit": (60, 93),
    "exit_group": (231, 94),
    "futex": (202, 98),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    "rseq": (334, 293),
    "set_tid_address": (218, 96),
    "arch_prctl": (158, None),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "sched_get_priority_max": (146, 125),
    "sched_get_priority_min": (147, 126),
    "getcpu": (309, 168),
    "wait4": (61, 260),
    "waitid": (247, 95),
    "restart_syscall": (219, 128),
    # Signals to itself that the kernel sends, and clocks.
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "rt_sigsuspend": (130, 133),
    "rt_sigtimedwait": (128, 137),
    "sigaltstack": (131, 132),
    "alarm": (37, None),
    "pause": (34, None),
    "setitimer": (38, 103),
    "getitimer": (36, 102),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "timerfd_create": (283, 85),
    "timerfd_settime": (286, 86),
    "timerfd_gettime": (287, 87),
    # Waiting.
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "epoll_create": (213, None),
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    "eventfd": (284, None),
    "eventfd2": (290, 19),
    "pipe": (22, None),
    "pipe2": (293, 59),
    # A pair of connected sockets, which asyncio wakes itself with.
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "shutdown": (48, 210),
    "getsockopt": (55, 209),
    "setsockopt": (54, 208),
    "getsockname": (51, 204),
    "getpeername": (52, 205),
    # Who and where it is.
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getgroups": (115, 158),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getpgid": (121, 155),
    "getpgrp": (111, None),
    "getsid": (124, 156),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "getrandom": (318, 278),
    "capget": (125, 90),
}
"""Number on x86_64, and on aarch64 where the call exists there."""

FORK = (56, 220)
PRCTL = (157, 167)
CLONE3 = (435, 435)
LIMITS = (302, 261)
FCNTL = (72, 25)
IOCTL = (16, 29)
SOCKETPAIR = (53, 199)
SOCKET = (41, 198)
NETWORK = ((42, 203), (49, 200), (50, 201), (43, 202), (288, 242), (307, 269), (299, 243))
"""connect, bind, listen, accept, accept4, sendmmsg, recvmmsg."""

CLONE_THREAD = 0x10000
SET_DEATH_SIGNAL = (1,)
"""PR_SET_PDEATHSIG: without it a program could outlive the process that has to stop it."""
SET_OWNER = (8, 15)
"""F_SETOWN and F_SETOWN_EX: who gets a signal when a file becomes ready."""
SET_OWNER_IOCTL = (0x8901, 0x8902)
FAMILIES = (2, 10, 16)
"""AF_INET, AF_INET6, and AF_NETLINK, which the look-up of names uses."""
UNIX_STREAM = (1, 1)

ALLOW, KILL, REFUSE, MISSING = 0x7FFF0000, 0x80000000, 0x00050001, 0x00050026
"""Return values of a filter: SECCOMP_RET_ALLOW, _KILL_PROCESS, and _ERRNO with EPERM or ENOSYS."""
LOAD, EQUAL, ANY_BIT, MASK, RETURN = 0x20, 0x15, 0x45, 0x54, 0x06
NUMBER_AT, ARCHITECTURE_AT, ARGUMENTS_AT = 0, 4, 16

Instruction = tuple[int, int, int, int]


def syscall_filter(machine: str, *, network: bool) -> bytes:
    """The filter as the kernel takes it, `struct sock_filter[]`; raises `ConfigError` for an unknown `machine`."""
    if machine not in ARCHITECTURES:
        raise ConfigError(f"there is no sandbox for a {machine} machine; there is for {', '.join(ARCHITECTURES)}")
    place, architecture = ARCHITECTURES[machine]
    program = [
        (LOAD, 0, 0, ARCHITECTURE_AT),
        (EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT),
        *_rules(place, network),
        (RETURN, 0, 0, REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _rules(place: int, network: bool) -> Iterator[Instruction]:
    for numbers in (*ALLOWED.values(), *(NETWORK if network else ())):
        number = numbers[place]
        if number is not None:
            yield from _when(number, [(RETURN, 0, 0, ALLOW)])
    yield from _when(FORK[place], [_argument(0), (ANY_BIT, 0, 1, CLONE_THREAD), *_verdicts(ALLOW, REFUSE)])
    # The C library then starts threads with clone, whose flags a filter can read.
    yield from _when(CLONE3[place], [(RETURN, 0, 0, MISSING)])
    # Its own limits only: it could else lower those of the process that started it.
    yield from _when(LIMITS[place], [_argument(0), (EQUAL, 0, 1, 0), *_verdicts(ALLOW, REFUSE)])
    yield from _when(PRCTL[place], _among(0, SET_DEATH_SIGNAL, REFUSE, ALLOW))
    yield from _when(FCNTL[place], _among(1, SET_OWNER, REFUSE, ALLOW))
    yield from _when(IOCTL[place], _among(1, SET_OWNER_IOCTL, REFUSE, ALLOW))
    # Stream sockets only: one that sends datagrams could send them to any socket of this machine.
    family, kind = UNIX_STREAM
    stream = [_argument(1), (MASK, 0, 0, 0xFF), (EQUAL, 0, 1, kind), *_verdicts(ALLOW, REFUSE)]
    yield from _when(SOCKETPAIR[place], [_argument(0), (EQUAL, 1, 0, family), (RETURN, 0, 0, REFUSE), *stream])
    if network:
        yield from _when(SOCKET[place], _among(0, FAMILIES, ALLOW, REFUSE))


def _when(number: int, then: Sequence[Instruction]) -> Iterator[Instruction]:
    """`then`, which ends in a verdict on every way through it, if the call has this number."""
    yield (EQUAL, 0, len(then), number)
    yield from then


def _argument(place: int) -> Instruction:
    """Loads the lower half of an argument; every flag and number looked at here fits into it."""
    return (LOAD, 0, 0, ARGUMENTS_AT + 8 * place)


def _verdicts(first: int, second: int) -> tuple[Instruction, Instruction]:
    return (RETURN, 0, 0, first), (RETURN, 0, 0, second)


def _among(place: int, values: Sequence[int], found: int, otherwise: int) -> list[Instruction]:
    tests = [(EQUAL, len(values) - number, 0, value) for number, value in enumerate(values)]
    return [_argument(place), *tests, *_verdicts(otherwise, found)]
