"""What a system is spared because it would take too long."""

import pytest

from benchmarks.cells import Scale, cells_of
from benchmarks.results import Results
from benchmarks.systems import BARE, DETERMINISTIC, SERVERS

CELLS = {cell.name: cell for cell in cells_of(("fresh", "bulk", "cached", "group"), Scale())}


def results(*rates: float) -> Results:
    found = Results()
    for rate in rates:
        found.add(CELLS["fresh-16"], "mosec", {"items_per_second": rate, "errors": {}})
    return found


@pytest.mark.parametrize(
    ("cell", "seconds"), [("fresh-256", 25.6), ("bulk-1024", 102.4), ("group-bulk", 0.0)]
)
def test_a_cell_takes_as_long_as_its_items_at_the_best_rate_with_the_model(
    cell: str, seconds: float
) -> None:
    seen = [one for one in CELLS.values() if one.phase == CELLS[cell].phase]
    assert results(4.0, 10.0).seconds(CELLS[cell], "mosec", seen) == pytest.approx(seconds)


def test_what_has_shown_no_rate_is_spared_nothing() -> None:
    assert results().seconds(CELLS["fresh-1024"], "mosec", list(CELLS.values())) == 0.0
    assert results(0.0).seconds(CELLS["fresh-1024"], "mosec", list(CELLS.values())) == 0.0
    assert results(4.0).seconds(CELLS["fresh-1024"], "vllm", list(CELLS.values())) == 0.0


def test_some_systems_are_put_to_some_workloads_only() -> None:
    assert DETERMINISTIC.takes(CELLS["fresh-256"])
    assert not DETERMINISTIC.takes(CELLS["group-bulk"])
    assert not BARE.takes(CELLS["fresh-256"])
    assert all(SERVERS["assay"].takes(cell) for cell in CELLS.values())


def test_only_assay_is_read_as_assay() -> None:
    assert {name for name, one in SERVERS.items() if one.is_assay} == {"assay", "deterministic"}
