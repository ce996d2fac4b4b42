"""A frozen bank of claims and evidence: the same pairs for every back-end, drawn anew each time."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipes.measure import read_jsonl
from recipes.nli.data import LABELS

SOURCES = ("cad", "folio", "lingnli", "mnli", "snli")
"""The sources of which enough premises have a hypothesis of each label."""

GROUPS = 40
"""Groups drawn from each source."""


@dataclass(frozen=True, slots=True)
class Group:
    """One piece of evidence with three claims on it, one of each label in the order of LABELS."""

    source: str
    evidence: str
    claims: tuple[str, ...]
    ids: tuple[str, ...]


def draw(
    rows: Iterable[Mapping[str, Any]], sources: Sequence[str] = SOURCES, groups: int = GROUPS
) -> list[Group]:
    """The bank: so many groups of each source, in the order of a digest of their ids.

    No generator is involved: which groups are drawn depends on nothing but the rows, and rows of
    other premises that are added later take the place of few.

    Args:
        rows: each with `id`, `premise`, `hypothesis`, `label` and `source`.
        sources: those that are drawn from.
        groups: how many of each.

    Raises:
        ValueError: a source has fewer premises with all three labels.
    """
    bank = []
    for source in sources:
        own = sorted(_complete(row for row in rows if row["source"] == source), key=_place)
        if len(own) < groups:
            raise ValueError(f"{source} has {len(own)} premises with all three labels: draw fewer")
        bank += own[:groups]
    return bank


def read_bank(data: Path) -> list[Group]:
    """The bank of `data/nli/dev.jsonl.gz`, which shares no premise with the training set."""
    return draw(list(read_jsonl(data / "nli" / "dev.jsonl.gz")))


def digest_of(bank: Sequence[Group]) -> str:
    """A name for exactly these pairs: sixteen hexadecimal digits."""
    ids = "\n".join(identity for group in bank for identity in group.ids)
    return hashlib.sha256(ids.encode()).hexdigest()[:16]


def _complete(rows: Iterable[Mapping[str, Any]]) -> Iterator[Group]:
    """The premises that have all three labels; of several claims of a label the first by digest."""
    held: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: _digest(str(row["id"]))):
        held[row["source"], row["premise"]].setdefault(row["label"], row)
    for (source, premise), by_label in held.items():
        if len(by_label) == len(LABELS):
            chosen = [by_label[label] for label in LABELS]
            claims = tuple(row["hypothesis"] for row in chosen)
            yield Group(source, premise, claims, tuple(str(row["id"]) for row in chosen))


def _place(group: Group) -> str:
    return _digest("\n".join(group.ids))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
