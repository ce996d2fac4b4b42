"""The filter of system calls, run by a small interpreter of the test's own."""

import errno
import struct

import pytest
from support.sandboxes import outcomes, skip_without_isolation

from assay_models.families.code_exec.seccomp import MACHINES, REFUSED, filter_for

ALLOWED, KILLED = 0x7FFF0000, 0x80000000
NUMBERS = {
    "x86_64": {"read": 0, "fork": 57, "clone": 56, "clone3": 435, "socket": 41, "prlimit64": 302},
    "aarch64": {"read": 63, "clone": 220, "clone3": 435, "socket": 198, "prlimit64": 261},
}
NEW_USERS, NEW_NETWORK, THREAD = 0x10000000, 0x40000000, 0x3D0F00


def decision(code: bytes, number: int, machine: int, argument: int = 0) -> int:
    """Run the filter on a call and return its decision."""
    call = struct.pack("=IIQQ", number, machine, 0, argument)
    instructions = list(struct.iter_unpack("=HBBI", code))
    index = loaded = 0
    while True:
        kind, if_true, if_false, operand = instructions[index]
        index += 1
        if kind == 0x06:
            return int(operand)
        if kind == 0x20:
            (loaded,) = struct.unpack_from("=I", call, operand)
            continue
        holds = {0x15: loaded == operand, 0x35: loaded >= operand, 0x45: bool(loaded & operand)}
        index += if_true if holds[kind] else if_false


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def answer(machine: str, call: str | int, argument: int = 0) -> int:
    number = NUMBERS[machine][call] if isinstance(call, str) else call
    return decision(filter_for(machine), number, MACHINES[machine][1], argument)


def refusal(code: int) -> int:
    return 0x00050000 | code


def test_ordinary_calls_are_allowed(machine: str) -> None:
    for call in NUMBERS[machine].keys() - {"clone3", "socket"}:
        assert answer(machine, call) == ALLOWED


def test_the_listed_calls_are_refused(machine: str) -> None:
    column = MACHINES[machine][0]
    for numbers in REFUSED.values():
        assert answer(machine, numbers[column]) == refusal(errno.EPERM)


def test_processes_and_threads_are_allowed_and_namespaces_refused(machine: str) -> None:
    assert answer(machine, "clone", THREAD) == ALLOWED
    assert answer(machine, "clone3") == refusal(errno.ENOSYS)
    for flag in (NEW_USERS, NEW_NETWORK):
        assert answer(machine, "clone", THREAD | flag) == refusal(errno.EPERM)


def test_the_limits_of_another_process_cannot_be_changed(machine: str) -> None:
    assert answer(machine, "prlimit64", 0) == ALLOWED
    assert answer(machine, "prlimit64", 1) == refusal(errno.EPERM)


@pytest.mark.parametrize(
    ("family", "allowed"), [(1, 1), (2, 1), (10, 1), (16, 0), (38, 0), (40, 0)]
)
def test_only_unix_and_ip_sockets_are_allowed(machine: str, family: int, allowed: int) -> None:
    expected = ALLOWED if allowed else refusal(errno.EAFNOSUPPORT)
    assert answer(machine, "socket", family) == expected


def test_calls_of_another_interface_to_the_kernel_are_killed_or_refused(machine: str) -> None:
    assert decision(filter_for(machine), 0, 0x40000003) == KILLED
    if machine == "x86_64":
        assert answer(machine, 0x40000000 | 101) == refusal(errno.EPERM)


def test_an_unknown_machine_has_no_filter() -> None:
    assert filter_for("riscv64") == b""


def test_the_kernel_enforces_the_filter() -> None:
    skip_without_isolation()
    program = "import ctypes, errno\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    program += "def code(name, *a):\n    assert getattr(libc, name)(*a) == -1\n"
    program += "    return ctypes.get_errno()\n"
    tests = [
        "assert code('ptrace', 0, 0, 0, 0) == errno.EPERM",
        "assert code('unshare', 0x10000000) == errno.EPERM",
        "assert code('mount', b'x', b'/tmp', b'tmpfs', 0, None) == errno.EPERM",
        "assert code('socket', 16, 3, 0) == errno.EAFNOSUPPORT",
    ]
    assert outcomes(program, *tests) == ["pass"] * len(tests)
