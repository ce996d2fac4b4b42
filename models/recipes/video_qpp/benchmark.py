"""Every predictor of video query performance that can be computed here, on one page.

Two collections with two systems and two targets each, and PQPP's seven targets: Pearson's r and
Kendall's tau-b with p-values and 95 % bootstrap intervals, the official tests read once. For VQPP
all is given with and without the texts that are also in train.

Examples:
    python -m recipes.video_qpp.benchmark --data ../shared/data
    python -m recipes.video_qpp.benchmark --data ../shared/data --check
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from recipes.measure import load_embedded
from recipes.video_qpp.benchmark_page import Row, read_figures, write_page
from recipes.video_qpp.correlations import Counts, draws, kendall, pearson
from recipes.video_qpp.data import COLUMNS, Queries, embed_queries, read_queries
from recipes.video_qpp.design import Known, Rows, read
from recipes.video_qpp.evaluate import serve
from recipes.video_qpp.expected import HANDMADE, TOLERANCE, VIDEO_TARGETS
from recipes.video_qpp.fit import know
from recipes.video_qpp.handmade import (
    NEEDED,
    PROPER_NOUNS,
    SYNSETS,
    Vector,
    features,
    load_tagger,
    load_tokenize,
)
from recipes.video_qpp.pqpp import PUBLISHED
from recipes.video_qpp.predictors import Asked, as_columns, predictions
from recipes.video_qpp.train import load_encoder
from recipes.video_qpp.wordnet import load_wordnet

SERVED = "video-qpp@2"
SERVED_OF_COCO = ("retrieval_avg_rr", "retrieval_avg_pk")


@dataclass(frozen=True, slots=True)
class Collection:
    """What is learnt from and what is tested, and the targets' names in the order of the
    columns."""

    name: str
    targets: tuple[str, ...]
    learnt: Queries
    tested: Queries


class Handmade:
    """The hand-made predictors; their tools are loaded once."""

    def __init__(self) -> None:
        self._tokenize, self._wordnet = load_tokenize(), load_wordnet()
        self._tagger = load_tagger()

    @property
    def left_out(self) -> list[str]:
        """The predictors whose tools are not installed."""
        tools = {SYNSETS: self._wordnet, PROPER_NOUNS: self._tagger}
        return [name for name, tool in tools.items() if tool is None]

    def of(self, texts: Sequence[str]) -> dict[str, Vector]:
        """See `handmade.features`."""
        return features(texts, self._tokenize, self._wordnet, self._tagger)


def main() -> None:
    """Compute and write the page, or with `--check` compute the hand-made predictors and compare.

    Raises:
        SystemExit: a hand-made predictor is not within the tolerance of what it must be.
    """
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    handmade = Handmade()
    for name in handmade.left_out:
        print(f"left out: {name}, which needs {NEEDED[name]}")
    if arguments.check:
        _refuse(list(differences(arguments.data, handmade)))
        return
    figures = arguments.out.with_suffix(".csv")
    done = {} if arguments.collection is None else by_collection(figures)
    for name in arguments.collection or COLUMNS:
        collection = read_collection(arguments.data, name)
        done[name] = list(collection_rows(collection, handmade, arguments.cache))
        write_page([row for key in COLUMNS for row in done.get(key, ())], arguments.out)
        print(f"written: {arguments.out}, its table of all figures and its picture")


def by_collection(figures: Path) -> dict[str, list[Row]]:
    """The rows that an earlier run left, where there is one."""
    rows = read_figures(figures) if figures.is_file() else []
    return {name: [row for row in rows if row.collection == name] for name in COLUMNS}


def read_collection(data: Path, name: str) -> Collection:
    """One collection; the texts that its test shares with train and validation are not learnt
    from."""
    columns = list(PUBLISHED) if name == "coco" else None
    targets = tuple(PUBLISHED) if name == "coco" else tuple(COLUMNS[name])
    learnt, tested = read_queries(data, name, columns)
    return Collection(name, targets, learnt.without_leaked(), tested)


def differences(data: Path, handmade: Handmade) -> Iterator[str]:
    """What of the hand-made predictors is not what it must be, on every test."""
    for name, expected in HANDMADE.items():
        collection = read_collection(data, name)
        found = handmade.of(collection.tested.texts)
        order = collection.targets if name == "coco" else VIDEO_TARGETS
        for predictor, cells in expected.items():
            if predictor in handmade.left_out:
                continue
            if not cells and found[predictor].any():
                yield f"{name}, {predictor}: not constant"
            for target, cell in zip(order, cells, strict=False):
                true = collection.tested.targets[:, collection.targets.index(target)]
                yield from _apart(f"{name}, {predictor}, {target}", found[predictor], true, cell)


def _apart(
    what: str, foretold: Vector, true: Vector, expected: tuple[float, float]
) -> Iterator[str]:
    drawn = draws(len(true), resamples=2)
    for statistic, value in zip((pearson, kendall), expected, strict=True):
        found = statistic(foretold, true, drawn)
        if found is None or abs(found.value - value) > TOLERANCE:
            got = "constant" if found is None else f"{found.value:.4f}"
            yield f"{what}: {statistic.__name__} {got}, must be {value}"


def collection_rows(collection: Collection, handmade: Handmade, cache: Path) -> Iterator[Row]:
    """The rows of one collection's test, and of the test without the shared texts."""
    tested = collection.tested
    print(f"\n{collection.name}: {len(collection.learnt)} to learn from, {len(tested)} tested")
    foretold = dict(_foretold(collection, handmade, cache))
    alone = np.flatnonzero(~tested.leaked)
    parts = {"all": np.arange(len(tested))}
    if len(alone) < len(tested):
        parts["without shared texts"] = alone
    for part, places in parts.items():
        drawn = draws(len(places))
        waiting = track(foretold.items(), f"{collection.name}, {part}", console=_console())
        for predictor, values in waiting:
            yield from _rows(collection, part, predictor, values, places, drawn)


def _rows(
    collection: Collection,
    part: str,
    predictor: str,
    foretold: Mapping[str, Vector],
    places: Rows,
    drawn: Counts,
) -> Iterator[Row]:
    for column, target in enumerate(collection.targets):
        if target in foretold:
            true = collection.tested.targets[places, column]
            values = foretold[target][places]
            r, tau = pearson(values, true, drawn), kendall(values, true, drawn)
            yield Row(collection.name, part, predictor, target, len(places), r, tau)


def _foretold(
    collection: Collection, handmade: Handmade, cache: Path
) -> Iterator[tuple[str, dict[str, Vector]]]:
    """Each predictor's name, and what it foretells of each target."""
    tested = collection.tested
    own = handmade.of(tested.texts)
    for name, values in own.items():
        yield name, dict.fromkeys(collection.targets, values)
    known = _known(collection.learnt, cache)
    numbers, counts = read(tested.texts)
    embeddings = embed_queries(load_encoder(), tested.texts, cache)
    nothing = np.zeros((len(tested), len(collection.targets)))
    unlabelled = Known(embeddings, numbers, counts, nothing, np.full(len(tested), -1))
    names = [name for name in own if own[name].any()]
    learnt = as_columns(handmade.of(collection.learnt.texts), names)
    asked = Asked(unlabelled, as_columns(own, names), learnt)
    for name, values in predictions(known, asked, lambda told: print(f"  {told}", flush=True)):
        yield name, dict(zip(collection.targets, values.T, strict=True))
    yield SERVED, dict(_served(collection))


def _known(learnt: Queries, cache: Path) -> Known:
    return know(learnt.texts, embed_queries(load_encoder(), learnt.texts, cache), learnt.targets)


def _served(collection: Collection) -> Iterator[tuple[str, Vector]]:
    """The model as it is served, for the targets that it foretells."""
    _, model = load_embedded(SERVED)
    for system in ("gram", "vast") if collection.name != "coco" else (None,):
        scores = serve(model, collection.tested.texts, collection.name, system)
        for place, channel in enumerate(("rr", "r10")):
            target = f"{system}.{channel}" if system else SERVED_OF_COCO[place]
            yield target, np.array([score.channels[channel] for score in scores])


def _refuse(found: Sequence[str]) -> None:
    if found:
        raise SystemExit("\n".join(["the hand-made predictors are not what they must be:", *found]))
    print(f"the hand-made predictors are within {TOLERANCE} of what they must be")


def _console() -> Console:
    return Console(stderr=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.video_qpp.benchmark",
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
        default=Path(__file__).parents[3] / "docs" / "reference" / "query-performance-benchmark.md",
        help="the page; a .csv and a picture are written beside it",
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("work/video_qpp"), help="where embeddings are kept"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of the encoder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
