"""The canary: a random value in place of an expected one that is always reached."""

from typing import Any

import pytest

from assay_models.families.code_exec.canary import make_canary


def passes_canary(answer: object, *tests: str) -> bool:
    """Return whether a program that gives `answer` passes the canary of these tests."""
    canary: Any = make_canary(tests)
    try:
        exec(compile(canary, "<test>", "exec"), {"answer": lambda: answer})
    except AssertionError:
        return False
    return True


class Everything:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


REACHED = [
    "assert answer() == 42",
    "x = 1\nassert answer() == x",
    "for n in range(3):\n    pass\nassert answer() == [1]",
    "def check(f):\n    assert f() == 42\ncheck(answer)",
]
UNREACHED = [
    "try:\n    assert answer() == 42\nexcept AssertionError:\n    pass",
    "for n in []:\n    assert answer() == n",
    "if answer() != 42:\n    assert answer() == 42",
    "def check(f):\n    assert f() == 42",
    "def check(f):\n    return\n    assert f() == 42\ncheck(answer)",
    "def check(f):\n    yield\n    assert f() == 42\ncheck(answer)",
    "x = answer()\nassert x == 42",
    "assert answer() == 42 or True",
    "assert 42 == answer()",
    "assert answer() == 42 == 42",
]


@pytest.mark.parametrize("test", REACHED)
def test_an_expectation_that_is_always_reached_makes_the_canary(test: str) -> None:
    assert passes_canary(Everything(), test)
    assert not passes_canary(42, test)


@pytest.mark.parametrize("test", UNREACHED)
def test_an_expectation_that_may_be_skipped_makes_the_canary_assert_false(test: str) -> None:
    assert make_canary([test]) == "assert False"
    assert not passes_canary(Everything(), test)


def test_the_first_test_with_a_reached_expectation_makes_the_canary() -> None:
    assert passes_canary(Everything(), UNREACHED[0], "assert answer() > 1", REACHED[0])
    assert not passes_canary(42, UNREACHED[0], "assert answer() > 1", REACHED[0])


@pytest.mark.parametrize(
    ("expected", "kind"), [("42", int), ("'a'", str), ("[1, 2]", list), ("(1,)", tuple)]
)
def test_the_random_value_is_of_the_expected_kind_and_differs_each_time(
    expected: str, kind: type
) -> None:
    values: list[object] = []

    class Recorder(Everything):
        def __eq__(self, other: object) -> bool:
            values.append(other)
            return True

    assert passes_canary(Recorder(), f"assert answer() == {expected}")
    assert passes_canary(Recorder(), f"assert answer() == {expected}")
    assert [type(value) for value in values] == [kind, kind]
    assert values[0] != values[1]
