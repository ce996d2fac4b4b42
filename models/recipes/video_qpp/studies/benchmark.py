"""Every predictor of video query performance that can be computed here, on one page.

Two collections with two systems and two targets each, and PQPP's seven targets: Pearson's r and
Kendall's tau-b with p-values and 95 % bootstrap intervals, the official tests read once. For VQPP
all is computed with and without the texts that are also in train. The page has Pearson's r, the
table of all figures beside it the rest.

Examples:
    python -m recipes.video_qpp.studies.benchmark --data ../shared/data
    python -m recipes.video_qpp.studies.benchmark --data ../shared/data --check
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from recipes.measure import load_model
from recipes.video_qpp.data import COLUMNS, Queries, embed_queries, read_queries
from recipes.video_qpp.evaluate import score_queries
from recipes.video_qpp.fit import prepare_queries
from recipes.video_qpp.head_inputs import LabelledQueries, Rows, read_text_features
from recipes.video_qpp.studies.benchmark_page import SERVED, ResultRow, read_figures, write_page
from recipes.video_qpp.studies.correlations import draw_resamples, kendall, pearson
from recipes.video_qpp.studies.expected_figures import HANDMADE, TOLERANCE, VIDEO_TARGETS
from recipes.video_qpp.studies.handmade import (
    PROPER_NOUNS,
    REQUIREMENTS,
    SYNSETS,
    Vector,
    handmade_features,
    load_tagger,
    load_tokenizer,
)
from recipes.video_qpp.studies.pqpp import PQPP_TARGETS
from recipes.video_qpp.studies.predictors import PredictionInputs, as_columns, predictions
from recipes.video_qpp.studies.wordnet import load_wordnet
from recipes.video_qpp.train import load_encoder

SERVED_COCO_TARGETS = ("retrieval_avg_rr", "retrieval_avg_pk")

Predictions = Mapping[str, Mapping[str, Vector]]
"""The predictions of each predictor for each target."""


@dataclass(frozen=True, slots=True)
class Collection:
    """The training and the test queries, and the targets' names in the order of the columns."""

    name: str
    targets: tuple[str, ...]
    train: Queries
    tested: Queries


class HandmadePredictors:
    """The hand-made predictors; their tools are loaded once."""

    def __init__(self) -> None:
        self._tokenize, self._wordnet = load_tokenizer(), load_wordnet()
        self._tagger = load_tagger()

    @property
    def left_out(self) -> list[str]:
        """The predictors whose tools are not installed."""
        tools = {SYNSETS: self._wordnet, PROPER_NOUNS: self._tagger}
        return [name for name, tool in tools.items() if tool is None]

    def features(self, texts: Sequence[str]) -> dict[str, Vector]:
        """Return `handmade.handmade_features` with the loaded tools."""
        return handmade_features(texts, self._tokenize, self._wordnet, self._tagger)


def main() -> None:
    """Compute and write the page, or with `--check` compute the hand-made predictors and compare.

    Raises:
        SystemExit: a hand-made predictor differs from its expected figures by more than the
            tolerance.
    """
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    handmade = HandmadePredictors()
    for name in handmade.left_out:
        print(f"left out: {name}, which needs {REQUIREMENTS[name]}")
    if arguments.check:
        _exit_on(list(differences(arguments.data, handmade)))
        return
    figures = arguments.out.with_suffix(".csv")
    done = {} if arguments.collection is None else read_earlier_rows(figures)
    for name in arguments.collection or COLUMNS:
        collection = read_collection(arguments.data, name)
        done[name] = list(collection_rows(collection, handmade, arguments.cache))
        write_page([row for key in COLUMNS for row in done.get(key, ())], arguments.out)
        print(f"written: {arguments.out}, its table of all figures and its picture")


def read_earlier_rows(figures: Path) -> dict[str, list[ResultRow]]:
    """Return the rows of an earlier run by collection, if there was one."""
    rows = read_figures(figures) if figures.is_file() else []
    return {name: [row for row in rows if row.collection == name] for name in COLUMNS}


def read_collection(data: Path, name: str) -> Collection:
    """Read one collection; training texts that its test shares with them are left out."""
    columns = list(PQPP_TARGETS) if name == "coco" else None
    targets = tuple(PQPP_TARGETS) if name == "coco" else tuple(COLUMNS[name])
    train, tested = read_queries(data, name, columns)
    return Collection(name, targets, train.without_leaked(), tested)


def differences(data: Path, handmade: HandmadePredictors) -> Iterator[str]:
    """Yield the hand-made figures that differ from the expected ones, on every test."""
    for name, expected in HANDMADE.items():
        collection = read_collection(data, name)
        features = handmade.features(collection.tested.texts)
        order = collection.targets if name == "coco" else VIDEO_TARGETS
        for predictor, cells in expected.items():
            if predictor in handmade.left_out:
                continue
            if not cells and features[predictor].any():
                yield f"{name}, {predictor}: not constant"
            for target, cell in zip(order, cells, strict=False):
                true = collection.tested.targets[:, collection.targets.index(target)]
                title = f"{name}, {predictor}, {target}"
                yield from _cell_differences(title, features[predictor], true, cell)


def _cell_differences(
    title: str, predicted: Vector, true: Vector, expected: tuple[float, float]
) -> Iterator[str]:
    counts = draw_resamples(len(true), resamples=2)
    for statistic, value in zip((pearson, kendall), expected, strict=True):
        found = statistic(predicted, true, counts)
        if found is None or abs(found.value - value) > TOLERANCE:
            measured = "constant" if found is None else f"{found.value:.4f}"
            yield f"{title}: {statistic.__name__} {measured}, must be {value}"


def collection_rows(
    collection: Collection, handmade: HandmadePredictors, cache: Path
) -> Iterator[ResultRow]:
    """Yield the rows of one collection's test, and of the test without the shared texts."""
    tested = collection.tested
    print(f"\n{collection.name}: {len(collection.train)} to learn from, {len(tested)} tested")
    predicted = dict(_predict_all(collection, handmade, cache))
    unshared = np.flatnonzero(~tested.leaked)
    parts = {"all": np.arange(len(tested))}
    if len(unshared) < len(tested):
        parts["without shared texts"] = unshared
    for part, rows in parts.items():
        yield from _part_rows(collection, part, predicted, rows)


def _part_rows(
    collection: Collection, part: str, predicted: Predictions, rows: Rows
) -> Iterator[ResultRow]:
    counts = draw_resamples(len(rows))
    console = Console(stderr=True)
    for predictor, by_target in track(
        predicted.items(), f"{collection.name}, {part}", console=console
    ):
        for column, target in enumerate(collection.targets):
            if target in by_target:
                true = collection.tested.targets[rows, column]
                values = by_target[target][rows]
                yield ResultRow(
                    collection=collection.name,
                    part=part,
                    predictor=predictor,
                    target=target,
                    n=len(rows),
                    r=pearson(values, true, counts),
                    tau=kendall(values, true, counts),
                )


def _predict_all(
    collection: Collection, handmade: HandmadePredictors, cache: Path
) -> Iterator[tuple[str, dict[str, Vector]]]:
    """Yield each predictor's name and its predictions for each target."""
    tested = collection.tested
    own = handmade.features(tested.texts)
    for name, values in own.items():
        yield name, dict.fromkeys(collection.targets, values)
    known = _prepare_train_queries(collection.train, cache)
    names = [name for name in own if own[name].any()]
    train_handmade = as_columns(handmade.features(collection.train.texts), names)
    test_queries = PredictionInputs(
        _without_labels(tested, len(collection.targets), cache),
        as_columns(own, names),
        train_handmade,
    )
    for name, matrix in predictions(known, test_queries, _print_indented):
        yield name, dict(zip(collection.targets, matrix.T, strict=True))
    yield SERVED, dict(_served_predictions(collection))


def _prepare_train_queries(train: Queries, cache: Path) -> LabelledQueries:
    embeddings = embed_queries(load_encoder(), train.texts, cache)
    return prepare_queries(train.texts, embeddings, train.targets)


def _without_labels(tested: Queries, targets: int, cache: Path) -> LabelledQueries:
    word_features, counts = read_text_features(tested.texts)
    return LabelledQueries(
        embeddings=embed_queries(load_encoder(), tested.texts, cache),
        word_features=word_features,
        counts=counts,
        targets=np.zeros((len(tested), targets)),
        clusters=np.full(len(tested), -1),
    )


def _print_indented(line: str) -> None:
    print(f"  {line}", flush=True)


def _served_predictions(collection: Collection) -> Iterator[tuple[str, Vector]]:
    """Yield the predictions of the served model, for the targets that it predicts."""
    _, model = load_model(SERVED)
    for system in ("gram", "vast") if collection.name != "coco" else (None,):
        scores = score_queries(model, collection.tested.texts, collection.name, system)
        for index, channel in enumerate(("rr", "r10")):
            target = f"{system}.{channel}" if system else SERVED_COCO_TARGETS[index]
            yield target, np.array([score.channels[channel] for score in scores])


def _exit_on(problems: Sequence[str]) -> None:
    if problems:
        title = "the hand-made predictors are not what they must be:"
        raise SystemExit("\n".join([title, *problems]))
    print(f"the hand-made predictors are within {TOLERANCE} of what they must be")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.video_qpp.studies.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds vqpp/")
    parser.add_argument(
        "--check", action="store_true", help="the hand-made predictors alone; fail if they are off"
    )
    parser.add_argument(
        "--collection",
        action="append",
        choices=list(COLUMNS),
        help="this one alone; the others keep the figures that the page has",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parents[1] / "benchmark" / "query-performance-benchmark.md",
        help="the page; a .csv and a picture are written beside it",
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("work/video_qpp"), help="where embeddings are kept"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of the encoder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
