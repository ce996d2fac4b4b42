"""More pairs, from the labelled single programs: a failing program beside a passing one.

Both sides are written anew from their syntax trees, without docstrings, comments and calls at the
top level, so that neither layout nor demonstration tells them apart.
"""

import ast
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from recipes.code.data import Pair, is_withheld, read_pairs
from recipes.measure import read_jsonl

FILES = ("samples_humaneval", "samples_mbpp")
WORDINGS = ("pairs_natural_train", "pairs_mutation_train")
LABELS = {"pass": True, "fail": False, "edge_fail": False}
LIMIT = 12
"""Pairs of one problem in one wording."""
SEED = 3

_KEPT = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign)

Wording = tuple[str, str]
"""A problem and its variant."""


def sampled_pairs(data: Path) -> list[Pair]:
    """A passing partner for failing programs of the train split, of the same collection if it has
    one; at most `LIMIT` for each wording of a problem."""
    prompts = {
        (row["problem"], row["variant"]): pair.prompt
        for file in WORDINGS
        for row, pair in read_pairs(data, file, "train")
    }
    chance = random.Random(SEED)  # noqa: S311 - a sample
    found = [
        (wording, Pair(wording[0], prompts[wording], better, worse))
        for wording, programs in sorted(_programs(data).items())
        if wording in prompts
        for better, worse in _partners(programs, chance)
    ]
    chance.shuffle(found)
    counts: Counter[Wording] = Counter()
    kept = []
    for wording, pair in found:
        counts[wording] += 1
        if counts[wording] <= LIMIT:
            kept.append(pair)
    return kept


def rewritten(program: str) -> str:
    """The program's definitions, imports and assignments in one layout, without docstrings.

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
    """For each wording the rewritten programs: whether each passes, and its collection."""
    found: dict[Wording, dict[str, tuple[bool, str]]] = defaultdict(dict)
    for row in _rows(data):
        try:
            program = rewritten(row["code"])
        except (SyntaxError, ValueError, RecursionError):
            continue
        if "def " in program:
            passed = LABELS[row["label"]]
            known = found[row["problem"], row["variant"]]
            if program in known and known[program][0] != passed:
                passed = False  # the docstring or a call decided: it is no clean pass
            known[program] = (passed, row["sources"][0])
    return found


def _rows(data: Path) -> Iterator[dict[str, Any]]:
    for file in FILES:
        for row in read_jsonl(data / "code" / f"{file}.jsonl.gz"):
            decided = row["label"] in LABELS and not row["missing_import"]
            if row["split"] == "train" and decided and not is_withheld(row["sources"]):
                yield row


def _partners(
    programs: dict[str, tuple[bool, str]], chance: random.Random
) -> Iterator[tuple[str, str]]:
    passing = sorted(program for program, (passed, _) in programs.items() if passed)
    for worse, (passed, source) in sorted(programs.items()):
        if not passed and passing:
            same = [program for program in passing if programs[program][1] == source]
            yield chance.choice(same or passing), worse
