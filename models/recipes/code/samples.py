"""Additional pairs from the labelled single programs: a failing program beside a passing one.

Both sides are rewritten from their syntax trees, without docstrings, comments and calls at the top
level, so that neither layout nor demonstration code distinguishes them.
"""

import ast
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipes.code.data import Pair, is_withheld, read_pairs
from recipes.measure import read_jsonl

SAMPLE_FILES = ("samples_humaneval", "samples_mbpp")
PROMPT_FILES = ("pairs_natural_train", "pairs_mutation_train")
PASSED_BY_LABEL = {"pass": True, "fail": False, "edge_fail": False}
MAX_PAIRS = 12
"""Pairs of one problem in one wording."""
SEED = 3

_KEPT = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign)

Wording = tuple[str, str]
"""A problem and its variant."""


def sampled_pairs(data: Path) -> list[Pair]:
    """Pair failing programs of the train split with a passing one, of the same collection if any.

    There are at most `MAX_PAIRS` for each wording of a problem.
    """
    prompts = {
        (row["problem"], row["variant"]): pair.prompt
        for file in PROMPT_FILES
        for row, pair in read_pairs(data, file, "train")
    }
    generator = random.Random(SEED)  # noqa: S311 - a sample
    candidates = [
        (wording, Pair(wording[0], prompts[wording], better, worse))
        for wording, programs in sorted(_programs(data).items())
        if wording in prompts
        for better, worse in _partners(programs, generator)
    ]
    generator.shuffle(candidates)
    counts: Counter[Wording] = Counter()
    kept = []
    for wording, pair in candidates:
        counts[wording] += 1
        if counts[wording] <= MAX_PAIRS:
            kept.append(pair)
    return kept


def rewrite(program: str) -> str:
    """Return the program's definitions, imports and assignments in one layout, without docstrings.

    Raises:
        SyntaxError: it does not parse.
    """
    tree = ast.parse(program)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    tree.body = [node for node in tree.body if isinstance(node, _KEPT)]
    return ast.unparse(tree)


def _programs(data: Path) -> dict[Wording, dict[str, tuple[bool, str]]]:
    """Return the rewritten programs of each wording: whether each passes, and its collection."""
    found: dict[Wording, dict[str, tuple[bool, str]]] = defaultdict(dict)
    for row in _rows(data):
        try:
            program = rewrite(row["code"])
        except (SyntaxError, ValueError, RecursionError):
            continue
        if "def " in program:
            passed = PASSED_BY_LABEL[row["label"]]
            known = found[row["problem"], row["variant"]]
            if program in known and known[program][0] != passed:
                passed = False  # the docstring or a call decided: it is no clean pass
            known[program] = (passed, row["sources"][0])
    return found


def _rows(data: Path) -> Iterator[dict[str, Any]]:
    for file in SAMPLE_FILES:
        for row in read_jsonl(data / "code" / f"{file}.jsonl.gz"):
            decided = row["label"] in PASSED_BY_LABEL and not row["missing_import"]
            if row["split"] == "train" and decided and not is_withheld(row["sources"]):
                yield row


def _partners(
    programs: dict[str, tuple[bool, str]], generator: random.Random
) -> Iterator[tuple[str, str]]:
    passing = sorted(program for program, (passed, _) in programs.items() if passed)
    for worse, (passed, source) in sorted(programs.items()):
        if not passed and passing:
            same = [program for program in passing if programs[program][1] == source]
            yield generator.choice(same or passing), worse
