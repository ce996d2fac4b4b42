"""The figure of the routing simulation, as SVG that changes only with its numbers."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.routing_replicas import Sharing
from benchmarks.routing_simulation import SHARED, Estimate, Figures

PANELS = (
    ("wasted", "computed twice, % of requests", 100.0),
    ("tokens", "computed tokens per request", 1.0),
    ("p99", "p99 latency, s", 1.0),
    ("imbalance", "busiest replica / mean", 1.0),
)
COLOURS: Mapping[Sharing, str] = {"none": "#b0b7c3", "redis": "#4a7fb5", "flight": "#1f6f5c"}
WIDTH = 0.26


def draw(rows: Mapping[tuple[str, Sharing], Sequence[Estimate]], path: Path) -> None:
    """Draw a panel for each figure, with bars by routing and by what replicas share."""
    mpl.rcParams["svg.hashsalt"] = "assay"
    figure = Figure(figsize=(10.0, 3.4), layout="constrained")
    routings = list(dict.fromkeys(routing for routing, _ in rows))
    for panel, (name, title, scale) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        column = Figures._fields.index(name)
        for offset, (sharing, colour) in enumerate(COLOURS.items()):
            cells = [rows[routing, sharing][column] for routing in routings]
            panel.bar(
                [number + (offset - 1) * WIDTH for number in range(len(routings))],
                [scale * cell.mean for cell in cells],
                WIDTH,
                yerr=[scale * cell.half for cell in cells],
                color=colour,
                capsize=2,
                label=SHARED[sharing],
            )
        panel.set_xticks(range(len(routings)), [name.replace(" ", "\n") for name in routings])
        panel.set_title(title, fontsize=9)
        panel.tick_params(labelsize=8)
        panel.grid(axis="y", alpha=0.3)
        panel.set_axisbelow(True)
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        title="shared by replicas",
        loc="outside lower center",
        ncols=3,
        frameon=False,
    )
    figure.savefig(path, format="svg", metadata={"Date": None})
