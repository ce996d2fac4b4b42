"""The duration of one program with its tests under `code-exec`, here and in another checkout.

The programs are HumanEval's own, each with its `check(candidate)` called, one at a time. Processes
of both checkouts run alternately, so that they see the same load of the machine; the self-test of
the sandbox is not counted.

Example:
    python -m benchmarks.programs --data ../shared/data --against ../other-checkout
"""

import argparse
import asyncio
import gzip
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from assay_models.base import Options
from assay_models.card import read_card
from assay_models.families.code_exec.model import CodeExecModel
from assay_models.items import CodeExecItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, embedded_root

EXAMPLE = "example: python -m benchmarks.programs --data ../shared/data --against ../other-checkout"
HERE = Path(__file__).resolve().parents[1]


def main() -> None:
    """Measure each checkout in turn, and print the milliseconds of a program in each round."""
    arguments = _arguments()
    if arguments.worker:
        print(asyncio.run(seconds_per_program(_items(arguments.data, arguments.programs))))
        return
    checkouts = [HERE, *([arguments.against.resolve()] if arguments.against else [])]
    rounds: dict[Path, list[float]] = {checkout: [] for checkout in checkouts}
    for _ in range(arguments.rounds):
        for checkout, results in rounds.items():
            results.append(1000 * _measure(checkout))
    for checkout, results in rounds.items():
        print(
            f"{checkout.name}: {statistics.median(results):.1f} ms a program "
            f"({min(results):.1f} to {max(results):.1f} in {len(results)} rounds)"
        )


def _measure(checkout: Path) -> float:
    """Return the seconds of a program in a process that uses that checkout's models."""
    process = subprocess.run(  # noqa: S603 this module itself
        [sys.executable, __file__, *sys.argv[1:], "--worker"],
        env={**os.environ, "PYTHONPATH": str(checkout / "models")},
        check=True,
        capture_output=True,
        text=True,
    )
    return float(process.stdout)


async def seconds_per_program(items: list[CodeExecItem]) -> float:
    """Return the mean seconds of an item, scored alone; every one has to pass.

    Raises:
        SystemExit: a canonical program does not pass.
    """
    folder = embedded_root() / "code-exec" / "1"
    card, files = read_card(folder), ModelFiles(folder, None)
    model = await asyncio.to_thread(CodeExecModel.load, card, files, Runtime())
    began, passed = time.perf_counter(), 0.0
    for item in items:
        prepared = model.prepare([item], Options())
        (score,) = model.finish(prepared, list(await model.predict(prepared.inputs)), Options())
        passed += score.score or 0.0
    if passed != len(items):
        raise SystemExit(f"{passed:g} of {len(items)} canonical programs pass")
    return (time.perf_counter() - began) / len(items)


def _items(data: Path, programs: int) -> list[CodeExecItem]:
    with gzip.open(data / "code" / "problems.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if "entry_point" in row]
    return [
        CodeExecItem(response=f"```python\n{row['reference']}\n```", tests=row["tests"])
        for row in rows[:programs]
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--data", type=Path, required=True, help="the folder of evaluation data")
    parser.add_argument("--against", type=Path, help="another checkout to measure alternately")
    parser.add_argument("--programs", type=int, default=40, help="programs of a round (40)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each checkout (3)")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
