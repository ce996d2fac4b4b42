"""Adversarial programs: the outcome of each, and the processes and files that remain."""

import pytest
from support.sandboxes import (
    BOUNDS,
    outcomes,
    run,
    sandbox_processes,
    scratch_folders,
    skip_without_isolation,
)

from assay_models.base import ItemError
from assay_models.families.code_exec.sandbox import Bounds, Sandbox

pytestmark = pytest.mark.slow

TEST = "assert answer() == 42"
RIGHT = "def answer():\n    return 42\n"
WRONG = "def answer():\n    return 41\n"
IMPORTS = "import sys, os, time, signal, threading, builtins, ctypes, atexit, resource\n"


@pytest.fixture(autouse=True)
def _isolated() -> None:
    skip_without_isolation()


def outcome(program: str, test: str = TEST) -> str:
    (result,) = outcomes(IMPORTS + program, test)
    return result


ENDINGS = {
    "os._exit at import": "os._exit(0)",
    "os._exit when called": "def answer():\n    os._exit(0)",
    "sys.exit at import": "sys.exit()",
    "sys.exit when called": "def answer():\n    sys.exit(0)",
    "SystemExit": "def answer():\n    raise SystemExit(0)",
    "a thread that ends the process": (
        "def answer():\n    threading.Thread(target=os._exit, args=(0,)).start()\n    time.sleep(9)"
    ),
    "a parent that ends and leaves a child": "if os.fork():\n    os._exit(0)\n" + RIGHT,
    "the C library's exit": "ctypes.CDLL(None).exit(0)",
    "any other status": "os._exit(7)",
}


@pytest.mark.parametrize("name", ENDINGS)
def test_a_process_that_ends_early_is_an_exit_and_no_pass(name: str) -> None:
    assert outcome(ENDINGS[name]) == "exit"


ESCAPES = {
    "an exit that never runs": "os._exit = lambda code: None\n" + WRONG,
    "an exit at exit": "atexit.register(os._exit, 0)\n" + WRONG,
    "another AssertionError": "builtins.AssertionError = ValueError\n" + WRONG,
    "an AssertionError that is everything": (
        "builtins.AssertionError = builtins.MemoryError = object\n" + WRONG
    ),
    "a hook for what is raised": "sys.excepthook = lambda *_: os._exit(0)\n" + WRONG,
    "a verdict printed": "print('pass 0.001')\nos.write(1, b'pass 0.001\\n')\n" + WRONG,
    "a verdict in every file there may be": (
        "for file in range(64):\n"
        "    try:\n        os.write(file, b'pass 0.001\\n')\n"
        "    except OSError:\n        pass\n" + WRONG
    ),
    "a module in the place of the runner's": "sys.modules['__main__'].run = None\n" + WRONG,
    "no optimisation of assertions": "sys.flags = None\n__debug__\n" + WRONG,
}


@pytest.mark.parametrize("name", ESCAPES)
def test_a_wrong_answer_never_passes(name: str) -> None:
    assert outcome(ESCAPES[name]) in ("fail", "error", "exit", "crash")


@pytest.mark.parametrize(
    "test",
    [
        "assert answer() > 41",
        "assert answer() in (41, 42)",
        "assert isinstance(answer(), int)",
        "try:\n    assert answer() == 1\nexcept AssertionError:\n    pass",
        "value = answer()\nassert value == 42",
        "def check(f):\n    if f():\n        return\n    assert f() == 1\ncheck(answer)",
        "assert answer() == answer()",
        "assert not answer() == None",
        "answer()",
    ],
)
def test_an_honest_program_passes_every_form_of_test(test: str) -> None:
    assert outcome(RIGHT, test) == "pass"


CRASHES = {
    "a null pointer": "def answer():\n    ctypes.string_at(0)",
    "a signal to itself": "def answer():\n    os.kill(os.getpid(), signal.SIGKILL)",
    "abort": "def answer():\n    os.abort()",
}


@pytest.mark.parametrize("name", CRASHES)
def test_a_crash_is_an_outcome(name: str) -> None:
    assert outcome(CRASHES[name]) == "crash"


LOOPS = {
    "a loop": "while True:\n    pass",
    "a loop when called": "def answer():\n    while True:\n        pass",
    "a loop that ignores the signal": (
        "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    pass"
    ),
    "more time than is allowed, and then the right answer": (
        "signal.signal(signal.SIGXCPU, signal.SIG_IGN)\n"
        "while time.process_time() < 1.2:\n    pass\n" + RIGHT
    ),
    "a limit raised": (
        "try:\n    resource.setrlimit(resource.RLIMIT_CPU, (99, 99))\n"
        "except (ValueError, OSError):\n    pass\nwhile True:\n    pass"
    ),
    "children that work": (
        "for _ in range(2):\n    if os.fork() == 0:\n"
        "        while time.process_time() < 0.8:\n            pass\n        os._exit(0)\n"
        "os.wait(), os.wait()\n" + RIGHT
    ),
    "output without end": "while True:\n    os.write(1, b'x' * 65536)",
}


@pytest.mark.parametrize("name", LOOPS)
def test_cpu_time_is_limited(name: str) -> None:
    assert outcome(LOOPS[name]) == "timeout"


BOMBS = {
    "memory": ("x = [0] * 10**9", {"memory"}),
    "memory, bit by bit": ("x = []\nwhile True:\n    x.append(bytearray(1 << 20))", {"memory"}),
    "processes": ("while True:\n    os.fork()", {"error", "timeout"}),
    "threads": (
        "for _ in range(99):\n    threading.Thread(target=time.sleep, args=(9,)).start()",
        {"error"},
    ),
    "a file": (
        "with open('f', 'wb') as f:\n    while True:\n        f.write(bytes(1 << 20))",
        {"error"},
    ),
    "files": (
        "for n in range(99):\n    with open(f'{n}', 'wb') as f:\n        f.write(bytes(1 << 20))",
        {"error"},
    ),
    "empty files": ("for n in range(10**6):\n    open(f'{n}', 'w').close()", {"error"}),
    "open files": ("x = [open('/dev/null') for _ in range(99)]", {"error"}),
    "depth": ("def answer():\n    return answer()", {"error"}),
    "depth without a bound": (
        "sys.setrecursionlimit(10**9)\ndef answer():\n    return [answer() for _ in '1']",
        {"crash", "memory", "error", "timeout"},
    ),
    "standard input": ("input()", {"error"}),
}


@pytest.mark.parametrize("name", BOMBS)
def test_memory_processes_files_and_depth_are_limited(name: str) -> None:
    program, expected = BOMBS[name]
    assert outcome(program) in expected


@pytest.mark.parametrize(
    "program",
    [
        "for _ in range(64):\n    os.write(1, b'x' * (1 << 20))",
        "sys.stdout = sys.stderr = None",
        "if os.fork() == 0:\n    os._exit(1)",
        "from concurrent.futures import ThreadPoolExecutor\n"
        "list(ThreadPoolExecutor(3).map(str, range(9)))",
        "import multiprocessing\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n    pool.map(abs, [-1, -2])",
        "import tempfile\ntempfile.NamedTemporaryFile().write(b'x')",
        "if __name__ == '__main__':\n    input()",
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Point:\n    x: int",
        "import pickle\nclass Point:\n    pass\npickle.loads(pickle.dumps(Point()))",
    ],
)
def test_ordinary_behaviour_of_programs_is_allowed(program: str) -> None:
    future, _, rest = program.rpartition("from __future__ import annotations\n")
    head = future + ("from __future__ import annotations\n" if rest != program else "")
    (result,) = outcomes(f"{head}{IMPORTS}{rest}\n{RIGHT}", TEST)
    assert result == "pass"


def test_a_program_that_waits_forever_is_an_item_error() -> None:
    short = BOUNDS.model_copy(update={"total_cpu_seconds": 1, "wall_seconds": 1.5})
    for waiting in ("time.sleep(99)", "os.kill(os.getpid(), signal.SIGSTOP)"):
        with pytest.raises(ItemError) as caught:
            run(IMPORTS + waiting, TEST, sandbox=Sandbox(short, is_isolated=True))
        assert caught.value.code == "not_finished"
    assert sandbox_processes() == []


def test_a_program_that_waits_and_computes_a_little_is_a_timeout() -> None:
    program = (
        "def answer():\n    while True:\n        end = time.perf_counter() + 0.004\n"
        "        while time.perf_counter() < end:\n            pass\n        time.sleep(0.06)"
    )
    bounds = BOUNDS.model_copy(update={"cpu_seconds": 2, "wall_seconds": 20.0})
    box = Sandbox(bounds, is_isolated=True)
    assert outcomes(IMPORTS + program, TEST, sandbox=box) == ["timeout"]


def test_tests_do_not_affect_one_another() -> None:
    program = "seen = []\ndef note(x):\n    seen.append(x)\n    return len(seen)"
    tests = [
        "assert note(1) == 1; open('kept', 'w').close()",
        "import os; assert note(1) == 1 and not os.path.exists('kept')",
        "import builtins; builtins.len = None",
        "assert note(1) == 1",
    ]
    assert outcomes(program, *tests) == ["pass"] * 4


def test_each_test_has_its_own_outcome_in_order() -> None:
    program = "def f(x):\n    if x > 2:\n        raise ValueError\n    return x"
    tests = ["assert f(1) == 1", "assert f(2) == 1", "assert f(3) == 3", "assert f(0) == 0"]
    assert outcomes(program, *tests) == ["pass", "fail", "error", "pass"]


def test_tests_without_cpu_time_left_are_skipped() -> None:
    bounds = Bounds(cpu_seconds=1, total_cpu_seconds=2, memory_mb=256)
    results = outcomes(
        "while True: pass", *["assert done"] * 4, sandbox=Sandbox(bounds, is_isolated=True)
    )
    assert results[:2] == ["timeout", "timeout"]
    assert results[-1] == "skipped"


def test_sets_of_strings_have_one_order() -> None:
    program = "order = ''.join({chr(97 + n) for n in range(26)})"
    tests = [f"assert order[{n}] > 'm'" for n in range(26)]
    assert outcomes(program, *tests) == outcomes(program, *tests)


def test_no_process_or_folder_remains() -> None:
    before = scratch_folders()
    outlives = (
        "if os.fork() == 0:\n    os.setsid()\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    if os.fork() == 0:\n        time.sleep(999)\n    time.sleep(999)\n"
    )
    assert outcome(outlives + RIGHT) == "pass"
    for program in (*ENDINGS.values(), BOMBS["processes"][0], BOMBS["files"][0]):
        outcome(program)
    assert sandbox_processes() == []
    assert scratch_folders() == before
