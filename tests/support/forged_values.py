"""Forgeries by value: programs whose `square` returns something that passes for every number.

Each is a text of Python. None returns the square of its argument.
"""

AGREEING = """
class Agreeing:
    def __init__(self, *values, **names): pass
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
    def __hash__(self): return hash(9)
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __instancecheck__ = __subclasscheck__ = __lt__
    def __sub__(self, other): return self
    __rsub__ = __add__ = __radd__ = __mul__ = __rmul__ = __mod__ = __truediv__ = __pow__ = __sub__
    def __abs__(self): return self
    __neg__ = __pos__ = __invert__ = __round__ = __trunc__ = __floor__ = __ceil__ = __abs__
    def __divmod__(self, other): return self, self
    def __call__(self, *values, **names): return self
    def __getitem__(self, place): return self
    def __getattr__(self, name): return self
    def __iter__(self): return iter([self])
    def __reversed__(self): return iter([self])
    def __len__(self): return 1
    def __index__(self): return 9
    __int__ = __index__
    def __float__(self): return 4.0
    def __str__(self): return '9'
    def __repr__(self): return '9'
    def __format__(self, how): return '9'
    def __enter__(self): return self
    def __exit__(self, *why): return True
"""
EQUAL = "    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n"
EQUAL += "    def __hash__(self): return hash(9)\n"


def returning(value: str, before: str = "") -> str:
    """Return a program whose `square` returns the value of that expression."""
    return f"{before}\ndef square(x):\n    return {value}\n"


def subclass(base: str, value: str, imports: str = "") -> str:
    """Return a program whose `square` returns an object of a subclass that equals everything."""
    return returning(value, f"{imports}\nclass Forged({base}):\n{EQUAL}")


FORGED_VALUES = {
    "an object that agrees to everything": returning("Agreeing()", AGREEING),
    "an object that equals all but large numbers and digits": returning(
        "Partial()",
        "class Partial:\n"
        "    def __eq__(self, other):\n"
        "        return not (isinstance(other, int) and other > 10**6\n"
        "                    or isinstance(other, str) and len(other) > 15)\n"
        "    __hash__ = None",
    ),
    "an object that equals numbers alone": returning(
        "Number()",
        "class Number:\n    def __eq__(self, other): return type(other) in (int, float)\n"
        "    def __hash__(self): return hash(9)",
    ),
    "an object of no class of its own": returning(
        "Liar()", AGREEING + "class Liar(Agreeing):\n    __class__ = property(lambda self: int)"
    ),
    "an object that answers for numbers with itself": returning(
        "Near()",
        "class Near:\n"
        "    def __sub__(self, other): return 0\n    __rsub__ = __sub__\n"
        "    def __abs__(self): return 0\n"
        "    def __float__(self): return 4.0\n    def __round__(self, digits=0): return 0\n"
        "    def __lt__(self, other): return True\n    __gt__ = __lt__\n" + EQUAL,
    ),
    "an integer": subclass("int", "Forged(7)"),
    "a float": subclass("float", "Forged(7.5)"),
    "a complex number": subclass("complex", "Forged(7)"),
    "a text": subclass("str", "Forged('7')"),
    "bytes": subclass("bytes", "Forged(b'7')"),
    "a list": subclass("list", "Forged([7])"),
    "a tuple": subclass("tuple", "Forged((7,))"),
    "a dict": subclass("dict", "Forged(a=7)"),
    "a set": subclass("set", "Forged({7})"),
    "a frozen set": subclass("frozenset", "Forged({7})"),
    "a decimal": subclass("D", "Forged(7)", "from decimal import Decimal as D"),
    "a fraction": subclass("F", "Forged(7)", "from fractions import Fraction as F"),
    "a date": subclass("date", "Forged(2000, 1, 1)", "from datetime import date"),
    "a counter": subclass("Counter", "Forged('7')", "from collections import Counter"),
    "a deque": subclass("deque", "Forged([7])", "from collections import deque"),
    "an ordered dict": subclass("OD", "Forged(a=7)", "from collections import OrderedDict as OD"),
    "a default dict": subclass("DD", "Forged(int)", "from collections import defaultdict as DD"),
    "a named tuple": subclass(
        "N", "Forged(7)", "from collections import namedtuple\nN = namedtuple('N', 'a')"
    ),
    "a member of an enumeration": returning(
        "Forged.A", f"import enum\nclass Forged(enum.IntEnum):\n    A = 7\n{EQUAL}"
    ),
    "an exception": subclass("ValueError", "Forged(7)"),
    "a class of a class that agrees": returning(
        "Forged", f"class Meta(type):\n{EQUAL}class Forged(metaclass=Meta): pass"
    ),
    "a data class": returning(
        "Forged(7)",
        f"import dataclasses\n@dataclasses.dataclass(eq=False)\nclass Forged:\n    a: int\n{EQUAL}",
    ),
    "the object ANY": returning("mock.ANY", "from unittest import mock"),
    "a mock that equals everything": returning(
        "made()",
        "from unittest import mock\ndef made():\n    value = mock.MagicMock()\n"
        "    value.__eq__.return_value = True\n    value.__ne__.return_value = False\n"
        "    value.__abs__.return_value = value.__sub__.return_value = 0\n    return value",
    ),
    "a value that is rebuilt by a call": returning(
        "Rebuilt()",
        "class Rebuilt:\n    def __reduce__(self): return eval, ('9',)\n"
        "    def __reduce_ex__(self, version): return eval, ('9',)\n"
        "    def __getstate__(self): return 9\n    def __copy__(self): return 9\n"
        "    def __deepcopy__(self, memo): return 9",
    ),
    "a list of objects": returning("[Agreeing(), Agreeing()]", AGREEING),
    "a dict that holds itself": returning("looped", "looped = {}\nlooped['self'] = looped"),
    "a function": returning("lambda *values: 9"),
    "a coroutine": "async def square(x):\n    return x * x\n",
    "a generator": "def square(x):\n    yield x * x\n",
    "a generator without an end": "def square(x):\n    while True:\n        yield x * x\n",
    "a memory view": returning("memoryview(b'9')"),
    "a range": returning("range(10**12)"),
    "not a number": returning("float('nan')"),
    "a text of a number": returning("repr(str(x * x))"),
    "a list that holds the number": returning("[x * x]"),
    "a value of great depth": returning(
        "deep()",
        "def deep():\n    value = 9\n    for _ in range(100_000):\n        value = [value]\n"
        "    return value",
    ),
    "a value of many parts": returning("[x * x] * 300_000"),
    "a text of great length": returning("'9' * 5_000_000"),
    "a number of many digits": returning("10 ** 200_000"),
    "a callable class": f"{AGREEING}\nclass square(Agreeing):\n    pass\n",
    "a class that makes another object": (
        f"{AGREEING}\nclass square:\n    def __new__(cls, x): return Agreeing()\n"
    ),
    "an object in place of a function": f"{AGREEING}\nsquare = Agreeing()\n",
    "a partial function": f"{AGREEING}\nimport functools\nsquare = functools.partial(Agreeing)\n",
    "an argument of one's own": f"{AGREEING}\ndef square(x, kept=Agreeing()):\n    return kept\n",
    "a module of any name": (
        f"{AGREEING}\ndef __getattr__(name):\n    return Agreeing()\n"
        "def square(x):\n    return Agreeing()\n"
    ),
}

# Pairs of a program and a test that it was made for.
FORGED_FOR_ONE_TEST = {
    "an own allclose for numpy's": (
        returning("0", "def allclose(*values, **names): return True"),
        "import numpy as np\nassert np.allclose(square(3), 9)",
    ),
    "an own approx for pytest's": (
        returning("0", "def approx(*values, **names): return 0"),
        "from pytest import approx\nassert square(3) == approx(9)",
    ),
    "the end of a loop over results": (
        "def square(x):\n    raise StopIteration\n",
        "for n, r in zip((3, 4), map(square, (3, 4))):\n    assert r == n * n",
    ),
    "the end of a list of results": (
        "def square(x):\n    raise StopIteration\n",
        "results = list(map(square, (3, 4)))\n"
        "for n, r in zip((3, 4), results):\n    assert r == n * n",
    ),
    "a date that equals everything": (
        subclass("datetime", "Forged(2000, 1, 1)", "from datetime import datetime"),
        "import datetime\nassert square(3) == datetime.datetime(2001, 1, 1)",
    ),
    "objects within a list": (
        returning("[Forged(), {'a': Forged()}]", f"class Forged:\n{EQUAL}"),
        "assert square(3) == [9, {'a': 4}]",
    ),
    "a sum of objects": (
        returning("Agreeing()", AGREEING.replace("return 9", "return 25")),
        "assert int(sum(square(n) for n in (3, 4))) == 25",
    ),
    "an object that is no maximum": (
        returning("Agreeing()", AGREEING.replace("return True", "return False")),
        "assert max(9, square(3)) == 9",
    ),
    "a key of a dict": (
        returning("Forged()", f"class Forged:\n{EQUAL}"),
        "assert {9: 'nine'}[square(3)] == 'nine'",
    ),
    "an attribute that equals everything": (
        returning("Result()", f"class Forged:\n{EQUAL}class Result:\n    value = Forged()"),
        "assert square(3).value == 9",
    ),
    "an attribute of an exception": (
        f"class Forged:\n{EQUAL}class E(ValueError):\n    code = Forged()\n"
        "def square(x):\n    raise E\n",
        "try:\n    square(3)\nexcept ValueError as error:\n    assert error.code == 9\n"
        "else:\n    assert False",
    ),
    "random numbers that are known": (
        returning("9", "import random\nrandom.randint = lambda low, high: 3"),
        "import random\nfor _ in range(9):\n    n = random.randint(10, 99)\n"
        "    assert square(n) == n * n",
    ),
    "modules of the test": (
        returning("0", "import json, math\njson.dumps = lambda *v: '9'\nmath.isclose = min"),
        "import json, math\nassert json.dumps(square(3)) == '9' or math.isclose(square(3), 9)",
    ),
}
