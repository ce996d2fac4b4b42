"""The control test: chance where a value is expected, and only where nothing passes over it."""

from typing import Any

import pytest

from assay_models.families.code_exec.canary import control_of


def verdict_on(answer: object, *tests: str) -> bool:
    """Whether a program that gives `answer` passes the control of these tests."""
    control: Any = control_of(tests)
    try:
        exec(compile(control, "<test>", "exec"), {"answer": lambda: answer})
    except AssertionError:
        return False
    return True


class Everything:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


SEEN = [
    "assert answer() == 42",
    "x = 1\nassert answer() == x",
    "for n in range(3):\n    pass\nassert answer() == [1]",
    "def check(f):\n    assert f() == 42\ncheck(answer)",
]
UNSEEN = [
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


@pytest.mark.parametrize("test", SEEN)
def test_it_is_the_first_expectation_that_must_be_met(test: str) -> None:
    assert verdict_on(Everything(), test)
    assert not verdict_on(42, test)


@pytest.mark.parametrize("test", UNSEEN)
def test_an_expectation_that_may_be_passed_over_makes_no_control(test: str) -> None:
    assert control_of([test]) == "assert False"
    assert not verdict_on(Everything(), test)


def test_the_first_test_that_can_makes_it() -> None:
    assert verdict_on(Everything(), UNSEEN[0], "assert answer() > 1", SEEN[0])
    assert not verdict_on(42, UNSEEN[0], "assert answer() > 1", SEEN[0])


@pytest.mark.parametrize(
    ("expected", "kind"), [("42", int), ("'a'", str), ("[1, 2]", list), ("(1,)", tuple)]
)
def test_chance_is_of_the_expected_kind(expected: str, kind: type) -> None:
    seen: list[object] = []

    class Notes(Everything):
        def __eq__(self, other: object) -> bool:
            seen.append(other)
            return True

    assert verdict_on(Notes(), f"assert answer() == {expected}")
    assert verdict_on(Notes(), f"assert answer() == {expected}")
    assert [type(one) for one in seen] == [kind, kind]
    assert seen[0] != seen[1]
