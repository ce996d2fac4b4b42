"""The limits of a phase: helper processes that compute in a bare loop, asked in turn with cells."""

import sys
from dataclasses import dataclass, field
from typing import Any

from benchmarks.cells import Corpus, Scale
from benchmarks.corpora import Scored
from benchmarks.processes import Dialogue
from benchmarks.systems import Launch, System, variables
from benchmarks.texts import GROUP_SIZE, as_plain

KINDS = {"transformers": "limit", "assay": "own limit"}
SEARCH_EVERY = 4


@dataclass(slots=True)
class Limit:
    """One bare loop over one checkpoint: the best bound of its batches, and every measurement."""

    kind: str
    helper: Dialogue
    bound: int = 0
    rates: dict[str, float] = field(default_factory=dict)
    passes: list[dict[str, Any]] = field(default_factory=list)
    singles: list[dict[str, Any]] = field(default_factory=list)

    def told(self) -> dict[str, Any]:
        """As the report holds it."""
        return {
            "kind": self.kind,
            "bound": self.bound,
            "rates": self.rates,
            "repeats": self.passes,
            "single": self.singles,
        }


def open_limit(kind: str, launch: Launch, system: System) -> Limit:
    """Start a bare loop.

    Raises:
        RuntimeError: it did not start.
    """
    weights = str(launch.found.weights)
    command = [sys.executable, "-m", "benchmarks.limit", kind, weights, launch.dtype]
    log = launch.folder / f"limit-{kind}-{launch.found.name}.log"
    helper = Dialogue(command, variables(system, launch), log)
    helper.hear()
    return Limit(kind, helper)


def search(limit: Limit, scored: Scored, grouped: bool) -> None:
    """Give it its texts, and find the best bound of its batches."""
    _give(limit, scored, grouped)
    # Of groups the first one; of single items a few of every length.
    every, first = (1, GROUP_SIZE) if grouped else (SEARCH_EVERY, None)
    found = limit.helper.ask({"do": "search", "every": every, "first": first})
    limit.bound, limit.rates = found["best"], found["rates"]


def measure(limit: Limit) -> dict[str, Any]:
    """One pass over its texts."""
    found: dict[str, Any] = limit.helper.ask({"do": "measure", "bound": limit.bound})
    limit.passes.append(found)
    return found


def measure_single(limit: Limit, scored: Scored, seconds: float) -> dict[str, Any]:
    """The first text's forward pass, alone, again and again."""
    order = {"do": "single", "texts": as_plain(scored.texts[:1]), "seconds": seconds}
    found: dict[str, Any] = limit.helper.ask(order)
    limit.singles.append(found)
    return found


def texts_of(corpus: Corpus, scored: Scored, scale: Scale) -> Scored:
    """What a limit computes: as many groups as a cell asks, or enough of the single items."""
    count = scale.groups * GROUP_SIZE if corpus == "groups" else scale.limit_items
    return scored.part(0, count)


def _give(limit: Limit, scored: Scored, grouped: bool) -> None:
    order = {"do": "texts", "texts": as_plain(scored.texts), "truth": scored.truth}
    limit.helper.ask({**order, "sort": not grouped})
