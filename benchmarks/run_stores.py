"""The cost of a commit of runs: the same changes to an SQLite file and to PostgreSQL, in turns.

python -m benchmarks.run_stores --url postgresql://assay@localhost/assay --pairs 200
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from assay_monitors.changes import Changes
from assay_monitors.observations import Observation, Window
from assay_monitors.postgres import PostgresDatabase
from assay_monitors.retention import Retention
from assay_monitors.store import RunStore
from assay_monitors.summaries import summarise
from benchmarks.monitoring import mean_ratio

SEED = 20_261_130
RUN = "benchmark"
WARMUP = 10


def changes_of(number: int, items: int, windows: int) -> Changes:
    """Return the changes of a quarter of a second: `items` scores in each of `windows` steps."""
    generator = random.Random(SEED + number)  # noqa: S311 nothing is secret here
    scores = [Observation(generator.gauss(0.0, 1.0), group=f"g{n // 8}") for n in range(items)]
    steps = range(number // 4, number // 4 + windows)
    return Changes(
        {Window(RUN, "model@1", "train", step): summarise(scores) for step in steps},
        last_steps={RUN: steps[-1]},
    )


def measure(
    stores: Sequence[RunStore], pairs: int, items: int, windows: int
) -> list[tuple[float, float]]:
    """Return the seconds of each commit to the first and the second store, in random order."""
    generator = random.Random(SEED)  # noqa: S311 nothing is secret here
    measured = []
    for number in range(WARMUP + pairs):
        changes, seconds = changes_of(number, items, windows), [0.0, 0.0]
        for index in generator.sample((0, 1), 2):
            began = time.perf_counter()
            stores[index].write(changes)
            seconds[index] = time.perf_counter() - began
        measured.append((seconds[0], seconds[1]))
    return measured[WARMUP:]


def report(pairs: Sequence[tuple[float, float]]) -> Iterator[str]:
    """Yield the lines of the report."""
    ratio = mean_ratio([(postgres, sqlite) for sqlite, postgres in pairs])
    sqlite, postgres = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
    yield f"{len(pairs)} commits to each, in turns"
    yield f"median of a commit: SQLite {sqlite:.2f} ms, PostgreSQL {postgres:.2f} ms"
    interval = f"[{ratio.low:.2f}, {ratio.high:.2f}]"
    yield f"PostgreSQL as a multiple of SQLite: {ratio.value:.2f} {interval}"


def main() -> None:
    """Measure, and print the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--url", required=True, help="a PostgreSQL database; its run `benchmark` is replaced")
    add("--pairs", type=int, default=200, help="commits to each (200)")
    add("--items", type=int, default=64, help="scores of a step in one commit (64)")
    add("--windows", type=int, default=2, help="steps in one commit (2)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="assay-run-stores-") as folder:
        places = (Path(folder) / "runs.db", PostgresDatabase(given.url))
        stores = [RunStore(place, Retention(), time.time) for place in places]
        stores[1].delete(RUN)
        print("\n".join(report(measure(stores, given.pairs, given.items, given.windows))))
        for store in stores:
            store.close()


if __name__ == "__main__":
    main()
