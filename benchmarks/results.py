"""The configuration of a run, and its results.

The fields of `Results` are written to results.json under their names.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.scenarios import Scale, Scenario, Workload


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The configuration of a run.

    `cache` is the folder of models, expected scores, environments and logs.
    """

    systems: tuple[str, ...]
    workloads: tuple[Workload, ...]
    _: KW_ONLY
    scale: Scale
    cache: Path
    dtype: str = "float32"
    batch_tokens: int | None = None
    lock: Path | None = None

    @property
    def venvs(self) -> Path:
        """The folder of the peers' environments."""
        return self.cache / "venvs"


@dataclass(slots=True, kw_only=True)
class Results:
    """The results of a run.

    Attributes:
        cells: every measurement, by scenario and system.
        limits: the measurements of the bare loops.
        failures: the reason why a system did not serve; its run is kept.
        starts: seconds until a server was ready.
        left_out: scenarios that were skipped, with the seconds that a system would have taken.
    """

    cells: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=dict)
    limits: dict[str, dict[str, Any]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, dict[str, float]] = field(default_factory=dict)

    def add(self, scenario: Scenario, system: str, figures: dict[str, Any]) -> None:
        """Add one measurement."""
        self.cells.setdefault(scenario.name, {}).setdefault(system, []).append(figures)

    def expected_seconds(
        self, scenario: Scenario, system: str, same_model: Sequence[Scenario]
    ) -> float:
        """Return the seconds to answer each caller of a scenario once.

        They are computed from the highest rate of the system so far in the scenarios `same_model`,
        which are of one model; 0 without such a rate.
        """
        rates = [
            figures.get("items_per_second", 0.0)
            for other in same_model
            for figures in self.cells.get(other.name, {}).get(system, ())
        ]
        best = max(rates, default=0.0)
        return scenario.concurrency * scenario.per_request / best if best else 0.0
