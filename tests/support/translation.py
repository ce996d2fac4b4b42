"""The tests of HumanEval and MBPP, translated into each shape that tests have."""

import ast
import copy
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from support.exercises import Shape
from support.paths import DATA

PROBLEMS = DATA / "code" / "problems.jsonl.gz"
# Prints the value of each line of the input, which is an expression.
EVALUATION = (
    "\nif __name__ == '__main__':\n    import sys\n"
    "    for line in sys.stdin:\n        print(eval(line))\n"
)


class Problem(NamedTuple):
    """A problem: its canonical program, the name of its function, and what its tests do."""

    name: str
    program: str
    entry_point: str
    statements: Sequence[ast.stmt]

    @property
    def empty_program(self) -> str:
        """A program of the same name that returns None."""
        return f"def {self.entry_point}(*values, **names):\n    return None\n"

    def text(self, name: str | None = None) -> str:
        """Return the test's statements with another name for the function."""
        renamed = [
            _Renamed(self.entry_point, name or self.entry_point).visit(copy.deepcopy(node))
            for node in self.statements
        ]
        return ast.unparse(ast.Module(renamed, []))


class _Renamed(ast.NodeTransformer):
    """A change of one name into another."""

    def __init__(self, old: str, new: str) -> None:
        self._old, self._new = old, new

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """Rename a name."""
        return ast.Name(self._new, node.ctx) if node.id == self._old else node


class _Asserted(ast.NodeTransformer):
    """A change of each assertion into another statement."""

    def __init__(self, change: Callable[[ast.Assert], str]) -> None:
        self._change = change

    def visit_Assert(self, node: ast.Assert) -> list[ast.stmt]:
        """Change an assertion."""
        return ast.parse(self._change(node)).body


@cache
def problems() -> tuple[Problem, ...]:
    """Read all problems, in the order of the file."""
    with gzip.open(PROBLEMS, "rt", encoding="utf-8") as lines:
        return tuple(_problem(json.loads(line)) for line in lines)


def _problem(row: Mapping[str, Any]) -> Problem:
    body = ast.parse(row["tests"]).body
    if "entry_point" not in row:
        calls = (node for node in ast.walk(body[-1]) if isinstance(node, ast.Compare))
        call = next(calls).left
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Name)
        return Problem(row["problem"], row["reference"], call.func.id, body)
    (check,) = (node for node in body if isinstance(node, ast.FunctionDef) and node.name == "check")
    rename = _Renamed("candidate", row["entry_point"])
    statements = [rename.visit(node) for node in check.body]
    return Problem(row["problem"], row["reference"], row["entry_point"], statements)


def shapes_of(problem: Problem) -> dict[str, Shape]:
    """Return the tests of a problem in each shape; input and output only for plain assertions."""
    body = problem.text()
    shapes = {
        "asserts": Shape({"tests": (body,)}),
        "check": Shape(
            {
                "tests": f"def check(candidate):\n{_indented(problem.text('candidate'))}",
                "entry_point": problem.entry_point,
            }
        ),
        "functions": Shape({"tests": f"def test_{problem.entry_point}():\n{_indented(body)}"}),
        "class": Shape({"tests": _class(body)}),
        "script": Shape({"tests": _script(body)}),
    }
    if all(isinstance(node, ast.Assert) for node in problem.statements):
        lines = [ast.unparse(node.test) for node in problem.statements]  # type: ignore[attr-defined]
        if not any("\n" in line for line in lines):
            pair = {"stdin": "\n".join(lines), "stdout": "True\n" * len(lines)}
            shapes["io"] = Shape({"io": (pair,)}, EVALUATION)
    return shapes


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def _class(body: str) -> str:
    def method(node: ast.Assert) -> str:
        match node.test:
            case ast.Compare(left, [ast.Eq()], [right]):
                return f"self.assertEqual({ast.unparse(left)}, {ast.unparse(right)})"
        return f"self.assertTrue({ast.unparse(node.test)})"

    tree = ast.fix_missing_locations(_Asserted(method).visit(ast.parse(body)))
    return (
        "import unittest\n\nclass TestProblem(unittest.TestCase):\n    def test_it(self):\n"
        f"{_indented(_indented(ast.unparse(tree)))}\nif __name__ == '__main__':\n"
        "    unittest.main()\n"
    )


def _script(body: str) -> str:
    def statement(node: ast.Assert) -> str:
        match node.test:
            case ast.Compare(left, [ast.Eq()], [right]):
                actual, expected = ast.unparse(left), ast.unparse(right)
                return (
                    f"actual = {actual}\nexpected = {expected}\n"
                    "if actual != expected:\n    raise ValueError(f'{actual!r} is wrong')"
                )
        return f"if not ({ast.unparse(node.test)}):\n    raise ValueError('wrong')"

    return ast.unparse(ast.fix_missing_locations(_Asserted(statement).visit(ast.parse(body))))
