"""The limits of a phase: helper processes with a bare loop, alternating with scenarios.

A bare loop runs the model's forward passes without a server.
"""

import sys
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from benchmarks.corpora import ScoredTexts
from benchmarks.processes import HelperProcess
from benchmarks.scenarios import Corpus, Scale
from benchmarks.systems import Launch, System, environment_of
from benchmarks.texts import GROUP_SIZE, to_json_rows

KINDS = {"transformers": "limit", "assay": "own limit"}
SEARCH_EVERY = 4


@dataclass(slots=True)
class Limit:
    """A bare loop over one checkpoint: the best bound of its batches, and every measurement."""

    kind: str
    helper: HelperProcess
    _: KW_ONLY
    bound: int = 0
    rates: dict[str, float] = field(default_factory=dict)
    passes: list[dict[str, Any]] = field(default_factory=list)
    singles: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for results.json."""
        return {
            "kind": self.kind,
            "bound": self.bound,
            "rates": self.rates,
            "repeats": self.passes,
            "single": self.singles,
        }


def start_limit(kind: str, launch: Launch, system: System) -> Limit:
    """Start a bare loop.

    Raises:
        RuntimeError: it did not start.
    """
    weights = str(launch.checkpoint.weights)
    command = [sys.executable, "-m", "benchmarks.bare_loop", kind, weights, launch.dtype]
    log = launch.folder / f"limit-{kind}-{launch.checkpoint.name}.log"
    helper = HelperProcess(command, environment_of(system, launch), log)
    helper.receive()
    return Limit(kind, helper)


def search(limit: Limit, scored: ScoredTexts, is_grouped: bool) -> None:
    """Send the texts to the loop and find the best bound of its batches."""
    _send_texts(limit, scored, is_grouped)
    # The first group; or every fourth single item, so that all lengths occur.
    every, first = (1, GROUP_SIZE) if is_grouped else (SEARCH_EVERY, None)
    found = limit.helper.request({"do": "search", "every": every, "first": first})
    limit.bound, limit.rates = found["best"], found["rates"]


def measure(limit: Limit) -> dict[str, Any]:
    """Measure one pass over the texts."""
    found: dict[str, Any] = limit.helper.request({"do": "measure", "bound": limit.bound})
    limit.passes.append(found)
    return found


def measure_single(limit: Limit, scored: ScoredTexts, seconds: float) -> dict[str, Any]:
    """Measure the first text's forward pass, alone, repeatedly."""
    command = {"do": "single", "texts": to_json_rows(scored.texts[:1]), "seconds": seconds}
    found: dict[str, Any] = limit.helper.request(command)
    limit.singles.append(found)
    return found


def texts_of(corpus: Corpus, scored: ScoredTexts, scale: Scale) -> ScoredTexts:
    """Return as many groups as a scenario has, or enough of the single items."""
    count = scale.groups * GROUP_SIZE if corpus == "groups" else scale.limit_items
    return scored.part(0, count)


def _send_texts(limit: Limit, scored: ScoredTexts, is_grouped: bool) -> None:
    texts = to_json_rows(scored.texts)
    command = {"do": "texts", "texts": texts, "expected": scored.expected, "sort": not is_grouped}
    limit.helper.request(command)
