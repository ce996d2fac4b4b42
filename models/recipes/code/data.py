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
class MixturePart:
    """A part of an epoch: at most `limit` pairs of a file, drawn anew in each epoch."""

    file: str
    limit: int
    keep: Callable[[dict[str, Any]], bool] = lambda row: True


def _has_single_bug(row: dict[str, Any]) -> bool:
    return row["bug_type"] not in ("double", "triple", "quadruple")


MIXTURE = (
    MixturePart("pairs_natural_train", 4_000),
    MixturePart("pairs_mutation_train", 3_000),
    MixturePart("pairs_humanevalfix", 400),
    MixturePart("pairs_debugbench_python", 200, _has_single_bug),
    MixturePart("pairs_contest", 80),
    MixturePart("pairs_student", 100),
)


@dataclass(frozen=True, slots=True)
class Program:
    """A program, its token ids after the prompt, and whether it is the chosen side of a pair."""

    text: str
    ids: tuple[int, ...]
    is_chosen: bool


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
    """Read the rows of one file of `data/code` that belong to a split, with their pairs."""
    rows = (row for row in read_jsonl(data / "code" / f"{file}.jsonl.gz") if row["split"] == split)
    return [(row, _pair(row)) for row in rows]


def training_pairs(data: Path) -> list[tuple[MixturePart, list[Pair]]]:
    """Read the train pairs of each part of the mixture, withheld rows left out."""
    return [
        (
            part,
            [
                pair
                for row, pair in read_pairs(data, part.file, "train")
                if part.keep(row) and not is_withheld_pair(row)
            ],
        )
        for part in MIXTURE
    ]


class Packer:
    """Packing of pairs: a prompt once, then the distinct programs of several of its pairs.

    Args:
        encode: text to token ids, special tokens recognised.
        max_tokens: pairs with a side of more tokens (prompt included) are left out.
        pack_tokens: a pack is closed when it holds more than this many tokens.
    """

    def __init__(self, encode: Encode, max_tokens: int, pack_tokens: int) -> None:
        self._encode = encode
        self._max_tokens = max_tokens
        self._pack_tokens = pack_tokens
        self._encoded_programs: dict[str, tuple[int, ...]] = {}

    def epoch(
        self, parts: Sequence[tuple[MixturePart, list[Pair]]], generator: random.Random
    ) -> list[Pack]:
        """Return the packs of one pass over the mixture, in random order."""
        packs: list[Pack] = []
        for part, pairs in parts:
            drawn = generator.sample(pairs, min(part.limit, len(pairs)))
            packs += self.packs(drawn)
        generator.shuffle(packs)
        return packs

    def packs(self, pairs: Sequence[Pair]) -> Iterator[Pack]:
        """Yield packs of the pairs that fit; a program that is in several pairs is packed once."""
        problems: dict[str, list[Pair]] = defaultdict(list)
        for pair in pairs:
            problems[pair.prompt].append(pair)
        for prompt, group in problems.items():
            yield from self._pack_problem(self._encode_prompt(prompt), group)

    def _pack_problem(self, prompt: tuple[int, ...], pairs: Sequence[Pair]) -> Iterator[Pack]:
        seen: set[str] = set()
        open_pack: dict[str, Program] = {}
        for pair in pairs:
            sides = {
                text: Program(text, self._encode_program(text), text == pair.chosen)
                for text in (pair.chosen, pair.rejected)
            }
            longest = max(len(side.ids) for side in sides.values()) + len(prompt)
            if longest > self._max_tokens or seen.issuperset(sides):
                continue
            seen.update(sides)
            open_pack |= sides
            if Pack(prompt, tuple(open_pack.values())).tokens > self._pack_tokens:
                yield Pack(prompt, tuple(open_pack.values()))
                open_pack = {}
        if open_pack:
            yield Pack(prompt, tuple(open_pack.values()))

    def _encode_program(self, text: str) -> tuple[int, ...]:
        if text not in self._encoded_programs:
            self._encoded_programs[text] = tuple(self._encode(f"{text.strip()}<|im_end|>\n"))
        return self._encoded_programs[text]

    def _encode_prompt(self, prompt: str) -> tuple[int, ...]:
        opening = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        return tuple(self._encode(opening))


def _pair(row: dict[str, Any]) -> Pair:
    return Pair(row["problem"], row["prompt"], row["chosen"], row["rejected"])


def is_withheld(makers: Iterable[str]) -> bool:
    """Return whether a program is of the collection that is left out."""
    return any(WITHHELD_SOURCE in maker for maker in makers)


def is_withheld_pair(row: dict[str, Any]) -> bool:
    """Return whether either side of a pair is of the collection that is left out."""
    return any(is_withheld(row.get(field) or ()) for field in ("chosen_by", "rejected_by"))
