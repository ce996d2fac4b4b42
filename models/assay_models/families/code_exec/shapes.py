"""The shapes of tests: a text of statements, `check`, `test_*` functions, classes of test cases.

This file is executed in the sandbox, in front of the runner, and imports only the standard library.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Sequence
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # they run in front of this file, in the same module
    from assay_models.families.code_exec.audit import Audit, shares_state
    from assay_models.families.code_exec.exchange import exception_number
    from assay_models.families.code_exec.judge import (
        COMMON_MODULES,
        LIBRARY,
        Finder,
        Judge,
        Names,
        ProgramExit,
    )
    from assay_models.families.code_exec.wire import Caught, Channel

PASSED, FAILED, ERRED, EXHAUSTED, QUIT, LOST, UNISOLATED = range(7)
UNIT = re.compile("check$|test")
CHECKS = re.compile("assert|fail|check|_?exit$")


def called_names(tree: ast.AST) -> frozenset[str]:
    """Return the names that are called as functions anywhere in a test."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return frozenset(name.id for name in calls if isinstance(name, ast.Name))


def imported_names(tree: ast.AST) -> frozenset[str]:
    """Return the names of the modules that a test imports, with those of their packages."""
    names = [
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
    ]
    return frozenset(
        ".".join(name.split(".")[:depth])
        for name in names
        for depth in range(1, 1 + len(name.split(".")))
    )


def asserts_nothing(tree: ast.AST) -> bool:
    """Return whether a test shows the result of a comparison and ends in no case with an error."""
    nodes = [*ast.walk(tree)]
    calls = [node.func for node in nodes if isinstance(node, ast.Call)]
    names = [getattr(name, "attr", getattr(name, "id", "")) for name in calls]
    if any(isinstance(node, ast.Assert | ast.Raise) for node in nodes):
        return False
    if any(map(CHECKS.match, names)):
        return False
    shown = [node.value for node in nodes if isinstance(node, ast.Expr)]
    return "print" in names or any(isinstance(value, ast.Compare | ast.BoolOp) for value in shown)


def used_names(tree: ast.AST) -> frozenset[str]:
    """Return the names whose value is used anywhere in a test."""
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name))
    return frozenset(name.id for name in names if isinstance(name.ctx, ast.Load))


def new_test(tree: ast.AST, text: str, helpers: str, judge: Judge) -> ModuleType:
    """Return the empty module of a test, for which every missing name means the program."""
    judge.called = called_names(tree)
    judge.is_sharing = shares_state(tree, COMMON_MODULES)
    judge.audit = Audit(judge, text)
    module = ModuleType("__main__")
    module.__dict__.update(
        __builtins__=Names(judge), __file__=os.path.join(judge.audit.folder, "test_program.py")
    )
    sys.modules["__main__"] = module
    sys.meta_path.insert(0, Finder(judge, module, imported_names(tree)))
    if helpers:
        held: dict[str, Any] = {"__name__": "prompt", "__builtins__": module.__builtins__}
        exec(helpers, held)  # noqa: S102 this is what the sandbox is for
        judge.helpers.update(
            {name: value for name, value in held.items() if isinstance(value, FunctionType)}
        )
    sys.addaudithook(judge.audit)
    return module


def run_test(text: str, helpers: str, judge: Judge) -> None:
    """Run a test: its text, and then the functions and classes in it that nothing has run."""
    tree = ast.parse(text)
    if judge.is_empty and asserts_nothing(tree):
        return
    module = new_test(tree, text, helpers, judge)
    if "unittest" in text:
        import unittest

        vars(unittest)["main"] = lambda *arguments, **named_arguments: None
    if "seed(" in text:
        share_seed(judge)
    for name in judge.shadowing_entries():
        module.__dict__[name] = judge.name(name)
    code: CodeType = compile(tree, "<test>", "exec", dont_inherit=True, optimize=0)
    try:
        exec(code, module.__dict__)  # noqa: S102 this is what the sandbox is for
    except SystemExit as end:
        if isinstance(end, ProgramExit) or end.code:
            raise
    used = used_names(tree)
    for value in [value for value in module.__dict__.values() if is_own(value)]:
        run_unit(value, used, judge)


def is_own(value: object) -> bool:
    """Return whether a test has defined this function or class itself."""
    return isinstance(value, FunctionType | type) and value.__module__ == "__main__"


def run_unit(value: Any, used: frozenset[str], judge: Judge) -> None:
    """Run a `check` function, a test function, or a class of test cases."""
    if isinstance(value, type):
        cases = sys.modules.get("unittest.case")
        if cases is not None and issubclass(value, cases.TestCase):
            run_cases(value)
    elif value.__name__ not in used and UNIT.match(value.__name__):
        required = value.__code__.co_argcount - len(value.__defaults__ or ())
        value(*[judge.entry() for _ in range(required)])


def run_cases(cases: type[Any]) -> None:
    """Run the tests of a class, and raise what the first failed one has raised."""
    import unittest

    errors: list[BaseException] = []

    class Result(unittest.TestResult):
        def addError(self, test: Any, err: Any) -> None:
            errors.append(err[1])
            super().addError(test, err)

        def addFailure(self, test: Any, err: Any) -> None:
            errors.append(err[1])
            super().addFailure(test, err)

        def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
            errors.extend([] if err is None else [err[1]])
            super().addSubTest(test, subtest, err)

    result = Result()
    unittest.TestLoader().loadTestsFromTestCase(cases).run(result)
    if errors:
        raise errors[0]
    assert result.wasSuccessful()


def share_seed(judge: Judge) -> None:
    """Seed the program's generator of random numbers along with the test's own."""
    import random

    seed = random.seed

    def seed_both(*arguments: Any) -> None:
        seed(*arguments)
        judge.ask("seed", *arguments)

    vars(random)["seed"] = seed_both


def verdict(
    text: str, channel: Channel | None, entry_points: Sequence[str], helpers: str = ""
) -> bytes:
    """Run a test and return its verdict and the number of the exception that ended it.

    Without a channel, the program is the empty one. `helpers` are the functions of the prompt.
    """
    judge = Judge(channel, entry_points)
    with Caught() as caught:
        if channel is not None:
            judge.ask("load")
        run_test(text, helpers, judge)
    return bytes(code_of(judge, caught.error))


def code_of(judge: Judge, error: BaseException | None) -> tuple[int, int]:
    """Return the verdict on a test that has ended so, and the number of its exception."""
    if judge.is_lost:
        return LOST, 0
    if judge.is_refused or (error is None and judge.is_doubtful):
        return UNISOLATED, 0
    if error is None:
        return PASSED, 0
    if is_missing_package(judge, error):
        return UNISOLATED, exception_number(error)
    if judge.is_sharing or (isinstance(error, PermissionError) and not is_raised(judge, error)):
        return UNISOLATED, 0
    if isinstance(error, SystemExit):
        return QUIT, 0
    kinds: dict[type[BaseException], int] = {AssertionError: FAILED, MemoryError: EXHAUSTED}
    code = next((code for kind, code in kinds.items() if isinstance(error, kind)), ERRED)
    return code, exception_number(error)


def is_missing_package(judge: Judge, error: BaseException) -> bool:
    """Return whether a test, and not the program, has missed a module that Python does not have."""
    return (
        isinstance(error, ModuleNotFoundError)
        and not is_raised(judge, error)
        and str(error.name).partition(".")[0] not in LIBRARY
    )


def is_raised(judge: Judge, error: BaseException) -> bool:
    """Return whether the program has raised an exception."""
    return any(error is raised for raised in judge.raised)
