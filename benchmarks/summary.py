"""The reported figures: medians over the repeats, and ratios within the run."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from statistics import median
from typing import Any

from benchmarks.scenarios import STAMPEDE_DISTINCT

JsonObject = Mapping[str, Any]
MEDIANS = (
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
MAXIMA = ("peak_mib", "largest_difference")


@dataclass(frozen=True, slots=True)
class Summary:
    """A scenario on a system: medians over the repeats, maxima of some figures, summed errors.

    `share` is the rate over the limit's, `own_share` over that of Assay's own forward pass.
    """

    scenario: str
    system: str
    _: KW_ONLY
    values: Mapping[str, float | None]
    errors: Mapping[str, int]
    repeats: int
    share: float | None
    own_share: float | None


def summarise_all(results: JsonObject) -> list[Summary]:
    """Summarise every scenario on every system, in the order measured."""
    phases = {shape["name"]: shape["phase"] for shape in results["shapes"]}
    return [
        summarise(results, scenario, system, phases[scenario])
        for scenario, systems in results["cells"].items()
        for system in systems
    ]


def summarise(results: JsonObject, scenario: str, system: str, phase: str) -> Summary:
    """Summarise one scenario on one system."""
    repeats = results["cells"][scenario][system]
    completed = [repeat for repeat in repeats if "failed" not in repeat]
    values = {name: median_of(completed, name) for name in MEDIANS}
    values |= {name: max_of(completed, name) for name in MAXIMA}
    rate = values["items_per_second"] if scenario != "idle" else None
    return Summary(
        scenario,
        system,
        values=values,
        errors=_errors(repeats),
        repeats=len(repeats),
        share=ratio(rate, limit_rate(results, phase, "transformers")),
        own_share=ratio(rate, limit_rate(results, phase, "assay")),
    )


def median_of(repeats: Sequence[JsonObject], name: str) -> float | None:
    """Return the median of a figure over the repeats that have it."""
    values = [repeat[name] for repeat in repeats if repeat.get(name) is not None]
    return median(values) if values else None


def max_of(repeats: Sequence[JsonObject], name: str) -> float | None:
    """Return the maximum of a figure over the repeats that have it."""
    values = (repeat[name] for repeat in repeats if repeat.get(name) is not None)
    return max(values, default=None)


def limit_rate(results: JsonObject, phase: str, kind: str) -> float | None:
    """Return the items a second of a bare loop, the median of its passes."""
    limit = results["limits"].get(f"{phase}.{kind}")
    return median_of(limit["repeats"], "items_per_second") if limit else None


def ratio(value: float | None, base: float | None) -> float | None:
    """Return a ratio, None where a part of it is missing."""
    return value / base if value is not None and base else None


def cached_ratios(results: JsonObject) -> dict[str, float]:
    """Return Assay's rate over the bare endpoint's, for each scenario that both answered."""
    ratios = {}
    for scenario, systems in results["cells"].items():
        rates = {name: median_of(repeats, "items_per_second") for name, repeats in systems.items()}
        value = ratio(rates.get("assay"), rates.get("bare"))
        if value is not None:
            ratios[scenario] = value
    return ratios


def idle_overheads(results: JsonObject) -> dict[str, dict[str, float]]:
    """Return each system's p50 on an idle server, and the same less a bare forward pass."""
    bare = {}
    for kind in ("transformers", "assay"):
        limit = results["limits"].get(f"encoder.{kind}")
        forward = median_of(limit["single"], "p50_ms") if limit else None
        if forward is not None:
            bare[kind] = forward
    overheads = {}
    for system, repeats in results["cells"].get("idle", {}).items():
        p50 = median_of(repeats, "p50_ms")
        if p50 is not None:
            less_bare = {kind: p50 - forward for kind, forward in bare.items()}
            overheads[system] = {"p50": p50, **less_bare}
    return overheads


def stampede_cost(results: JsonObject) -> float | None:
    """Return the items computed for each distinct item of a stampede; 1 is the minimum."""
    repeats = results["cells"].get("stampede", {}).get("assay", [])
    return ratio(median_of(repeats, "computed"), STAMPEDE_DISTINCT)


def other_cpu(results: JsonObject) -> float | None:
    """Return the cores that other processes used, the median over all measurements."""
    repeats = [
        repeat
        for systems in results["cells"].values()
        for of_system in systems.values()
        for repeat in of_system
    ]
    return median_of(repeats, "other_cpu")


def _errors(repeats: Sequence[JsonObject]) -> dict[str, int]:
    errors: dict[str, int] = {}
    for repeat in repeats:
        for kind, number in repeat.get("errors", {}).items():
            errors[kind] = errors.get(kind, 0) + number
        if "failed" in repeat:
            errors[repeat["failed"]] = errors.get(repeat["failed"], 0) + 1
    return errors
