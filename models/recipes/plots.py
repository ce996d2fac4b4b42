"""Plots of the recipes, as SVG that does not change unless the figures do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib as mpl
from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Line:
    """A named curve."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def save_lines(
    path: Path,
    lines: Sequence[Line],
    *,
    x_title: str,
    y_title: str,
    base: Literal[2, 10] = 2,
) -> None:
    """Draw curves over an axis in powers of two, every point marked, or in powers of ten."""
    figure = _new_figure(6.4, 4.0)
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
    _save(figure, path)


def save_stacked_shares(
    path: Path, rows: Mapping[str, Sequence[float]], parts: Sequence[str], x_title: str
) -> None:
    """Draw each row as a stacked bar of parts that add up to 1, the first row on top."""
    figure = _new_figure(8.0, 0.4 * len(rows) + 1.4)
    axes = figure.subplots()
    left = [0.0] * len(rows)
    for column, part in enumerate(parts):
        widths = [shares[column] for shares in rows.values()]
        axes.barh(list(rows), widths, left=left, label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xlabel(x_title)
    figure.legend(loc="outside upper center", ncols=len(parts), frameon=False)
    _save(figure, path)


@dataclass(frozen=True, slots=True)
class Interval:
    """A named value with its interval."""

    name: str
    value: float
    low: float
    high: float


def save_intervals(path: Path, groups: Mapping[str, Sequence[Interval]], x_title: str) -> None:
    """Draw named values with their intervals, a panel for each group, the first row at the top."""
    names = list(dict.fromkeys(row.name for group in groups.values() for row in group))
    figure = _new_figure(9.6, 1.2 + 0.26 * len(names))
    panels = figure.subplots(1, len(groups), sharey=True, squeeze=False)[0]
    for panel, (title, group) in zip(panels, groups.items(), strict=True):
        heights = [names.index(row.name) for row in group]
        values = [row.value for row in group]
        # A percentile interval of a very skewed feature may not contain its value.
        below = [max(0.0, row.value - row.low) for row in group]
        above = [max(0.0, row.high - row.value) for row in group]
        panel.errorbar(values, heights, xerr=[below, above], fmt="o", markersize=4, capsize=2)
        panel.axvline(0, color="grey", linewidth=0.8)
        panel.set_title(title, fontsize=10)
        panel.set_yticks(range(len(names)), names, fontsize=8)
        panel.grid(axis="x", alpha=0.3)
    panels[0].invert_yaxis()
    figure.supxlabel(x_title, fontsize=9)
    _save(figure, path)


def _new_figure(width: float, height: float) -> Figure:
    mpl.rcParams["svg.hashsalt"] = "assay"
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, format="svg", metadata={"Date": None})
