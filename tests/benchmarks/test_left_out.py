"""The scenarios that a system skips: those that take too long, and those it does not run."""

import pytest

from benchmarks.results import Results
from benchmarks.scenarios import Scale, scenarios_of
from benchmarks.systems import BARE, DETERMINISTIC, SERVERS

SCENARIOS = {
    scenario.name: scenario
    for scenario in scenarios_of(("fresh", "bulk", "cached", "group"), Scale())
}


def results(*rates: float) -> Results:
    made = Results()
    for rate in rates:
        made.add(SCENARIOS["fresh-16"], "mosec", {"items_per_second": rate, "errors": {}})
    return made


@pytest.mark.parametrize(
    ("name", "seconds"), [("fresh-256", 25.6), ("bulk-1024", 102.4), ("group-bulk", 0.0)]
)
def test_expected_seconds_are_the_items_at_the_best_rate_with_the_model(
    name: str, seconds: float
) -> None:
    scenario = SCENARIOS[name]
    same_model = [other for other in SCENARIOS.values() if other.phase == scenario.phase]
    found = results(4.0, 10.0).expected_seconds(scenario, "mosec", same_model)
    assert found == pytest.approx(seconds)


def test_a_system_without_a_rate_skips_nothing() -> None:
    scenario, same_model = SCENARIOS["fresh-1024"], list(SCENARIOS.values())
    assert results().expected_seconds(scenario, "mosec", same_model) == 0.0
    assert results(0.0).expected_seconds(scenario, "mosec", same_model) == 0.0
    assert results(4.0).expected_seconds(scenario, "vllm", same_model) == 0.0


def test_some_systems_run_some_workloads_only() -> None:
    assert DETERMINISTIC.runs(SCENARIOS["fresh-256"])
    assert not DETERMINISTIC.runs(SCENARIOS["group-bulk"])
    assert not BARE.runs(SCENARIOS["fresh-256"])
    assert all(SERVERS["assay"].runs(scenario) for scenario in SCENARIOS.values())


def test_is_assay_is_true_of_assay_and_its_deterministic_mode_only() -> None:
    assert {name for name, system in SERVERS.items() if system.is_assay} == {
        "assay",
        "deterministic",
    }
