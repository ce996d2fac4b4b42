"""A fixed probe set of evidence and claims: every back-end scores the same pairs.

It is drawn from the development set each time.
"""

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

GROUPS_PER_SOURCE = 40


@dataclass(frozen=True, slots=True)
class Group:
    """A piece of evidence with three claims on it, one of each label in the order of LABELS."""

    source: str
    evidence: str
    claims: tuple[str, ...]
    ids: tuple[str, ...]


def draw_groups(
    rows: Iterable[Mapping[str, Any]],
    sources: Sequence[str] = SOURCES,
    count: int = GROUPS_PER_SOURCE,
) -> list[Group]:
    """Draw `count` groups of each source, in the order of a digest of their ids.

    No random generator is involved: which groups are drawn depends on nothing but the rows, and
    rows of other premises that are added later replace few.

    Args:
        rows: each with `id`, `premise`, `hypothesis`, `label` and `source`.
        sources: those that are drawn from.
        count: the number of groups of each source.

    Raises:
        ValueError: a source has fewer premises with all three labels.
    """
    groups = []
    for source in sources:
        own = sorted(_complete(row for row in rows if row["source"] == source), key=_sort_key)
        if len(own) < count:
            raise ValueError(f"{source} has {len(own)} premises with all three labels: draw fewer")
        groups += own[:count]
    return groups


def read_probe_set(data: Path) -> list[Group]:
    """Draw the probe set from `data/nli/dev.jsonl.gz`, which shares no premise with the training
    set."""
    return draw_groups(list(read_jsonl(data / "nli" / "dev.jsonl.gz")))


def digest_of(groups: Sequence[Group]) -> str:
    """Return a digest of exactly these pairs: sixteen hexadecimal digits."""
    ids = "\n".join(identity for group in groups for identity in group.ids)
    return hashlib.sha256(ids.encode()).hexdigest()[:16]


def _complete(rows: Iterable[Mapping[str, Any]]) -> Iterator[Group]:
    """Yield the premises that have all three labels.

    Of several claims with the same label, the first by digest is taken.
    """
    known: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: _digest(str(row["id"]))):
        known[row["source"], row["premise"]].setdefault(row["label"], row)
    for (source, premise), by_label in known.items():
        if len(by_label) == len(LABELS):
            ordered = [by_label[label] for label in LABELS]
            claims = tuple(row["hypothesis"] for row in ordered)
            yield Group(source, premise, claims, tuple(str(row["id"]) for row in ordered))


def _sort_key(group: Group) -> str:
    return _digest("\n".join(group.ids))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
