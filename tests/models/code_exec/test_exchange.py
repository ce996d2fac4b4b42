"""Programs that read an input and print an output, and the exception that ended a program."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sandboxes import skip_without_isolation

from assay_models.families.code_exec.exchange import (
    EXCEPTIONS,
    exception_number,
    output_digest,
)
from assay_models.families.code_exec.sandbox import Bounds, ExecutionResult, Outcome, Sandbox

PAIR = ("1 2\n", "3\n")


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    skip_without_isolation()
    return Sandbox(Bounds(cpu_seconds=1, total_cpu_seconds=3), is_isolated=True)


def named(result: ExecutionResult) -> tuple[str, str]:
    return result.outcome, EXCEPTIONS[result.exception]


ENDS: dict[str, tuple[str, Outcome, str]] = {
    "input and print": ("a, b = map(int, input().split())\nprint(a + b)", "pass", ""),
    "a main function": (
        "import sys\ndef main():\n    print(sum(map(int, sys.stdin.read().split())))\n"
        "if __name__ == '__main__':\n    main()",
        "pass",
        "",
    ),
    "descriptor 0": ("print(sum(map(int, open(0).read().split())))", "pass", ""),
    "bytes": (
        "import sys\nsys.stdout.buffer.write(b'3' + sys.stdin.buffer.read()[4:])",
        "pass",
        "",
    ),
    "trailing blanks and line ends": ("print('3', end=' \\r\\n\\n')", "pass", ""),
    "a thread": ("import threading\nthreading.Thread(target=print, args=(3,)).start()", "pass", ""),
    "an exit handler": ("import atexit\natexit.register(print, 3)", "pass", ""),
    "status 0": ("import sys\nprint(3)\nsys.exit(0)", "pass", ""),
    "an early exit with status 0": ("import os\nprint(3, flush=True)\nos._exit(0)", "pass", ""),
    "errors on another stream": ("import sys\nprint(4, file=sys.stderr)\nprint(3)", "pass", ""),
    "another status": ("import sys\nprint(3)\nsys.exit(1)", "exit", ""),
    "a wrong output": ("print(4)", "fail", ""),
    "no output": ("x = input()", "fail", ""),
    "a blank before the output": ("print(' 3')", "fail", ""),
    "an exception": ("print(3)\n1 / 0", "error", "ZeroDivisionError"),
    "an exception of its own": (
        "class Odd(LookupError):\n    pass\nraise Odd('text')",
        "error",
        "LookupError",
    ),
    "a library's exception": ("import json\njson.loads('{')", "error", "ValueError"),
    "an assertion": ("assert False", "fail", "AssertionError"),
    "more input than there is": ("input()\ninput()", "error", "EOFError"),
    "too much memory": ("x = bytearray(10 ** 10)", "memory", "MemoryError"),
    "endless output": ("while True:\n    print('a' * 100_000)", "error", "OSError"),
}


@pytest.mark.parametrize("end", ENDS)
async def test_a_program_with_an_input_ends_as_stated(sandbox: Sandbox, end: str) -> None:
    program, outcome, exception = ENDS[end]
    (result,) = await sandbox.run(program, [], [PAIR])
    assert named(result) == (outcome, exception)


async def test_each_pair_has_its_own_time_limit_and_its_own_process(sandbox: Sandbox) -> None:
    program = "import sys\nn = int(input())\nwhile n == 2:\n    pass\nprint(n)"
    pairs = [("1\n", "1"), ("2\n", "2"), ("3\n", "3")]
    results = await sandbox.run(program, [], pairs)
    assert [result.outcome for result in results] == ["pass", "timeout", "pass"]


async def test_tests_and_pairs_are_run_in_this_order(sandbox: Sandbox) -> None:
    program = "def half(x):\n    return 1 / x\nif __name__ == '__main__':\n    print(3)"
    results = await sandbox.run(program, ["assert half(1) == 1", "half(0)"], [PAIR])
    assert list(map(named, results)) == [("pass", ""), ("error", "ZeroDivisionError"), ("pass", "")]


async def test_the_expected_output_is_not_in_the_sandbox(sandbox: Sandbox) -> None:
    secret = "7319461"
    program = (
        "import gc, sys\n"
        "frame, seen = sys._getframe(), []\n"
        "while frame:\n"
        "    seen.append(repr(frame.f_locals) + repr(frame.f_globals))\n"
        "    frame = frame.f_back\n"
        "seen += [repr(thing) for thing in gc.get_objects() if isinstance(thing, (dict, list))]\n"
        f"print('found' if any('{secret[:4]}' '{secret[4:]}' in text for text in seen) else 'not')"
    )
    results = await sandbox.run(program, [], [("", "not"), ("", secret)])
    assert [result.outcome for result in results] == ["pass", "fail"]


LINES = st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8")), max_size=5)


@given(lines=LINES, blanks=st.text(" \t", max_size=3), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_trailing_blanks_and_line_ends_do_not_change_a_digest(
    lines: list[str], blanks: str, end: str
) -> None:
    plain = "\n".join(lines).encode()
    padded = end.join(line + blanks for line in [*lines, "", ""]).encode()
    assert output_digest(padded) == output_digest(plain)


@pytest.mark.parametrize("other", [" 3", "\n3", "3 3", "33", "", "3.0"])
def test_other_differences_change_a_digest(other: str) -> None:
    assert output_digest(other.encode()) != output_digest(b"3")


def test_an_exception_is_named_by_the_nearest_of_pythons_own() -> None:
    class Odd(KeyError):
        pass

    assert EXCEPTIONS[exception_number(Odd("text"))] == "KeyError"
    assert EXCEPTIONS[exception_number(OSError())] == "OSError"
    assert exception_number(None) == 0
    assert len(EXCEPTIONS) < 256


def test_the_digest_of_an_output_of_line_breaks_takes_a_few_times_its_memory() -> None:
    output = b"\n" * 4_000_000
    tracemalloc.start()
    output_digest(output)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * len(output)
