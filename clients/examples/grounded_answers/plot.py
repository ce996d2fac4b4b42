"""Plot two runs, with phi and without it, and print their first and last values."""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Rows = Sequence[Mapping[str, Any]]

PARTS = (
    ("reward", "reward", "black"),
    ("base", "assay/base", "C0"),
    ("alpha \u00b7 phi \u00b7 base", "assay/from_phi", "C2"),
    ("penalty", "assay/penalty", "C3"),
)
PANELS = (
    ("assay/phi", "phi of the checker"),
    ("true/sentences", "sentences that are true"),
    ("true/second", "second question answered rightly"),
)
TABLE = (
    "reward", "assay/base", "assay/from_phi", "assay/penalty", "assay/phi", "assay/f1",
    "assay/no_answer", "true/first", "true/second", "true/sentences",
)  # fmt: skip
FIRST_STEPS, LAST_STEPS = 5, 10
RUNS = (("alpha 1", "with", "C2"), ("alpha 0", "without", "C7"))


def main() -> None:
    """Write the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("with_phi", type=Path, help="the folder of the run with alpha 1")
    parser.add_argument("without", type=Path, help="the folder of the run with alpha 0")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    logs = {
        name: json.loads((folder / "log.json").read_text())
        for name, folder in (("with", given.with_phi), ("without", given.without))
    }
    draw(logs, given.out)
    for name, rows in logs.items():
        for key in TABLE:
            first, last = (
                _mean_and_error(part, key) for part in (rows[:FIRST_STEPS], rows[-LAST_STEPS:])
            )
            sys.stdout.write(f"{name:8} {key:16} {first}  {last}\n")


def _mean_and_error(rows: Rows, key: str) -> str:
    """Return the mean over steps, with 1.96 of its standard errors."""
    values = [float(row[key]) for row in rows if key in row]
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{mean(values):.3f} +- {1.96 * error:.3f}" if values else "-"


def draw(logs: Mapping[str, Rows], out: Path) -> None:
    """Plot the parts of the reward with phi, then panels with a line for each run."""
    # Fixed ids in the SVG, so that the same figures make the same file.
    mpl.rcParams["svg.hashsalt"] = "assay"
    figure = Figure(figsize=(11, 3), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(PANELS))
    for label, key, colour in PARTS:
        _plot_line(first, logs["with"], key=key, label=label, colour=colour)
    first.set_title("reward and its parts, alpha 1", fontsize=9)
    for axes, (key, title) in zip(others, PANELS, strict=True):
        for label, name, colour in RUNS:
            _plot_line(axes, logs[name], key=key, label=label, colour=colour)
        axes.set_title(title, fontsize=9)
    for axes in (first, *others):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=7)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, format="svg", metadata={"Date": None})


def _plot_line(axes: Axes, rows: Rows, *, key: str, label: str, colour: str) -> None:
    """Plot a value over the steps, without the steps that did not log it."""
    logged = [row for row in rows if key in row]
    steps, values = [row["step"] for row in logged], [float(row[key]) for row in logged]
    axes.plot(steps, values, label=label, color=colour)


if __name__ == "__main__":
    main()
