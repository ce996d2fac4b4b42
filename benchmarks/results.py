"""What a run was asked for, and all that it saw."""

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
    """All that was seen. A run is kept even where a system failed: `failures` says why."""

    cells: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    limits: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)

    def add(self, cell: Cell, system: str, found: dict[str, Any]) -> None:
        """Keep one measurement."""
        self.cells.setdefault(cell.name, {}).setdefault(system, []).append(found)
