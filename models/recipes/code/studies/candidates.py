"""Candidates for held-out problems: programs of many models, with the outcome of their tests."""

import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.code.data import read_pairs
from recipes.measure import read_jsonl

SAMPLE_FILES = ("samples_humaneval", "samples_mbpp")
PROMPT_FILES = ("pairs_natural_dev", "pairs_mutation_dev")
PASSED_BY_LABEL = {"pass": True, "fail": False, "edge_fail": False}
SEED = 8


@dataclass(frozen=True, slots=True)
class Candidate:
    """A program, and whether it passed every test."""

    program: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Task:
    """A problem in one wording, and candidates of which some pass and some do not.

    `tests` are the tests of a program of this wording, None where the data has none.
    """

    problem: str
    prompt: str
    tests: str | None
    candidates: tuple[Candidate, ...]


def read_tasks(data: Path, size: int) -> list[Task]:
    """Read every dev problem with at least `size` decided candidates, some passing, some failing.

    `size` of them are drawn with a fixed seed, regardless of their outcome: a draw may hold no
    passing candidate. Programs that pass only because the tests import for them are left out.
    """
    prompts = _prompts(data)
    problems = {row["problem"]: row for row in read_jsonl(data / "code" / "problems.jsonl.gz")}
    generator = random.Random(SEED)  # noqa: S311 - a sample
    tasks = []
    for (problem, variant), rows in sorted(_decided_rows(data).items()):
        candidates = [Candidate(row["code"], PASSED_BY_LABEL[row["label"]]) for row in rows]
        outcomes = {candidate.passed for candidate in candidates}
        if len(candidates) < size or len(outcomes) == 1:
            continue
        drawn = tuple(generator.sample(candidates, size))
        tests = _tests(problems[problem], variant)
        tasks.append(Task(problem, prompts[problem, variant], tests, drawn))
    return tasks


def _is_decided(row: dict[str, Any]) -> bool:
    return row["split"] == "dev" and row["label"] in PASSED_BY_LABEL and not row["missing_import"]


def _tests(row: dict[str, Any], variant: str) -> str | None:
    if variant == "humaneval":
        return f"{row['tests']}\n\ncheck({row['entry_point']})\n"
    return str(row["tests"]) if variant == "orig" else None


def _decided_rows(data: Path) -> dict[tuple[str, str], list[dict[str, Any]]]:
    rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for file in SAMPLE_FILES:
        for row in read_jsonl(data / "code" / f"{file}.jsonl.gz"):
            if _is_decided(row):
                rows[row["problem"], row["variant"]].append(row)
    return rows


def _prompts(data: Path) -> dict[tuple[str, str], str]:
    """Return the wording that the programs of each variant answer."""
    return {
        (row["problem"], row["variant"]): row["prompt"]
        for file in PROMPT_FILES
        for row, _ in read_pairs(data, file, "dev")
    }
