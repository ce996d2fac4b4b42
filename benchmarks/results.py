"""What a run was asked for, and all that it saw."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.cells import Cell, Scale, Workload


@dataclass(frozen=True, slots=True)
class Run:
    """What was asked for. `cache` keeps models, right scores, environments and logs."""

    systems: tuple[str, ...]
    workloads: tuple[Workload, ...]
    scale: Scale
    cache: Path
    dtype: str = "float32"
    batch_tokens: int | None = None
    lock: Path | None = None

    @property
    def venvs(self) -> Path:
        """Where the peers' environments are."""
        return self.cache / "venvs"


@dataclass(slots=True)
class Results:
    """All that was seen. A run is kept even where a system failed: `failures` says why. `left_out`
    tells how many seconds a cell would have taken a system that was therefore spared it.
    """

    cells: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    limits: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, cell: Cell, system: str, found: dict[str, Any]) -> None:
        """Keep one measurement."""
        self.cells.setdefault(cell.name, {}).setdefault(system, []).append(found)

    def seconds(self, cell: Cell, system: str, seen: Sequence[Cell]) -> float:
        """How long all of a cell's callers take to be answered once, by the highest rate that the
        system has shown in the cells `seen`, which are of one model; 0 where it has shown none."""
        rates = [
            found.get("items_per_second", 0.0)
            for one in seen
            for found in self.cells.get(one.name, {}).get(system, ())
        ]
        best = max(rates, default=0.0)
        return cell.callers * cell.per_request / best if best else 0.0
