"""One exercise, to square a number, with its tests in each of the shapes that data sets have."""

import asyncio
from collections.abc import Mapping
from typing import Any, NamedTuple

from assay_models.base import ItemError, Options
from assay_models.families.code_exec.model import CodeExecModel
from assay_models.items import CodeExecItem

RIGHT = "def square(x):\n    return x * x\n"
EMPTY = "def square(x):\n    return None\n"
MAIN = "\nif __name__ == '__main__':\n    print(square(int(input())))\n"

# Each asks for two squares, so that no constant passes.
ASSERTIONS = (
    "assert F(3) == 9\nassert F(4) == 16",
    "assert 9 == F(3) and 16 == F(4)",
    "first, second = F(3), F(5)\nassert first == 9\nassert second == 25",
    "assert not F(3) != 9\nassert not F(4) != 16",
    "assert abs(F(2.0) - 4.0) < 1e-6\nassert abs(F(3.0) - 9.0) < 1e-6",
    "assert F(3) in (9,) and F(4) in {16: 1}",
    "assert [F(n) for n in (1, 2, 3)] == [1, 4, 9]",
    "assert str(F(3)) == '9' and f'{F(4)}' == '16'",
    "assert 8 < F(3) < 10 and 15 < F(4) < 17",
    "assert {F(3), F(4)} == {9, 16}",
    "for n, expected in ((3, 9), (4, 16)):\n    assert F(n) == expected",
)
METHODS = (
    "self.assertEqual(square(3), 9)\nself.assertEqual(square(4), 16)",
    "self.assertEqual(9, square(3))\nself.assertEqual(16, square(4))",
    "self.assertTrue(square(3) == 9 and square(4) == 16)",
    "self.assertFalse(square(3) != 9 or square(4) != 16)",
    "self.assertAlmostEqual(square(2.0), 4.0)\nself.assertAlmostEqual(square(3.0), 9.0)",
    "self.assertIn(square(3), [9])\nself.assertIn(square(4), {16})",
    "self.assertListEqual([square(3), square(4)], [9, 16])",
    "self.assertCountEqual([square(3), square(4)], [16, 9])",
    "self.assertGreater(square(3), 8)\nself.assertLess(square(3), 10)\n"
    "self.assertGreater(square(4), 15)\nself.assertLess(square(4), 17)",
    "for n in (3, 4):\n    with self.subTest(n=n):\n        self.assertEqual(square(n), n * n)",
    "assert square(3) == 9 and square(4) == 16",
)
SCRIPTS = (
    "results = {n: square(n) for n in (3, 4)}\nif results != {3: 9, 4: 16}:\n"
    "    raise ValueError(results)",
    "cases = [(3, 9), (4, 16)]\nfailures = [n for n, wanted in cases if square(n) != wanted]\n"
    "assert not failures, failures",
    "passed = sum(square(n) == n * n for n in (3, 4, 5))\nassert passed == 3",
    "import math\nfor n in (3, 4):\n    assert math.isclose(square(float(n)), n * n)",
    "try:\n    assert square(3) == 9\n    assert square(4) == 16\n"
    "except Exception as error:\n    raise SystemExit(1) from error",
    "def near(a, b):\n    return abs(a - b) < 1e-9\nassert near(square(1.5), 2.25)\n"
    "assert near(square(2.5), 6.25)",
    "values = list(map(square, [1, 2, 3]))\nvalues.sort()\nassert values == [1, 4, 9]",
)


class Shape(NamedTuple):
    """The fields of an item that hold the tests, and the end that its programs need."""

    fields: Mapping[str, Any]
    end: str = ""


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def _methods(body: str) -> str:
    return (
        "import unittest\n\nclass TestSquare(unittest.TestCase):\n"
        f"    def test_square(self):\n{_indented(_indented(body))}"
    )


SHAPES = {
    "asserts": Shape({"tests": tuple(body.replace("F", "square") for body in ASSERTIONS)}),
    "check": Shape(
        {
            "tests": tuple(
                f"def check(candidate):\n{_indented(body.replace('F', 'candidate'))}"
                for body in ASSERTIONS[::3]
            ),
            "entry_point": "square",
        }
    ),
    "functions": Shape(
        {
            "tests": tuple(
                f"def test_square():\n{_indented(body.replace('F', 'square'))}"
                for body in ASSERTIONS[::3]
            )
        }
    ),
    "class": Shape({"tests": tuple(map(_methods, METHODS))}),
    "script": Shape({"tests": SCRIPTS}),
    "io": Shape({"io": tuple({"stdin": f"{n}\n", "stdout": f"{n * n}\n"} for n in (4, 5))}, MAIN),
}


async def passed_share(
    model: CodeExecModel, program: str, fields: Mapping[str, Any]
) -> float | str:
    """Return the share of the tests that a program passes, or the code of the item's error."""
    item = CodeExecItem.model_validate({"response": f"```python\n{program}\n```", **fields})
    try:
        prepared = await asyncio.to_thread(model.prepare, [item], Options())
        raws = list(await model.predict(prepared.inputs)) if prepared.inputs else []
        (score,) = model.finish(prepared, raws, Options())
    except ItemError as error:
        return error.code
    assert score.channels["all"] == float(score.channels["passed"] == 1.0)
    return float(score.channels["passed"] or 0.0)


async def passed_shares(model: CodeExecModel, program: str) -> dict[str, float | str]:
    """Return the share that a program passes in each shape, or the error's code."""
    shares = [passed_share(model, program + shape.end, shape.fields) for shape in SHAPES.values()]
    return dict(zip(SHAPES, await asyncio.gather(*shares), strict=True))
