"""Plot two runs, with the drift penalty and without it: score, similarity and novelty."""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

PANELS = (
    ("assay/score", "score of the rewrite"),
    ("assay/similarity", "similarity to the original"),
    ("assay/novelty", "share of new content words"),
)
RUNS = (("without drift penalty", "free", "C3"), ("with drift penalty", "held", "C0"))


def main() -> None:
    """Write the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("free", type=Path, help="the folder of the run without drift penalty")
    parser.add_argument("held", type=Path, help="the folder of the run with drift penalty")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    logs = {
        name: json.loads((folder / "log.json").read_text())
        for name, folder in (("free", given.free), ("held", given.held))
    }
    draw(logs, given.out)


def draw(logs: dict[str, list[dict[str, Any]]], out: Path) -> None:
    """Plot three panels over the steps, with a line for each run."""
    # Fixed ids in the SVG, so that the same figures make the same file.
    mpl.rcParams["svg.hashsalt"] = "assay"
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axes, (key, title) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for label, name, colour in RUNS:
            rows = [row for row in logs[name] if key in row]
            steps, values = [row["step"] for row in rows], [float(row[key]) for row in rows]
            axes.plot(steps, values, label=label, color=colour)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("step")
        axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.3)
    figure.axes[0].legend(frameon=False, fontsize=8)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, format="svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
