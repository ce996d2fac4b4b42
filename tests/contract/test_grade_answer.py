"""Grades of answers over HTTP, from a server of that family alone."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.servers import listening

from assay.settings import Settings

MODEL = "grade-answer"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with listening(Settings(models=(MODEL,), runs="off")) as url:
        yield url


def grade(address: str, *items: dict[str, Any]) -> list[dict[str, Any]]:
    body = {"model": MODEL, "items": list(items)}
    reply = httpx2.post(f"{address}/v1/score", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    results: list[dict[str, Any]] = reply.json()["results"]
    return results


def item(response: str, gold: str | list[str], kind: str, **more: Any) -> dict[str, Any]:
    return {"response": response, "gold": gold, "answer_type": kind, **more}


def test_answers_of_each_type_are_graded(address: str) -> None:
    results = grade(
        address,
        item(r"So it is \boxed{1{,}234.50}.", "1234.5", "number"),
        item("Answer: the Eiffel Tower.", ["Tour Eiffel", "Eiffel tower"], "short"),
        item("The answer is (B).", "C", "mcq"),
        item(r"Thus \boxed{\frac{\sqrt{2}}{2}}.", r"\frac{1}{\sqrt 2}", "math"),
        item("I do not know.\nSorry.", "7", "number"),
    )
    assert [result["score"] for result in results] == [1.0, 1.0, 0.0, 1.0, 0.0]
    assert [result["source"] for result in results] == [*["rule"] * 3, "computed", "rule"]
    assert [result["channels"]["has_answer"] for result in results] == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert results[3]["details"] == {
        "parsed_answer": r"\frac{\sqrt{2}}{2}",
        "path": "rule",
        "matched": None,
    }
    again = grade(address, item(r"\boxed{\frac{\sqrt{2}}{2}}", r"\frac{1}{\sqrt 2}", "math"))
    assert again[0]["source"] == "cache"


def test_a_failed_grade_is_an_error_with_a_code_and_no_number(address: str) -> None:
    results = grade(
        address,
        item(r"\boxed{x}", "x", "free"),
        item(r"\boxed{x}", r"\foo{", "math"),
        item(r"\boxed{9^{9^{9^{9}}}}", "x", "math"),
        item(r"\boxed{\sqrt{4}}", "2", "math"),
    )
    codes = [result["error"] and result["error"]["code"] for result in results]
    assert codes == ["judge_not_configured", "unparsed_gold", "grading_limit", None]
    assert [result["score"] for result in results] == [None, None, None, 1.0]


ALONE = """
import sys
import httpx2
from assay.settings import Settings
from support.servers import listening
with listening(Settings(models=("grade-answer",), runs="off")) as url:
    item = {"response": r"\\boxed{\\sqrt{8}}", "gold": r"2\\sqrt{2}", "answer_type": "math"}
    reply = httpx2.post(f"{url}/v1/score", json={"model": "grade-answer", "items": [item]})
    assert reply.json()["results"][0]["score"] == 1.0, reply.text
print(sorted({"torch", "sympy", "math_verify", "transformers"} & set(sys.modules)))
"""


def test_a_server_of_this_family_imports_neither_torch_nor_sympy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.stdout.strip() == "[]", done.stderr
