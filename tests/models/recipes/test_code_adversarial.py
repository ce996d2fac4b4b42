"""The edits of the adversarial study: their effect on a program, and where they do not apply."""

from collections.abc import Callable

import pytest

from recipes.code.data import Pair
from recipes.code.studies import adversarial
from recipes.code.studies.adversarial import (
    ATTACKS,
    DAMAGE,
    attack_pairs,
    damage_pairs,
    swap_problems,
)

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
def test_an_attack_changes_the_text_of_a_program_but_not_its_result(name: str) -> None:
    edited = ATTACKS[name](PROGRAM)
    assert edited is not None
    assert edited != PROGRAM
    assert run(edited) == run(PROGRAM) == 10


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_changes_the_result_of_a_program(name: str) -> None:
    edited = DAMAGE[name](PROGRAM)
    assert edited is not None
    assert run(edited) is None


@pytest.mark.parametrize(
    ("edit", "program"),
    [
        (adversarial.rename_variables, "def f(a):\n    return g(a, key=1)"),
        (adversarial.rename_variables, "print(1)"),
        (adversarial.add_docstring, 'def f():\n    """Known."""'),
        (adversarial.add_docstring, "x = 1"),
        (adversarial.drop_last_statement, "def f():\n    return 1"),
        (adversarial.empty_functions, "x = 1"),
    ],
)
def test_an_edit_that_does_not_apply_returns_none(
    edit: Callable[[str], str | None], program: str
) -> None:
    assert edit(program) is None


def test_renaming_keeps_a_name_that_shadows_a_builtin() -> None:
    found = adversarial.rename_variables("def f(dict, a):\n    return dict[a]")
    assert found == "def f(dict, v0):\n    return dict[v0]"


def test_attacks_edit_the_rejected_side_and_damage_the_chosen_one() -> None:
    pairs = [Pair("p", "Add.", PROGRAM, "x = 1"), Pair("q", "Stop.", "y = 2", PROGRAM)]
    ((before, after),) = attack_pairs(pairs, adversarial.add_docstring)
    assert (before, after.chosen) == (pairs[1], "y = 2")
    assert "correct result" in after.rejected
    (broken,) = damage_pairs(pairs, adversarial.empty_functions)
    assert (broken.chosen, broken.problem) == (PROGRAM, "p")
    assert "pass" in broken.rejected
    assert [(pair.chosen, pair.rejected) for pair in swap_problems(pairs)] == [
        (PROGRAM, "y = 2"),
        ("y = 2", PROGRAM),
    ]
