"""From all measurements to the figures that are told: medians, and ratios within the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks.cells import STORM_DISTINCT

Found = Mapping[str, Any]
FIGURES = (
    "items_per_second",
    "tokens_per_second",
    "p50_ms",
    "p99_ms",
    "padding_waste",
    "forwards",
    "server_cpu",
    "generator_cpu",
    "other_cpu",
    "connect_retries",
    "computed",
)
HIGHEST = ("peak_mib", "largest_difference")


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell on one system: medians over the repeats, the highest of some, errors added up.

    `share` is the rate over the limit's, `own_share` over that of Assay's own forward pass.
    """

    cell: str
    system: str
    values: Mapping[str, float | None]
    errors: Mapping[str, int]
    repeats: int
    share: float | None
    own_share: float | None


def figures(results: Found) -> list[Figure]:
    """Every cell on every system, in the order measured."""
    phases = {shape["name"]: shape["phase"] for shape in results["shapes"]}
    return [
        figure(results, cell, system, phases[cell])
        for cell, systems in results["cells"].items()
        for system in systems
    ]


def figure(results: Found, cell: str, system: str, phase: str) -> Figure:
    """One cell on one system."""
    repeats = results["cells"][cell][system]
    whole = [one for one in repeats if "failed" not in one]
    values = {name: middle(whole, name) for name in FIGURES}
    values |= {name: highest(whole, name) for name in HIGHEST}
    rate = values["items_per_second"]
    shared = cell != "idle"
    return Figure(
        cell,
        system,
        values,
        _errors(repeats),
        len(repeats),
        over(rate, limit_rate(results, phase, "transformers")) if shared else None,
        over(rate, limit_rate(results, phase, "assay")) if shared else None,
    )


def middle(repeats: Sequence[Found], name: str) -> float | None:
    """The median of a figure over the repeats that have it."""
    values = [one[name] for one in repeats if one.get(name) is not None]
    return median(values) if values else None


def highest(repeats: Sequence[Found], name: str) -> float | None:
    """The highest of a figure over the repeats that have it."""
    return max((one[name] for one in repeats if one.get(name) is not None), default=None)


def limit_rate(results: Found, phase: str, kind: str) -> float | None:
    """Items a second of a bare loop, the median of its passes."""
    found = results["limits"].get(f"{phase}.{kind}")
    return middle(found["repeats"], "items_per_second") if found else None


def over(value: float | None, base: float | None) -> float | None:
    """A ratio, None where a part of it is missing."""
    return value / base if value is not None and base else None


def cached_ratios(results: Found) -> dict[str, float]:
    """Assay's rate over the bare endpoint's, for each cell that both answered."""
    found = {}
    for cell, systems in results["cells"].items():
        rates = {name: middle(repeats, "items_per_second") for name, repeats in systems.items()}
        ratio = over(rates.get("assay"), rates.get("bare"))
        if ratio is not None:
            found[cell] = ratio
    return found


def idle_overheads(results: Found) -> dict[str, dict[str, float]]:
    """Each system's p50 on an idle server, and what is left of it without a bare forward pass."""
    bare = {}
    for kind in ("transformers", "assay"):
        found = results["limits"].get(f"encoder.{kind}")
        alone = middle(found["single"], "p50_ms") if found else None
        if alone is not None:
            bare[kind] = alone
    told = {}
    for system, repeats in results["cells"].get("idle", {}).items():
        p50 = middle(repeats, "p50_ms")
        if p50 is not None:
            told[system] = {"p50": p50, **{kind: p50 - alone for kind, alone in bare.items()}}
    return told


def storm_cost(results: Found) -> float | None:
    """Items computed for each distinct item of a storm; one is the least possible."""
    return over(
        middle(results["cells"].get("storm", {}).get("assay", []), "computed"), STORM_DISTINCT
    )


def disturbance(results: Found) -> float | None:
    """Cores that other processes used during a cell, the median over all measurements."""
    cells = [one for systems in results["cells"].values() for one in systems.values()]
    return middle([one for repeats in cells for one in repeats], "other_cpu")


def _errors(repeats: Sequence[Found]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in repeats:
        for kind, number in one.get("errors", {}).items():
            found[kind] = found.get(kind, 0) + number
        if "failed" in one:
            found[one["failed"]] = found.get(one["failed"], 0) + 1
    return found
