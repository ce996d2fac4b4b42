"""Agreement of the grader of answers with the cases of two public projects.

The cases are read from checkouts, as literals of their test files, and nothing of them is run:
Math-Verify (Apache-2.0) and MARIO_EVAL. The first are biased to the library that reads mathematics
here as well; the others are independent.
"""

import argparse
import ast
import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from assay_models.answers.extraction import extract_answer
from assay_models.answers.pool import MathForms
from assay_models.base import ItemError
from assay_models.families.grade_answer.grading import grade, read_question
from assay_models.items import GradeAnswerItem

EXAMPLE = "example: python -m benchmarks.answer_exams --math-verify ../Math-Verify"


class Case(NamedTuple):
    """A reference, an answer, and whether the project holds them equal."""

    place: str
    gold: str
    answer: str
    is_equal: bool


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, and print agreement and disagreements."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--math-verify", type=Path, help="a checkout of huggingface/Math-Verify")
    parser.add_argument("--mario", type=Path, help="a checkout of MARIO-Math-Reasoning/MARIO_EVAL")
    given = parser.parse_args(arguments)
    cases = list(math_verify_cases(given.math_verify)) if given.math_verify else []
    cases += mario_cases(given.mario) if given.mario else []
    if not cases:
        parser.error("--math-verify or --mario is required")
    asyncio.run(_print(cases))


def math_verify_cases(checkout: Path) -> Iterator[Case]:
    """Yield the cases with a reference, an answer and a verdict, in the default mode."""
    for file in sorted((checkout / "tests").glob("test_*.py")):
        for call in ast.walk(ast.parse(file.read_text())):
            if isinstance(call, ast.Call) and ast.unparse(call.func).endswith("parametrize"):
                yield from _parametrized(file.stem, call)


def mario_cases(checkout: Path) -> Iterator[Case]:
    """Yield the pairs of `test_is_equiv`, in which an assertion follows two assignments."""
    file = checkout / "math_evaluation" / "tests" / "test_is_equiv.py"
    for function in ast.walk(ast.parse(file.read_text())):
        if not isinstance(function, ast.FunctionDef):
            continue
        names: dict[str, str] = {}
        for statement in function.body:
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
                names[ast.unparse(statement.targets[0])] = str(statement.value.value)
            code = ast.unparse(statement)
            if code.startswith("self.assert") and "is_equiv" in code and "test_in" in names:
                yield Case(
                    f"mario:{statement.lineno}",
                    names["test_out"],
                    names["test_in"],
                    code.startswith("self.assertTrue"),
                )


def _parametrized(place: str, call: ast.Call) -> Iterator[Case]:
    fields = ast.literal_eval(call.args[0])
    names = [part.strip() for part in fields.split(",")] if isinstance(fields, str) else fields
    expected = next((name for name in ("expected", "result") if name in names), None)
    if not {"gold", "pred"} <= set(names) or expected is None:
        return
    assert isinstance(call.args[1], ast.List)
    for row in call.args[1].elts:
        try:
            case = dict(zip(names, ast.literal_eval(row), strict=True))
        except ValueError:  # not a literal
            continue
        is_default = case.get("strict", True) and case.get("precision", 6) == 6
        if is_default and not case.get("allow_set_relation_comp") and isinstance(case["gold"], str):
            place_of_row = f"{place}:{row.lineno}"
            yield Case(place_of_row, case["gold"], case["pred"], bool(case[expected]))


async def _print(cases: Sequence[Case]) -> None:
    forms, agreed, disagreed = MathForms(), 0, list[str]()
    for case in cases:
        verdict = await _verdict(forms, case)
        agreed += verdict == str(case.is_equal)
        if verdict != str(case.is_equal):
            disagreed.append(f"{case.place}\n  {case.gold!r}\n  {case.answer!r}\n  {verdict}")
    print("\n".join(disagreed))
    print(f"{agreed} of {len(cases)} agree")


async def _verdict(forms: MathForms, case: Case) -> str:
    gold, answer = (extract_answer(text) or text for text in (case.gold, case.answer))
    item = GradeAnswerItem(response=case.answer, gold=gold, answer_type="math")
    try:
        verdict = grade(await read_question(item, answer, None).resolved(forms.form))
    except ItemError as error:
        return error.code
    return str(verdict.is_correct)


if __name__ == "__main__":
    main()
