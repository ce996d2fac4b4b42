"""The edits that the code model is tried with: what each does to a program, and to what not."""

from collections.abc import Callable

import pytest

from recipes.code import adversarial
from recipes.code.adversarial import ATTACKS, DAMAGE, attacked, damaged, elsewhere
from recipes.code.data import Pair

PROGRAM = """
def total(numbers, start=0):
    # add them up
    result = start
    for number in numbers:
        result += number
    return result
"""


def run(program: str) -> object:
    namespace: dict[str, object] = {}
    exec(program, namespace)
    total = namespace["total"]
    assert callable(total)
    return total([1, 2, 3], 4)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_changes_how_a_program_looks_and_not_what_it_does(name: str) -> None:
    edited = ATTACKS[name](PROGRAM)
    assert edited is not None
    assert edited != PROGRAM
    assert run(edited) == run(PROGRAM) == 10


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_changes_what_it_does(name: str) -> None:
    edited = DAMAGE[name](PROGRAM)
    assert edited is not None
    assert run(edited) is None


@pytest.mark.parametrize(
    ("edit", "program"),
    [
        (adversarial.renamed, "def f(a):\n    return g(a, key=1)"),
        (adversarial.renamed, "print(1)"),
        (adversarial.documented, 'def f():\n    """Known."""'),
        (adversarial.documented, "x = 1"),
        (adversarial.cut_short, "def f():\n    return 1"),
        (adversarial.emptied, "x = 1"),
    ],
)
def test_where_an_edit_does_not_apply(edit: Callable[[str], str | None], program: str) -> None:
    assert edit(program) is None


def test_a_name_that_hides_a_builtin_keeps_it() -> None:
    found = adversarial.renamed("def f(dict, a):\n    return dict[a]")
    assert found == "def f(dict, v0):\n    return dict[v0]"


def test_which_side_is_edited() -> None:
    pairs = [Pair("p", "Add.", PROGRAM, "x = 1"), Pair("q", "Stop.", "y = 2", PROGRAM)]
    ((before, after),) = attacked(pairs, adversarial.documented)
    assert (before, after.chosen) == (pairs[1], "y = 2")
    assert "correct result" in after.rejected
    (broken,) = damaged(pairs, adversarial.emptied)
    assert (broken.chosen, broken.problem) == (PROGRAM, "p")
    assert "pass" in broken.rejected
    assert [(pair.chosen, pair.rejected) for pair in elsewhere(pairs)] == [
        (PROGRAM, "y = 2"),
        ("y = 2", PROGRAM),
    ]
