"""Pairs of programs for one problem, the training mixture, and packs that share their prompt."""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.measure import read_jsonl

WITHHELD_SOURCE = "wizardcoder"
"""A collection whose licence may forbid commercial use: its rows are left out of training."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two programs for one problem; `chosen` is the better one."""

    problem: str
    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True, slots=True)
class Share:
    """One part of an epoch: at most `limit` pairs of a file, drawn anew in each epoch."""

    file: str
    limit: int
    keep: Callable[[dict[str, Any]], bool] = lambda row: True


def _single_bug(row: dict[str, Any]) -> bool:
    return row["bug_type"] not in ("double", "triple", "quadruple")


MIXTURE = (
    Share("pairs_natural_train", 4_000),
    Share("pairs_mutation_train", 3_000),
    Share("pairs_humanevalfix", 400),
    Share("pairs_debugbench_python", 200, _single_bug),
    Share("pairs_contest", 80),
    Share("pairs_student", 100),
)


@dataclass(frozen=True, slots=True)
class Program:
    """One program, its token ids after the prompt, and whether it is a better side."""

    text: str
    ids: tuple[int, ...]
    good: bool


@dataclass(frozen=True, slots=True)
class Pack:
    """Several programs for one problem, to be scored in one forward pass after one prompt."""

    prompt: tuple[int, ...]
    programs: tuple[Program, ...]

    @property
    def tokens(self) -> int:
        """The length of the packed row."""
        return len(self.prompt) + sum(len(program.ids) for program in self.programs)


Encode = Callable[[str], list[int]]


def read_pairs(data: Path, file: str, split: str) -> list[tuple[dict[str, Any], Pair]]:
    """The rows of one file of `data/code` that belong to a split, with their pairs."""
    rows = (row for row in read_jsonl(data / "code" / f"{file}.jsonl.gz") if row["split"] == split)
    return [(row, _pair(row)) for row in rows]


def training_pairs(data: Path) -> list[tuple[Share, list[Pair]]]:
    """What each share of the mixture draws from: the train split, withheld rows left out."""
    return [
        (
            share,
            [
                pair
                for row, pair in read_pairs(data, share.file, "train")
                if share.keep(row) and not _withheld(row)
            ],
        )
        for share in MIXTURE
    ]


class Packer:
    """Turns pairs into packs: a prompt once, then the distinct programs of several of its pairs.

    Args:
        encode: text to token ids, special tokens recognised.
        longest: pairs with a side of more tokens (prompt included) are left out.
        budget: a pack is closed when it holds this many tokens.
    """

    def __init__(self, encode: Encode, longest: int, budget: int) -> None:
        self._encode = encode
        self._longest = longest
        self._budget = budget
        self._known: dict[str, tuple[int, ...]] = {}

    def epoch(
        self, shares: Sequence[tuple[Share, list[Pair]]], generator: random.Random
    ) -> list[Pack]:
        """The packs of one pass over the mixture, in random order."""
        packs: list[Pack] = []
        for share, pairs in shares:
            drawn = generator.sample(pairs, min(share.limit, len(pairs)))
            packs += self.packs(drawn)
        generator.shuffle(packs)
        return packs

    def packs(self, pairs: Sequence[Pair]) -> Iterator[Pack]:
        """Packs of the pairs that fit; a program that is in several pairs is packed once."""
        problems: dict[str, list[Pair]] = defaultdict(list)
        for pair in pairs:
            problems[pair.prompt].append(pair)
        for prompt, group in problems.items():
            yield from self._problem(self._ids(f"user\n{prompt}", "<|im_start|>assistant\n"), group)

    def _problem(self, prompt: tuple[int, ...], pairs: Sequence[Pair]) -> Iterator[Pack]:
        seen: set[str] = set()
        open_pack: dict[str, Program] = {}
        for pair in pairs:
            sides = {
                text: Program(text, self._program(text), text == pair.chosen)
                for text in (pair.chosen, pair.rejected)
            }
            too_long = max(len(side.ids) for side in sides.values()) + len(prompt) > self._longest
            if too_long or seen.issuperset(sides):
                continue
            seen.update(sides)
            open_pack |= sides
            if Pack(prompt, tuple(open_pack.values())).tokens > self._budget:
                yield Pack(prompt, tuple(open_pack.values()))
                open_pack = {}
        if open_pack:
            yield Pack(prompt, tuple(open_pack.values()))

    def _program(self, text: str) -> tuple[int, ...]:
        if text not in self._known:
            self._known[text] = tuple(self._encode(f"{text.strip()}<|im_end|>\n"))
        return self._known[text]

    def _ids(self, turn: str, rest: str) -> tuple[int, ...]:
        return tuple(self._encode(f"<|im_start|>{turn}<|im_end|>\n{rest}"))


def _pair(row: dict[str, Any]) -> Pair:
    return Pair(row["problem"], row["prompt"], row["chosen"], row["rejected"])


def is_withheld(makers: Iterable[str]) -> bool:
    """Whether a program is of the collection that is left out."""
    return any(WITHHELD_SOURCE in maker for maker in makers)


def _withheld(row: dict[str, Any]) -> bool:
    return any(is_withheld(row.get(field) or ()) for field in ("chosen_by", "rejected_by"))
