"""The command `python -m benchmarks`."""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import orjson

from benchmarks.environments import ENVIRONMENTS, install
from benchmarks.publish import publish, write_report
from benchmarks.results import RunConfig
from benchmarks.run import Runner
from benchmarks.scenarios import QUICK, WORKLOADS, Scale, Workload
from benchmarks.systems import ROOT, SERVERS

SYSTEMS = ("limit", *SERVERS)
QUICK_SYSTEMS = ("limit", "assay", "naive")
EXAMPLE = """example:
  python -m benchmarks --quick
  python -m benchmarks --systems limit,assay,naive --workloads fresh,bulk --concurrency 256
  python -m benchmarks --install all && python -m benchmarks --publish
"""


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    known = "\n".join(f"  {name:<12}{description}" for name, description in WORKLOADS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure Assay, its peers and the machine's own limits with the same weights.\n"
        f"\nsystems: {', '.join(SYSTEMS)}\nworkloads:\n{known}",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--systems", type=_Names(SYSTEMS), help="by comma; all that are installed by default")
    add("--workloads", type=_Names(tuple(WORKLOADS)), help="by comma; all by default")
    add("--concurrency", type=_numbers, help="requests at once, by comma: 1,16,256,1024")
    add("--seconds", type=float, help="duration of each scenario (3)")
    add("--repeats", type=int, help="of each scenario, the median is reported (3)")
    add("--long-repeats", type=int, help="of the scenarios that take long (1)")
    add("--quick", action="store_true", help="under three minutes: limit, assay and naive")
    add("--dtype", default="float32", choices=("float32", "bfloat16"), help="of Assay and limits")
    add("--batch-tokens", type=int, help="max_batch_tokens on Assay's cards; its default otherwise")
    add("--cache", type=Path, default=ROOT / "work" / "benchmarks", help="models, environments")
    add("--out", type=Path, help="folder for the results; under the cache by default")
    add("--publish", action="store_true", help="write the results into docs/ too")
    add("--install", type=_Names((*ENVIRONMENTS, "all")), help="make peers' environments, by comma")
    add("--report", type=Path, help="only write the report of a results.json anew")
    add("--lock", type=Path, help="a file to hold locked while measuring")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    """Install environments, write a report, or run the benchmarks."""
    given = parse(arguments)
    # Servers run in sessions of their own: SIGTERM to this process must not leave them running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if given.install:
        for name in ENVIRONMENTS if "all" in given.install else given.install:
            install(name, given.cache / "venvs", log)
        return
    if given.report:
        results = orjson.loads(given.report.read_bytes())
        folder = given.report.parent
    else:
        folder = given.out or given.cache / "results" / time.strftime("%Y%m%d-%H%M%S")
        results = Runner(_config(given), log).run(lambda so_far: write_report(so_far, folder))
    write_report(results, folder)
    log(f"written: {folder}/results.json, results.md, results.svg")
    if given.publish:
        publish(results, ROOT / "docs" / "reference")
        log("written: docs/reference/benchmarks.md, docs/reference/benchmarks/")


def _config(given: argparse.Namespace) -> RunConfig:
    scale = QUICK if given.quick else Scale()
    options = {
        "seconds": given.seconds,
        "repeats": given.repeats,
        "long_repeats": given.long_repeats,
        "concurrency": given.concurrency,
        "keep_alive": given.concurrency,
    }
    scale = replace(scale, **{name: value for name, value in options.items() if value is not None})
    systems = given.systems or (QUICK_SYSTEMS if given.quick else SYSTEMS)
    workloads: tuple[Workload, ...] = given.workloads or tuple(WORKLOADS)
    return RunConfig(
        tuple(systems),
        workloads,
        scale=scale,
        cache=given.cache.resolve(),
        dtype=given.dtype,
        batch_tokens=given.batch_tokens,
        lock=given.lock,
    )


class _Names:
    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def __call__(self, text: str) -> tuple[str, ...]:
        names = tuple(part.strip() for part in text.split(",") if part.strip())
        unknown = [name for name in names if name not in self._known]
        if unknown:
            message = f"unknown {', '.join(unknown)}; there are: {', '.join(self._known)}"
            raise argparse.ArgumentTypeError(message)
        return names


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def log(line: str) -> None:
    """Print a line of progress."""
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
