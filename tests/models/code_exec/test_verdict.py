"""Verdicts of judges: what tests may do with a program that runs in another process."""

import pytest
from support.sandboxes import skip_without_isolation

from assay_models.families.code_exec.exchange import EXCEPTIONS
from assay_models.families.code_exec.sandbox import Bounds, Outcome, Sandbox

PROGRAM = """
import asyncio, datetime, enum, math
from collections import Counter, deque, namedtuple

class Refused(ValueError):
    def __init__(self, code):
        super().__init__("refused")
        self.code = code
    def __str__(self):
        return f"code {self.code}"

class Stack(list):
    def push(self, value):
        self.append(value)

class Node:
    def __init__(self, value, following=None):
        self.value, self.following = value, following
    def total(self):
        return self.value + (self.following.total() if self.following else 0)
    def __eq__(self, other):
        return isinstance(other, Node) and self.value == other.value
    def __add__(self, other):
        return Node(self.value + other.value)
    def __len__(self):
        return 3

class Forgiving:
    def __enter__(self):
        return 5
    def __exit__(self, *error):
        return True

class Color(enum.Enum):
    RED, BLUE = 1, 2

Point = namedtuple("Point", "x y")
NUMBERS = [1, 2]

def square(x): return x * x
def count_up():
    number = 0
    while True:
        yield number
        number += 1
def up_to(n): return (number for number in range(n))
def add_four(values): values.append(4); values[0].append(1)
def put_in_order(values): values.sort(); return values
def refuse(x):
    if x < 0:
        raise ValueError("negative %d" % x)
    raise Refused(x)
def origin(): return Point(1, 2)
def letters(text): return Counter(text)
def apply(function, values): return [function(value) for value in values]
def greet(): print("hello")
async def later(x): return x + 1
def odd_numbers(): return float("nan"), float("inf"), 10 ** 400, -0.0, 1j
def nested(): return {1: [(2, {3}), b"x"], "a": None, (1, 2): frozenset([4])}
def red(): return Color.RED
def deep(n):
    value = []
    for _ in range(n):
        value = [value]
    return value
def day(): return datetime.date(2020, 1, 2)
def again(n): return again(n + 1)
def skip():
    import unittest
    raise unittest.SkipTest("no")
def first_line(path):
    with open(path) as file:
        return file.readline()
def draw():
    import random
    return random.random()
def large(): return "x" * (1 << 25)
"""
USES: dict[str, tuple[str, Outcome, str]] = {
    "plain data": (
        "assert nested() == {1: [(2, {3}), b'x'], 'a': None, (1, 2): frozenset([4])}",
        "pass",
        "",
    ),
    "odd numbers": (
        "a, b, c, d, e = odd_numbers()\n"
        "assert a != a and b == float('inf') and c == 10 ** 400 and str(d) == '-0.0' and e == 1j",
        "pass",
        "",
    ),
    "types are exact": ("assert type(square(2)) is int and square(1) is not True", "pass", ""),
    "None and True": ("assert greet() is None\nassert (square(1) == 1) is True", "pass", ""),
    "values of the library": (
        "assert day().year == 2020 and letters('aab')['z'] == 0\n"
        "assert letters('aab') == {'a': 2, 'b': 1}",
        "pass",
        "",
    ),
    "a named tuple": ("p = origin()\nassert p == (1, 2) and p.x == 1", "pass", ""),
    "a constant": ("assert NUMBERS == [1, 2]", "pass", ""),
    "a generator": ("assert list(up_to(1000)) == list(range(1000))", "pass", ""),
    "a generator without an end": (
        "numbers = count_up()\nassert next(numbers) == 0\n"
        "for number in numbers:\n    if number == 5:\n        break\nassert next(numbers) == 6",
        "pass",
        "",
    ),
    "an argument that is changed": (
        "inner = [0]\nvalues = [inner, 1]\nadd_four(values)\n"
        "assert values == [[0, 1], 1, 4] and inner == [0, 1]",
        "pass",
        "",
    ),
    "an argument that is returned": (
        "values = [2, 1]\nassert put_in_order(values) is values and values == [1, 2]",
        "pass",
        "",
    ),
    "an argument by name": ("assert square(x=3) == 9", "pass", ""),
    "an expected exception": (
        "try:\n    refuse(-1)\nexcept ValueError as error:\n"
        "    assert str(error) == 'negative -1'\nelse:\n    assert False",
        "pass",
        "",
    ),
    "an exception of the program's own": (
        "try:\n    refuse(5)\nexcept Refused as error:\n"
        "    assert error.code == 5 and str(error) == 'code 5' and isinstance(error, ValueError)",
        "pass",
        "",
    ),
    "an unexpected exception": ("refuse(5)", "error", "ValueError"),
    "a function of the test": ("assert apply(lambda x: x + 1, [1, 2]) == [2, 3]", "pass", ""),
    "a function of Python": ("assert apply(str, [1]) == ['1']", "pass", ""),
    "a function of the test that raises": (
        "def fail(x):\n    raise KeyError(x)\n"
        "try:\n    apply(fail, [1])\nexcept KeyError:\n    pass\nelse:\n    assert False",
        "pass",
        "",
    ),
    "what was printed": (
        "import contextlib, io\nout = io.StringIO()\n"
        "with contextlib.redirect_stdout(out):\n    greet()\nassert out.getvalue() == 'hello\\n'",
        "pass",
        "",
    ),
    "a coroutine": ("import asyncio\nassert asyncio.run(later(1)) == 2", "pass", ""),
    "objects": (
        "node = Node(1, Node(2))\nassert node.total() == 3 and node.following.value == 2\n"
        "node.following = Node(5)\nassert node.total() == 6 and isinstance(node, Node)\n"
        "assert len(node) == 3 and (Node(1) + Node(2)).value == 3",
        "pass",
        "",
    ),
    "a subclass of list": ("s = Stack()\ns.push(3)\nassert s[0] == 3 and len(s) == 1", "pass", ""),
    "members of an enumeration": (
        "assert red() == Color.RED and red() is Color.RED and red().value == 1\n"
        "assert red() != Color.BLUE",
        "pass",
        "",
    ),
    "a class body of the test": ("class Own:\n    x = square(2)\nassert Own.x == 4", "pass", ""),
    "a module that is the program": (
        "from solution import square as f\nimport answer\nfrom main import *\n"
        "assert f(3) == answer.square(3) == square(3) == 9",
        "pass",
        "",
    ),
    "threads of the test": (
        "import threading\nsizes = []\n"
        "run = lambda: sizes.append(len(list(up_to(50))))\n"
        "threads = [threading.Thread(target=run) for _ in range(4)]\n"
        "[thread.start() for thread in threads]\n[thread.join() for thread in threads]\n"
        "assert sizes == [50] * 4",
        "pass",
        "",
    ),
    "a file of the test": (
        "with open('a.txt', 'w') as file:\n    file.write('one')\n"
        "assert first_line('a.txt') == 'one'",
        "pass",
        "",
    ),
    "a seed": (
        "import random\nrandom.seed(4)\na = draw()\nrandom.seed(4)\nassert draw() == a",
        "pass",
        "",
    ),
    "a module that the program imports": ("assert math.sqrt(square(2)) == 2", "pass", ""),
    "an end of the test": ("import sys\nassert square(2) == 4\nsys.exit(0)", "pass", ""),
    "a class of the test": (
        "class Test:\n    pass\nsquare(Test())",
        "unisolated",
        "",
    ),
    "an input of the test": (
        "from unittest import mock\n"
        "with mock.patch('builtins.input', return_value='3'):\n    greet()",
        "unisolated",
        "",
    ),
    "a comparison by the program": ("assert Node(1) == Node(1)", "unisolated", ""),
    "a comparison that the program denies": ("assert Node(1) == 1", "fail", "AssertionError"),
    "a context that forgives": (
        "with Forgiving() as five:\n    assert five == 6",
        "fail",
        "AssertionError",
    ),
    "a skip by the program": (
        "import unittest\nclass Case(unittest.TestCase):\n    def test_skip(self):\n        skip()",
        "error",
        "Exception",
    ),
    "no end of recursion": ("again(1)", "error", "RecursionError"),
    "too deep a value": ("deep(300)", "error", "ValueError"),
    "too large a value": ("large()", "error", "ValueError"),
    "an unknown name": ("assert unknown(1)", "error", "NameError"),
}


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    skip_without_isolation()
    return Sandbox(Bounds(cpu_seconds=2, total_cpu_seconds=50), is_isolated=True)


@pytest.mark.slow
async def test_each_use_of_a_program_has_its_outcome(sandbox: Sandbox) -> None:
    results = await sandbox.run(PROGRAM, [test for test, _, _ in USES.values()])
    ends = [(result.outcome, EXCEPTIONS[result.exception]) for result in results]
    expected = [(outcome, exception) for _, outcome, exception in USES.values()]
    assert dict(zip(USES, ends, strict=True)) == dict(zip(USES, expected, strict=True))


SHAPES = {
    "check": "def check(candidate):\n    assert candidate(3) == 9",
    "check, called": "def check(candidate):\n    assert candidate(3) == 9\ncheck(square)",
    "test functions": (
        "def test_one():\n    assert square(3) == 9\ndef test_two(f):\n    assert f(2) == 4"
    ),
    "a test case": (
        "import unittest\nclass Case(unittest.TestCase):\n"
        "    def test_it(self):\n        self.assertEqual(square(3), 9)\n"
        "if __name__ == '__main__':\n    unittest.main()"
    ),
    "a script": "values = [1, 2]\nfor value in values:\n    if square(value) != value * value:\n"
    "        raise ValueError(value)",
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_each_shape_of_tests_is_run(sandbox: Sandbox, shape: str) -> None:
    right, none = "def square(x): return x * x", "def square(x): return None"
    assert [result.outcome for result in await sandbox.run(right, [SHAPES[shape]])] == ["pass"]
    (result,) = await sandbox.run(none, [SHAPES[shape]])
    assert result.outcome in ("fail", "error")


async def test_the_entry_point_is_the_first_name_that_the_program_defines(sandbox: Sandbox) -> None:
    program = "def one(): return 1\ndef two(): return 2\ndef three(): return 3"
    test = ["def check(candidate):\n    assert candidate() == 2"]
    for names, outcome in ((["four", "two"], "pass"), (["one", "two"], "fail"), ([], "fail")):
        (result,) = await sandbox.run(program, test, entry_points=names)
        assert result.outcome == outcome


async def test_an_entry_point_may_have_the_name_of_a_function_of_python(sandbox: Sandbox) -> None:
    program = "def sum(x): return x"
    test = ["assert sum(4) == 4"]
    assert [r.outcome for r in await sandbox.run(program, test)] == ["error"]
    assert [r.outcome for r in await sandbox.run(program, test, entry_points=["sum"])] == ["pass"]


WAITING = {
    "a sleep": "import time\ntime.sleep(99)",
    "a stopped process": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
    "an input that never comes": "import os\nos.read(os.pipe()[0], 1)",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WAITING)
async def test_a_program_that_only_waits_is_a_timeout(name: str) -> None:
    skip_without_isolation()
    sandbox = Sandbox(Bounds(cpu_seconds=1, total_cpu_seconds=2), is_isolated=True)
    results = await sandbox.run(WAITING[name], ["f()"], [("1", "2")])
    assert [result.outcome for result in results] == ["timeout", "timeout"]


async def test_the_program_holds_neither_tests_nor_other_inputs(sandbox: Sandbox) -> None:
    secret = "7319461"
    program = (
        "import gc, sys\n"
        "def find():\n"
        "    frame, seen = sys._getframe(), []\n"
        "    while frame:\n"
        "        seen.append(repr(frame.f_locals) + repr(frame.f_globals))\n"
        "        frame = frame.f_back\n"
        "    seen += [repr(thing) for thing in gc.get_objects() if type(thing) in (dict, list)]\n"
        f"    return any('{secret[:4]}' '{secret[4:]}' in text for text in seen)\n"
        "print(find())"
    )
    tests = [f"assert find() is False, {secret}", "assert find() is False"]
    pairs = [("", "False"), (secret, secret)]
    results = await sandbox.run(program, tests, pairs)
    assert [result.outcome for result in results] == ["pass", "pass", "pass", "fail"]
