"""The benchmark's page, its table of all figures and its picture."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.plots import Interval, save_intervals
from recipes.video_qpp.correlations import RESAMPLES, Coefficient
from recipes.video_qpp.expected import PUBLISHED, TOLERANCE
from recipes.video_qpp.handmade import NEEDED
from recipes.video_qpp.pqpp import PUBLISHED as PQPP_TARGETS

COMMAND = "python -m recipes.video_qpp.benchmark --data ../shared/data"
LEVEL = 0.05

TITLES: Mapping[str, str] = {
    "gram.r10": "GRAM R@10",
    "gram.rr": "GRAM RR",
    "vast.r10": "VAST R@10",
    "vast.rr": "VAST RR",
    **{column: name for column, (name, *_) in PQPP_TARGETS.items()},
}
COLLECTIONS: Mapping[str, str] = {
    "msrvtt": "VQPP, MSR-VTT",
    "vatex": "VQPP, VATEX",
    "coco": "PQPP (MS COCO photographs)",
}
PICTURED = (("msrvtt", "gram.r10"), ("vatex", "gram.r10"))


@dataclass(frozen=True, slots=True)
class Row:
    """One predictor on one target of one test; the coefficients are None where it is constant."""

    collection: str
    part: str
    predictor: str
    target: str
    n: int
    r: Coefficient | None
    tau: Coefficient | None


def write_page(rows: Sequence[Row], path: Path) -> None:
    """Write the page, all figures beside it (`.csv`), and the picture (`images/`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_figures(rows, path.with_suffix(".csv"))
    rows = read_figures(path.with_suffix(".csv"))  # so that the page rounds what the table says
    path.write_text("\n".join(page(rows)) + "\n", encoding="utf-8")
    picture = path.parent / "images" / f"{path.stem}.svg"
    picture.parent.mkdir(exist_ok=True)
    save_intervals(
        picture,
        {
            f"{COLLECTIONS[collection]}, {TITLES[target]}": [
                Interval(row.predictor, row.r.value, row.r.low, row.r.high)
                for row in rows
                if (row.collection, row.target, row.part) == (collection, target, "all") and row.r
            ]
            for collection, target in PICTURED
        },
        "Pearson r with the official test, 95 % interval",
    )


def write_figures(rows: Sequence[Row], path: Path) -> None:
    """All figures to six digits, a row for each predictor, target and part."""
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        names = [f"{one}{end}" for one in ("r", "tau") for end in ("", "_p", "_low", "_high")]
        writer.writerow(["collection", "part", "predictor", "target", "n", *names])
        for row in rows:
            figures = [*_figures(row.r), *_figures(row.tau)]
            head = (row.collection, row.part, row.predictor, row.target, row.n)
            writer.writerow([*head, *figures])


def read_figures(path: Path) -> list[Row]:
    """What `write_figures` wrote."""

    def coefficient(row: Mapping[str, str], name: str) -> Coefficient | None:
        if not row[name]:
            return None
        value, p, low, high = (float(row[f"{name}{end}"]) for end in ("", "_p", "_low", "_high"))
        return Coefficient(value, p, low, high)

    with path.open(encoding="utf-8", newline="") as lines:
        return [
            Row(
                *(row["collection"], row["part"], row["predictor"], row["target"]),
                int(row["n"]),
                coefficient(row, "r"),
                coefficient(row, "tau"),
            )
            for row in csv.DictReader(lines)
        ]


def page(rows: Sequence[Row]) -> Iterator[str]:
    """The page, line by line."""
    yield f"<!-- Written by `{COMMAND}`; do not edit. -->"
    yield "# Query performance: every predictor on one page\n"
    yield f"    {COMMAND}\n"
    yield (
        "Pearson's r / Kendall's tau-b of each predictor with what the retrieval system achieved,"
        f" on the official tests, with 95 % bootstrap intervals ({RESAMPLES:,} resamples). °"
        f" marks a coefficient whose two-sided p-value is {LEVEL} or more. What is learnt was"
        " learnt from train and validation without the texts that the test shares with them; its"
        " settings were chosen by folds of whole clusters of alike queries, and each test was read"
        " once for each predictor. Each coefficient with its p-value is in"
        " [the table of all figures](query-performance-benchmark.csv). One relevant video for each"
        " query of VQPP: R@10 is 0 or 1, RR the reciprocal rank.\n"
    )
    yield (
        "The first rows are hand-made: the number itself is the prediction, nothing is learnt."
        " Their MSR-VTT and VATEX figures, and words and synsets of PQPP, are held within"
        f" {TOLERANCE} of figures that other code gave on the same files (`--check`). Hardly any"
        " query has an acronym or a numeral, so their intervals mean little.\n"
    )
    predictors = {row.predictor for row in rows}
    for name in (name for name in NEEDED if name not in predictors):
        yield (
            f"Left out: {name}, which needs {NEEDED[name]}. Where that is installed the row is"
            " computed, and held too.\n"
        )
    yield "![Pearson r of every predictor](images/query-performance-benchmark.svg)\n"
    for collection, title in COLLECTIONS.items():
        here = [row for row in rows if row.collection == collection]
        for part in dict.fromkeys(row.part for row in here):
            yield from _table(title, part, [row for row in here if row.part == part])


def _table(title: str, part: str, rows: Sequence[Row]) -> Iterator[str]:
    targets = list(dict.fromkeys(row.target for row in rows))
    what = "" if part == "all" else f", {part}"
    yield f"## {title}{what}\n"
    yield f"{rows[0].n} queries.\n"
    yield "| predictor | " + " | ".join(TITLES[target] for target in targets) + " |"
    yield "| --- |" + " --- |" * len(targets)
    for predictor in dict.fromkeys(row.predictor for row in rows):
        found = {row.target: row for row in rows if row.predictor == predictor}
        cells = [_cell(found.get(target)) for target in targets]
        yield f"| {predictor} | " + " | ".join(cells) + " |"
    if rows[0].collection == "coco":
        for predictor, pairs in PUBLISHED.items():
            printed = [f"{_short(r)} / {_short(tau)}" for r, tau in pairs]
            printed += ["-"] * (len(targets) - len(printed))
            yield f"| {predictor} | " + " | ".join(printed) + " |"
    yield ""


def _cell(row: Row | None) -> str:
    if row is None:
        return "-"
    if row.r is None or row.tau is None:
        return "constant"
    return f"{_figure(row.r)} / {_figure(row.tau)}"


def _figure(one: Coefficient) -> str:
    mark = "" if one.p < LEVEL else "°"
    return f"{_short(one.value)}{mark} [{_short(one.low)}, {_short(one.high)}]"


def _short(value: float) -> str:
    """Three decimals without the leading zero."""
    return f"{value:.3f}".replace("0.", ".", 1)


def _figures(one: Coefficient | None) -> list[str]:
    if one is None:
        return [""] * 4
    return [f"{value:.6g}" for value in (one.value, one.p, one.low, one.high)]
