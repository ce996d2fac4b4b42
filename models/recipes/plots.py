"""Plots of the recipes, as SVG that does not change unless the figures do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Line:
    """One named curve."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def save_lines(
    path: Path, lines: Sequence[Line], x_title: str, y_title: str, base: Literal[2, 10] = 2
) -> None:
    """Draw curves over an axis in powers of two, every point marked, or in powers of ten."""
    mpl.rcParams["svg.hashsalt"] = "assay"
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for line in lines:
        axes.plot(line.x, line.y, marker="o" if base == 2 else "", label=line.name)
    axes.set_xscale("log", base=base)
    if base == 2:
        ticks = sorted({x for line in lines for x in line.x})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel(x_title)
    axes.set_ylabel(y_title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})


def save_shares(
    path: Path, rows: Mapping[str, Sequence[float]], parts: Sequence[str], x_title: str
) -> None:
    """Draw each row as one bar of parts that add up to 1, the first row on top."""
    mpl.rcParams["svg.hashsalt"] = "assay"
    figure = Figure(figsize=(8.0, 0.4 * len(rows) + 1.4), layout="constrained")
    axes = figure.subplots()
    left = [0.0] * len(rows)
    for place, part in enumerate(parts):
        widths = [shares[place] for shares in rows.values()]
        axes.barh(list(rows), widths, left=left, label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(x_title)
    figure.legend(loc="outside upper center", ncols=len(parts), frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})


@dataclass(frozen=True, slots=True)
class Interval:
    """A named value with its interval."""

    name: str
    value: float
    low: float
    high: float


def save_intervals(path: Path, groups: Mapping[str, Sequence[Interval]], x_title: str) -> None:
    """Draw named values with their intervals, a panel for each group, the first one at the top."""
    mpl.rcParams["svg.hashsalt"] = "assay"
    names = list(dict.fromkeys(one.name for group in groups.values() for one in group))
    figure = Figure(figsize=(9.6, 1.2 + 0.26 * len(names)), layout="constrained")
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for panel, (title, group) in zip(panels, groups.items(), strict=True):
        places = [names.index(one.name) for one in group]
        values = [one.value for one in group]
        # A percentile interval of a very skewed feature need not hold its value.
        below = [max(0.0, one.value - one.low) for one in group]
        above = [max(0.0, one.high - one.value) for one in group]
        panel.errorbar(values, places, xerr=[below, above], fmt="o", markersize=4, capsize=2)
        panel.axvline(0, color="grey", linewidth=0.8)
        panel.set_title(title, fontsize=10)
        panel.set_yticks(range(len(names)), names, fontsize=8)
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    figure.supxlabel(x_title, fontsize=9)
    figure.savefig(path, format="svg", metadata={"Date": None})
