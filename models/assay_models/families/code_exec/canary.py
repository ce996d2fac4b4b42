"""The canary: a test that no honest program passes.

If a program passes it, all its passes are forged. This file is executed in the sandbox, in front of
the runner, and imports only the standard library.
"""

import _ast
import os
from collections.abc import Iterator, Sequence
from typing import Any

EARLY_EXITS = (_ast.Return, _ast.Yield, _ast.YieldFrom)


def make_canary(tests: Sequence[str]) -> Any:
    """Make the canary of some tests, as a syntax tree or a text.

    It is the first test that always reaches an `assert call == expected`, with a random value in
    place of the expected one. So it exposes an object that equals everything, and a program that
    reads the expected value out of the test. For other tests it is `assert False`.
    """
    for test in tests:
        tree: Any = compile(test, "<test>", "exec", _ast.PyCF_ONLY_AST, True)
        expectations = _expectations(tree)
        for expectation in expectations:
            expectation.test.comparators = [_random_value(expectation.test.comparators[0])]
        if expectations:
            return tree
    return "assert False"


def _expectations(tree: Any) -> list[Any]:
    """List the expectations that are always reached: at the top, and in functions called there."""
    called = {
        node.value.func.id
        for node in tree.body
        if isinstance(node, _ast.Expr)
        and isinstance(node.value, _ast.Call)
        and isinstance(node.value.func, _ast.Name)
    }
    functions = {node.name: node for node in tree.body if isinstance(node, _ast.FunctionDef)}
    bodies = [
        function.body
        for name, function in functions.items()
        if name in called
        and not function.decorator_list
        and not any(isinstance(node, EARLY_EXITS) for node in _nodes(function))
    ]
    return [node for body in (tree.body, *bodies) for node in body if _is_expectation(node)]


def _is_expectation(node: Any) -> bool:
    """Return whether the node is an `assert call == expected`."""
    return (
        isinstance(node, _ast.Assert)
        and isinstance(node.test, _ast.Compare)
        and isinstance(node.test.left, _ast.Call)
        and [type(operator) for operator in node.test.ops] == [_ast.Eq]
    )


def _random_value(expected: Any) -> _ast.expr:
    """Make a random value, of the expected kind where that is a constant, a list or a tuple."""
    place = {name: getattr(expected, name) for name in expected._attributes}
    chance: str | int = int.from_bytes(os.urandom(8), "big")
    if isinstance(expected, _ast.Constant) and isinstance(expected.value, str):
        chance = f"{chance:x}"
    value = _ast.Constant(chance, **place)
    if isinstance(expected, _ast.List | _ast.Tuple):
        return type(expected)([value], _ast.Load(), **place)
    return value


def _nodes(tree: Any) -> Iterator[Any]:
    """Yield the nodes of a syntax tree."""
    pending = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending += node
        elif isinstance(node, _ast.AST):
            pending += [getattr(node, name, None) for name in node._fields]
            yield node
