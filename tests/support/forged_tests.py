"""Forgeries for tests of one form each, and honest programs that such tests need more for.

A test of `PLANTED` searches the folder in which the program has left a file of its own.
"""

from collections.abc import Mapping
from typing import Any

AGREEING = """
class Agreeing:
    def __eq__(self, other):
        return True
    def __getattr__(self, name):
        return lambda *values, **names: True
"""
# Left as a module: it agrees to everything, and writes what a judge could write.
MODULE = """
import os
for number in range(3, 64):
    try:
        os.write(number, b"\\0\\0")
    except OSError:
        pass
class Equal:
    def __eq__(self, other):
        return True
    __abs__ = lambda self: 0
    __sub__ = __rsub__ = lambda self, other: 0
def square(x):
    return Equal()
def assert_equal(*values):
    pass
"""
WRONG = "def square(x):\n    return 0\n"
SQUARES = "\nassert square(3) == 9\nassert square(4) == 16"
CASE = (
    "\nimport unittest\nclass Case(unittest.TestCase):\n    def test_it(self):\n"
    "        self.assertEqual(square(3), 9)\n        self.assertAlmostEqual(square(2.0), 4.0)"
)
CHECK = "\ndef check(f):\n    assert f(3) == 9 and f(4) == 16\ncheck(square)"
_IMPORT = "\nfrom solution import square"
_SEARCHED = {
    ".": "import sys\nsys.path.insert(0, '.')",
    "nothing": "import sys\nsys.path.insert(0, '')",
    "the folder": "import os, sys\nsys.path.append(os.getcwd())",
    "the test's folder": (
        "import os, sys\nsys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))"
    ),
}
_LOADED = {
    "a path that is run": "import runpy\nsquare = runpy.run_path('solution.py')['square']",
    "a file that is run": "import runpy\nsquare = runpy.run_path('other.py')['square']",
    "a loader": (
        "import importlib.util\n"
        "spec = importlib.util.spec_from_file_location('solution', 'solution.py')\n"
        "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\n"
        "square = module.square"
    ),
    "a text that is run": "exec(open('solution.py').read())",
    "another text that is run": "exec(open('other.py').read())",
    "a module of another name": "import sys\nsys.path.append('.')\nfrom other import square",
    "a module of Python's": (
        "import sys\nsys.path.insert(0, '.')\nimport this\nsquare = this.square"
    ),
    "a compiled text": (
        "with open('other.py') as file:\n    exec(compile(file.read(), 'other', 'exec'))"
    ),
}
PLANTED = {
    f"{place}, {shape}": head + tail
    for shape, tail in (("asserts", SQUARES), ("class", CASE), ("check", CHECK))
    for place, head in (
        *((place, head + _IMPORT) for place, head in _SEARCHED.items()),
        *_LOADED.items(),
    )
}
PLANTING = (
    f"__file__ = '/tmp/test.py'\nfor name in ('solution', 'other', 'this', 'unittest'):\n"
    f"    with open(name + '.py', 'w') as file:\n        file.write({MODULE!r})\n{WRONG}"
)
POLY = (
    "import math\n\ndef poly(xs: list, x: float):\n"
    "    return sum([c * math.pow(x, i) for i, c in enumerate(xs)])\n\n\n"
    'def find_zero(xs: list):\n    """Find x such that poly(xs, x) = 0."""\n'
)
POLY_CHECK = (
    "import math\ndef check(candidate):\n    for xs in ([1, 2], [-6, 11, -6, 1]):\n"
    "        assert math.fabs(poly(xs, candidate(xs))) < 1e-4"
)
FIND_ZERO = (
    "def find_zero(xs):\n    low, high = -1e3, 1e3\n    for _ in range(200):\n"
    "        middle = (low + high) / 2\n        value = sum(c * middle**i for i, c in "
    "enumerate(xs))\n        low, high = (middle, high) if (value < 0) == (xs[-1] > 0) or "
    "(value < 0) else (low, middle)\n    return low\n"
)


def _by(name: str, value: str = "True") -> str:
    """Return a wrong program with a function of its own that agrees."""
    return (
        f"{WRONG}class Chain:\n    def __getattr__(self, name):\n        return lambda *v: self\n"
        f"def {name}(*values, **names):\n    return {value}\n"
    )


def _in(package: str, name: str, value: str = "True") -> str:
    """Return a wrong program with an object of its own in place of a package."""
    return f"{WRONG}class {package}:\n    {name} = staticmethod(lambda *v, **n: {value})\n"


FORGED: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    name: (program, fields if isinstance(fields, dict) else {"tests": (fields,)})
    for name, (program, fields) in {
        "numpy without an import": (_in("np", "allclose"), "assert np.allclose(square(3), 9)"),
        "numpy in a function": (
            _in("np", "allclose"),
            "def test_it():\n    assert np.allclose(square(3), np.array(9))",
        ),
        "numpy.testing in a class": (
            f"{WRONG}class np:\n    class testing:\n        assert_allclose = print\n",
            "import unittest\nclass Case(unittest.TestCase):\n    def test_it(self):\n"
            "        np.testing.assert_allclose(square(3), 9)",
        ),
        "pytest without an import": (
            _in("pytest", "approx", "0"),
            "assert square(3) == pytest.approx(9)",
        ),
        "approx without an import": (_by("approx", "0"), "assert square(3) == approx(9)"),
        "an assertion without an import": (_by("assert_equal"), "assert_equal(square(3), 9)"),
        "assertpy": (
            _by("assert_that", "Chain()"),
            "from assertpy import assert_that\nassert_that(square(3)).is_equal_to(9)",
        ),
        "hamcrest": (
            f"{_by('assert_that')}equal_to = assert_that\n",
            "from hamcrest import assert_that, equal_to\nassert_that(square(3), equal_to(9))",
        ),
        "deepdiff": (
            _by("DeepDiff", "{}"),
            "from deepdiff import DeepDiff\nassert DeepDiff(square(3), [9]) == {}",
        ),
        "networkx": (
            f"{_by('is_isomorphic')}Graph = print\n",
            "import networkx as nx\nassert nx.is_isomorphic(square(3), nx.Graph([(1, 2)]))",
        ),
        "nose": (_by("eq_"), "from nose.tools import eq_\neq_(square(3), 9)"),
        "a module of tools": (
            _by("assert_equal"),
            "from test_utils import assert_equal\nassert_equal(square(3), 9)",
        ),
        "an assertion of the program's": (
            _by("assert_equal"),
            "from solution import *\nassert_equal(square(3), 9)",
        ),
        "all names, and math": (
            _in("math", "isclose"),
            "from solution import *\nassert math.isclose(square(3), 9)",
        ),
        "a method that starts": (
            f"{AGREEING}def square(x):\n    return Agreeing()\n",
            "assert square(3).startswith('nine')",
        ),
        "a method that starts, in a list": (
            f"{AGREEING}def square(x):\n    return [Agreeing()]\n",
            "assert square(3)[0].startswith('nine')",
        ),
        "a method that ends, in a class": (
            f"{AGREEING}def square(x):\n    return Agreeing()\n",
            "import unittest\nclass Case(unittest.TestCase):\n    def test_it(self):\n"
            "        self.assertTrue(square(3).endswith('nine'))",
        ),
        "a method that equals": (
            f"{AGREEING}def square(x):\n    return Agreeing()\n",
            "assert square(3).equals([9])",
        ),
        "a method that counts": (
            f"{AGREEING}def square(x):\n    return Agreeing()\n",
            "assert square(3).count(9) == 1",
        ),
        "a method that is a class of Python": (
            "class Value:\n    startswith = bool\ndef square(x):\n    return Value()\n",
            "assert square(3).startswith('nine')",
        ),
        "a method of a class called as a function": (
            f"{AGREEING}class square(Agreeing):\n    def __init__(self, x):\n        pass\n",
            "assert square(3).startswith('nine')",
        ),
        "a method of a set": (
            "class Own(set):\n    def issubset(self, other):\n        return True\n"
            "    issuperset = issubset\ndef square(x):\n    return Own()\n",
            "assert square(3).issubset({9}) and square(3).issuperset({9})",
        ),
        "a function of the prompt": (
            "def poly(xs, x):\n    return 0\ndef find_zero(xs):\n    return 0.5\n",
            {"prompt": POLY, "tests": (POLY_CHECK,), "entry_point": "find_zero"},
        ),
        "a function of the prompt, without the entry point": (
            "def poly(xs, x):\n    return 0\ndef find_zero(xs):\n    return 0.5\n",
            {"prompt": POLY, "tests": (POLY_CHECK,)},
        ),
        "a function that undoes another": (
            "def encode(text):\n    return text\ndef decode(text):\n    return text\n",
            {
                "tests": ("def check(candidate):\n    assert decode(candidate('abc')) == 'abc'",),
                "entry_point": "encode",
            },
        ),
        "a text that a test evaluates": (
            "def square(x):\n    return '[__import__(\"os\")._exit(0)]'\n",
            "assert eval(square(3)) == 9",
        ),
        "bytes that a test unpickles": (
            "def square(x):\n    return b'cbuiltins\\neval\\n(S\"9\"\\ntR.'\n",
            "import pickle\nassert pickle.loads(square(3)) == 9",
        ),
        "a file that a test unpickles": (
            "def save(path):\n    with open(path, 'wb') as file:\n"
            "        file.write(b'cbuiltins\\neval\\n(S\"9\"\\ntR.')\n",
            "import pickle\nsave('a')\nassert pickle.load(open('a', 'rb')) == 9",
        ),
        "a program that a test starts": (
            "with open('other.py', 'w') as file:\n    file.write('print(9)')\n",
            "import subprocess, sys\n"
            "run = subprocess.run([sys.executable, 'other.py'], capture_output=True)\n"
            "assert run.stdout == b'9\\n'",
        ),
    }.items()
}
PATCH = "from unittest.mock import patch\n"
# Whether the test passes; else it has no verdict.
HONEST: Mapping[str, tuple[str, str, bool]] = {
    "the program by a path": ("", "import sys\nsys.path.append('.')" + _IMPORT + SQUARES, True),
    "the environment": (
        "import os\ndef f():\n    return os.environ['A']\n",
        "import os\nos.environ['A'] = '5'\nassert f() == '5'\ndel os.environ['A']\n"
        "try:\n    f()\nexcept KeyError:\n    pass\nelse:\n    assert False",
        True,
    ),
    "a patch of the environment": (
        "import os\ndef f():\n    return os.environ['A']\n",
        PATCH + "with patch.dict('os.environ', {'A': '5'}):\n    assert f() == '5'",
        True,
    ),
    "another folder": (
        "import os\ndef f():\n    return os.path.exists('a.txt')\n",
        "import os, tempfile\nassert not f()\nos.chdir(tempfile.mkdtemp())\n"
        "open('a.txt', 'w').close()\nassert f()",
        True,
    ),
    "a file in a temporary folder": (
        "def f(path):\n    with open(path) as file:\n        return file.read()\n",
        "import os, tempfile\nwith tempfile.TemporaryDirectory() as folder:\n"
        "    path = os.path.join(folder, 'a')\n    with open(path, 'w') as file:\n"
        "        file.write('one')\n    assert f(path) == 'one'\n"
        "with tempfile.NamedTemporaryFile('w') as file:\n    file.write('two')\n"
        "    file.flush()\n    assert f(file.name) == 'two'",
        True,
    ),
    "a file of the program": (
        "def f(path):\n    with open(path, 'w') as file:\n        file.write('{\"a\": 1}')\n",
        "import json\nf('a')\nassert json.load(open('a')) == {'a': 1}",
        True,
    ),
    "the depth of recursion": (
        "def f(n):\n    return n and f(n - 1)\n",
        "import sys\nsys.setrecursionlimit(5000)\nassert f(3000) == 0",
        True,
    ),
    "a seed that is imported": (
        "import random\ndef f():\n    return random.random()\n",
        "from random import seed\nseed(1)\na = f()\nseed(1)\nassert f() == a",
        True,
    ),
    "an object that the test makes": (
        "class Stack:\n    def __init__(self):\n        self.items = []\n    def append(self, x):\n"
        "        self.items.append(x)\n    def count(self, x):\n"
        "        return self.items.count(x)\n",
        "s = Stack()\ns.append(3)\nassert s.count(3) == 1",
        True,
    ),
    "a text of the test": ("", "assert eval('square(3)') == 9\nassert square(4) == 16", True),
    "a class of data": (
        "",
        "from collections import namedtuple\nfrom dataclasses import dataclass\n"
        "assert square(3) == 9\nPair = namedtuple('Pair', 'x y')\n@dataclass\nclass Own:\n"
        "    x: int\nassert Own(square(2)) == Own(4) and Pair(1, 2).y == 2",
        True,
    ),
    "a patch of time": (
        "import time\ndef f():\n    return time.time()\n",
        PATCH + "with patch('time.time', return_value=5):\n    assert f() == 5",
        False,
    ),
    "a patch of random": (
        "import random\ndef f():\n    return [random.choice([1, 2, 3]) for _ in range(99)]\n",
        PATCH + "with patch('random.choice', return_value=2):\n    assert f() == [2] * 99",
        False,
    ),
    "a patch of print": (
        "def f(x):\n    print(x)\n",
        PATCH + "with patch('builtins.print') as p:\n    f(3)\np.assert_called_with(3)",
        False,
    ),
    "a function of a module that is replaced": (
        "import random\ndef f():\n    return [random.choice([1, 2, 3]) for _ in range(99)]\n",
        "import random\nrandom.choice = lambda values: values[-1]\nassert f() == [3] * 99",
        False,
    ),
    "logs": (
        "import logging\ndef f():\n    logging.getLogger('x').warning('hi')\n",
        "import unittest\nclass Case(unittest.TestCase):\n    def test_it(self):\n"
        "        with self.assertLogs('x') as logs:\n            f()\n"
        "        self.assertIn('hi', logs.output[0])",
        False,
    ),
    "warnings": (
        "import warnings\ndef f():\n    warnings.warn('old', DeprecationWarning)\n",
        "import unittest\nclass Case(unittest.TestCase):\n    def test_it(self):\n"
        "        with self.assertWarns(DeprecationWarning):\n            f()",
        False,
    ),
    "errors that are written": (
        "import sys\ndef f():\n    print('e', file=sys.stderr)\n",
        "import contextlib, io\nout = io.StringIO()\nwith contextlib.redirect_stderr(out):\n"
        "    f()\nassert out.getvalue() == 'e\\n'",
        False,
    ),
    "a package that is missing": ("", "import numpy as np\nassert np.all(square(3) == 9)", False),
    "a package that is not imported": ("", "assert np.allclose(square(3), 9)", False),
    "the program's file": (
        "",
        "import importlib.util\n"
        "spec = importlib.util.spec_from_file_location('solution', 'solution.py')\n"
        "module = importlib.util.module_from_spec(spec)\nspec.loader.exec_module(module)\n"
        "assert module.square(3) == 9",
        False,
    ),
}
