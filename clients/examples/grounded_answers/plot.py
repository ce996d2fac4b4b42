"""Draw two runs, with phi and without it, and print what they began and ended with."""

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
BEGINNING, END = 5, 10
RUNS = (("alpha 1", "with", "C2"), ("alpha 0", "without", "C7"))


def main() -> None:
    """Write the picture."""
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
            first, last = (_told(part, key) for part in (rows[:BEGINNING], rows[-END:]))
            sys.stdout.write(f"{name:8} {key:16} {first}  {last}\n")


def _told(rows: Rows, key: str) -> str:
    """The mean over steps, with 1.96 of its standard errors."""
    values = [float(row[key]) for row in rows if key in row]
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{mean(values):.3f} +- {1.96 * error:.3f}" if values else "-"


def draw(logs: Mapping[str, Rows], out: Path) -> None:
    """The parts of the reward with phi, then two panels with a line for each run."""
    # Fixed names inside, so that the same figures make the same file.
    mpl.rcParams["svg.hashsalt"] = "assay"
    figure = Figure(figsize=(11, 3), layout="constrained")
    first, *others = figure.subplots(1, 1 + len(PANELS))
    for label, key, colour in PARTS:
        _line(first, logs["with"], key, label, colour)
    first.set_title("reward and its parts, alpha 1", fontsize=9)
    for axes, (key, title) in zip(others, PANELS, strict=True):
        for label, name, colour in RUNS:
            _line(axes, logs[name], key, label, colour)
        axes.set_title(title, fontsize=9)
    for axes in (first, *others):
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=7)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, format="svg", metadata={"Date": None})


def _line(axes: Axes, rows: Rows, key: str, label: str, colour: str) -> None:
    """A step in which nothing was told under the key is left out."""
    told = [row for row in rows if key in row]
    steps, values = [row["step"] for row in told], [float(row[key]) for row in told]
    axes.plot(steps, values, label=label, color=colour)


if __name__ == "__main__":
    main()
