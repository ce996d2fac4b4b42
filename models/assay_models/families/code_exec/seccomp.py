"""The system calls that a program in the sandbox cannot make: a seccomp filter as bytes.

Namespaces isolate a program from the outside. This filter refuses what their owner may do inside
(mount, make further namespaces, trace) and the parts of the kernel that no exercise needs. Unix and
IP sockets are allowed, which lead nowhere in an empty network. The others (VSOCK, to the host of a
virtual machine; NETLINK; ALG) have no network namespace, or reach too much of the kernel.

It also refuses memory that no limit of a process counts: shared memory and queues of System V,
files without a name (memfd), pages handed to a pipe (vmsplice), and objects of the kernel in any
number (POSIX queues, inotify, aio, landlock). And it refuses to choose priorities and processors:
what waits for its own processes would look like what waits for other programs.
"""

import errno
import struct
from collections.abc import Iterator

# linux/filter.h: load a word of the call, jump if equal / at least / any bit, return
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
# linux/seccomp.h: the offsets of the parts of a call, and the decisions
NUMBER, MACHINE, FIRST_ARGUMENT = 0, 4, 16
ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
# linux/audit.h, by platform.machine()
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
# Calls of x86-64's other interface have this bit.
X32 = 0x40000000
# linux/sched.h: CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET
NAMESPACES = 0x7E020000
UNIX, IPV4, IPV6 = 1, 2, 10

CLONE, CLONE3, SOCKET, PRLIMIT = (56, 220), (435, 435), (41, 198), (302, 261)
REFUSED = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "inotify_init": (253, 26),  # AArch64 has the other alone
    "inotify_init1": (294, 26),
    "io_setup": (206, 0),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "landlock_create_ruleset": (444, 444),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "mq_open": (240, 180),
    "msgget": (68, 186),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "request_key": (249, 218),
    "sched_setaffinity": (203, 122),
    "sched_setattr": (314, 274),
    "sched_setparam": (142, 118),
    "sched_setscheduler": (144, 119),
    "semget": (64, 190),
    "setns": (308, 268),
    "setpriority": (141, 140),
    "shmat": (30, 196),
    "shmget": (29, 194),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
    "vmsplice": (278, 75),
}
"""The numbers of the refused calls on x86-64 and on AArch64."""


def filter_for(machine: str) -> bytes:
    """Return the filter for that machine as the kernel takes it, or nothing for an unknown one."""
    if machine not in MACHINES:
        return b""
    return b"".join(
        struct.pack("=HBBI", *instruction) for instruction in _instructions(*MACHINES[machine])
    )


def _instructions(column: int, machine: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield code, jump if true, jump if false, operand. A jump counts the skipped instructions."""
    yield LOAD, 0, 0, MACHINE
    yield EQUAL, 1, 0, machine
    yield RETURN, 0, 0, KILL
    yield LOAD, 0, 0, NUMBER
    yield AT_LEAST, 0, 1, X32
    yield RETURN, 0, 0, REFUSE | errno.EPERM
    for numbers in REFUSED.values():
        yield EQUAL, 0, 1, numbers[column]
        yield RETURN, 0, 0, REFUSE | errno.EPERM
    # Its flags are in memory, which a filter cannot read; the C library falls back to clone.
    yield EQUAL, 0, 1, CLONE3[column]
    yield RETURN, 0, 0, REFUSE | errno.ENOSYS
    yield EQUAL, 0, 4, CLONE[column]
    yield LOAD, 0, 0, FIRST_ARGUMENT
    yield ANY_BIT, 0, 1, NAMESPACES
    yield RETURN, 0, 0, REFUSE | errno.EPERM
    yield RETURN, 0, 0, ALLOW
    yield EQUAL, 0, 4, PRLIMIT[column]
    yield LOAD, 0, 0, FIRST_ARGUMENT
    yield EQUAL, 1, 0, 0  # the process's own limits
    yield RETURN, 0, 0, REFUSE | errno.EPERM
    yield RETURN, 0, 0, ALLOW
    yield EQUAL, 0, 5, SOCKET[column]
    yield LOAD, 0, 0, FIRST_ARGUMENT
    for place, family in enumerate((UNIX, IPV4, IPV6)):
        yield EQUAL, 3 - place, 0, family
    yield RETURN, 0, 0, REFUSE | errno.EAFNOSUPPORT
    yield RETURN, 0, 0, ALLOW
