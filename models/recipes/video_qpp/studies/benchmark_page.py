"""The benchmark's page, its table of all figures and its picture."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from recipes.plots import Interval, save_intervals
from recipes.video_qpp.studies.correlations import RESAMPLES, Coefficient
from recipes.video_qpp.studies.expected_figures import PUBLISHED, TOLERANCE
from recipes.video_qpp.studies.handmade import REQUIREMENTS
from recipes.video_qpp.studies.pqpp import PQPP_TARGETS

COMMAND = "python -m recipes.video_qpp.studies.benchmark --data ../shared/data"
SIGNIFICANCE = 0.05
SERVED = "video-qpp@2"

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
PLOTTED = (("msrvtt", "gram.r10"), ("vatex", "gram.r10"))
DETAILS = frozenset(("clip_rr", "blip2_rr", "clip_pk", "blip2_pk"))
"""Targets of single systems whose mean has a column; they are in the table of all figures alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """A predictor on a target of a test; the coefficients are None where it is constant."""

    collection: str
    part: str
    predictor: str
    target: str
    n: int
    r: Coefficient | None
    tau: Coefficient | None


def write_page(rows: Sequence[ResultRow], path: Path) -> None:
    """Write the page, all figures beside it (`.csv`), and the picture (`images/`)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_figures(rows, path.with_suffix(".csv"))
    rows = read_figures(path.with_suffix(".csv"))  # so that the page rounds the table's figures
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
            for collection, target in PLOTTED
        },
        "Pearson r with the official test, 95 % interval",
    )


def write_figures(rows: Sequence[ResultRow], path: Path) -> None:
    """Write all figures to six digits, a row for each predictor, target and part."""
    with path.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        names = [f"{name}{end}" for name in ("r", "tau") for end in ("", "_p", "_low", "_high")]
        writer.writerow(["collection", "part", "predictor", "target", "n", *names])
        for row in rows:
            figures = [*_csv_cells(row.r), *_csv_cells(row.tau)]
            head = (row.collection, row.part, row.predictor, row.target, row.n)
            writer.writerow([*head, *figures])


def read_figures(path: Path) -> list[ResultRow]:
    """Read the file of `write_figures`."""

    def coefficient(row: Mapping[str, str], name: str) -> Coefficient | None:
        if not row[name]:
            return None
        value, p, low, high = (float(row[f"{name}{end}"]) for end in ("", "_p", "_low", "_high"))
        return Coefficient(value, p, low, high)

    with path.open(encoding="utf-8", newline="") as lines:
        return [
            ResultRow(
                collection=row["collection"],
                part=row["part"],
                predictor=row["predictor"],
                target=row["target"],
                n=int(row["n"]),
                r=coefficient(row, "r"),
                tau=coefficient(row, "tau"),
            )
            for row in csv.DictReader(lines)
        ]


def page(rows: Sequence[ResultRow]) -> Iterator[str]:
    """Yield the page, line by line."""
    yield f"<!-- Written by `{COMMAND}`; do not edit. -->"
    yield "# Query performance: every predictor on one page\n"
    yield f"    {COMMAND}\n"
    yield from _introduction()
    predictors = {row.predictor for row in rows}
    for name in (name for name in REQUIREMENTS if name not in predictors):
        yield (
            f"Left out: {name}, which needs {REQUIREMENTS[name]}. Where that is installed the row"
            " is computed, and checked too.\n"
        )
    yield "![Pearson r of every predictor](images/query-performance-benchmark.svg)\n"
    for collection, title in COLLECTIONS.items():
        of_collection = [row for row in rows if row.collection == collection]
        if of_collection:
            yield from _table(title, [row for row in of_collection if row.target not in DETAILS])


def _introduction() -> Iterator[str]:
    yield (
        "Pearson's r of each predictor with the measured retrieval quality, on the official"
        f" tests, with 95 % bootstrap intervals ({RESAMPLES:,} resamples). ° marks a two-sided"
        f" p-value of {SIGNIFICANCE} or more. Kendall's tau-b, all p-values, the single systems of"
        " PQPP, and MSR-VTT without the texts that it shares with train are in [the table of all"
        " figures](query-performance-benchmark.csv). Learnt predictors were fitted on train and"
        " validation without such texts; their settings were chosen by folds of whole clusters of"
        " similar queries, and each test was read once for each predictor. Each query of VQPP has"
        " one relevant video: R@10 is 0 or 1, RR the reciprocal rank.\n"
    )
    yield (
        "The first rows are hand-made: the feature itself is the prediction, nothing is learnt."
        " `--check` compares their MSR-VTT and VATEX figures, and words and synsets of PQPP, with"
        f" figures of other code on the same files (tolerance {TOLERANCE}). Hardly any query has"
        " an acronym or a numeral, so their intervals mean little.\n"
    )


def _table(title: str, rows: Sequence[ResultRow]) -> Iterator[str]:
    """Yield the table of a collection: all predictors, and the served one on each other part."""
    targets = list(dict.fromkeys(row.target for row in rows))
    yield f"## {title}\n"
    yield f"{rows[0].n} queries.\n"
    yield "| predictor | " + " | ".join(TITLES[target] for target in targets) + " |"
    yield "| --- |" + " --- |" * len(targets)
    by_name: dict[str, dict[str, ResultRow]] = {}
    for row in rows:
        if row.part == "all" or row.predictor == SERVED:
            suffix = "" if row.part == "all" else f", {row.n} queries {row.part}"
            by_name.setdefault(f"{row.predictor}{suffix}", {})[row.target] = row
    for name, by_target in by_name.items():
        cells = [_page_cell(by_target.get(target)) for target in targets]
        yield f"| {name} | " + " | ".join(cells) + " |"
    if rows[0].collection == "coco":
        for name, pairs in PUBLISHED.items():
            published = {key: _short(r) for key, (r, _) in zip(PQPP_TARGETS, pairs, strict=False)}
            cells = [published.get(target, "-") for target in targets]
            yield f"| {name} | " + " | ".join(cells) + " |"
    yield ""


def _page_cell(row: ResultRow | None) -> str:
    if row is None:
        return "-"
    return "constant" if row.r is None else _with_interval(row.r)


def _with_interval(coefficient: Coefficient) -> str:
    mark = "" if coefficient.p < SIGNIFICANCE else "°"
    interval = f"[{_short(coefficient.low)}, {_short(coefficient.high)}]"
    return f"{_short(coefficient.value)}{mark} {interval}"


def _short(value: float) -> str:
    """Return three decimals without the leading zero."""
    return f"{value:.3f}".replace("0.", ".", 1)


def _csv_cells(coefficient: Coefficient | None) -> list[str]:
    if coefficient is None:
        return [""] * 4
    values = (coefficient.value, coefficient.p, coefficient.low, coefficient.high)
    return [f"{value:.6g}" for value in values]
