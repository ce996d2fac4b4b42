"""The queries of VQPP and PQPP with their retrieval quality, and their embeddings, cached."""

import csv
import gzip
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from assay_models.families.qpp.encoder import SentenceEmbedding
from assay_models.families.qpp.query_text import normalise

Matrix = NDArray[np.float64]

BATCH_SIZE = 64

COLUMNS: Mapping[str, Mapping[str, str]] = {
    "msrvtt": {
        "gram.rr": "gram_rr",
        "gram.r10": "gram_r10",
        "vast.rr": "vast_rr",
        "vast.r10": "vast_r10",
    },
    "vatex": {
        "gram.rr": "gram_rr",
        "gram.r10": "gram_r10",
        "vast.rr": "vast_rr",
        "vast.r10": "vast_r10",
    },
    "coco": {"rr": "retrieval_avg_rr", "r10": "retrieval_avg_pk"},
}
"""The targets of each collection in the order of the model's outputs, and the column of each.

COCO has no recall: its `r10` is precision at 10, the mean of two systems."""


@dataclass(frozen=True, slots=True)
class Queries:
    """The queries of one collection and split: `targets` has a row for each, and a column for each
    target; `leaked` marks those whose text occurs on the other side of the official split too."""

    texts: tuple[str, ...]
    targets: Matrix
    leaked: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.texts)

    def without_leaked(self) -> "Queries":
        """Return the queries whose text occurs on one side only."""
        kept = np.flatnonzero(~self.leaked)
        texts = tuple(self.texts[row] for row in kept)
        return Queries(texts, self.targets[kept], self.leaked[kept])


def read_queries(
    data: Path, collection: str, columns: Sequence[str] | None = None
) -> tuple[Queries, Queries]:
    """Read train with validation, and the official test, of one collection.

    Args:
        data: the folder that holds `vqpp/`.
        collection: a key of `COLUMNS`.
        columns: of the targets, where they are not those that are served.
    """
    text, rows = _rows(data, collection)
    test_texts = {row[text] for row in rows if row["split"] == "test"}
    train_texts = {row[text] for row in rows if row["split"] != "test"}
    shared = set(map(normalise, test_texts)) & set(map(normalise, train_texts))
    names = columns or list(COLUMNS[collection].values())

    def queries(split: Sequence[Mapping[str, str]]) -> Queries:
        targets = np.array([[float(row[name]) for name in names] for row in split])
        leaked = np.array([normalise(row[text]) in shared for row in split])
        return Queries(tuple(row[text] for row in split), targets, leaked)

    return (
        queries([row for row in rows if row["split"] != "test"]),
        queries([row for row in rows if row["split"] == "test"]),
    )


def embed_queries(
    encoder: SentenceEmbedding, texts: Sequence[str], cache: Path | None
) -> NDArray[np.float32]:
    """Embed texts in the order given, shape (texts, width); cached in the folder `cache`."""
    normalised = [normalise(text) for text in texts]
    path = cache / f"embeddings-{_digest(normalised)}.npy" if cache else None
    if path and path.is_file():
        return np.asarray(np.load(path), dtype=np.float32)
    rows = [encoder.tokenize(text).ids for text in normalised]
    order = sorted(range(len(rows)), key=lambda row: len(rows[row]))
    batches: list[NDArray[np.float32]] = []
    for start in range(0, len(order), BATCH_SIZE):
        batches.append(encoder.embed([rows[row] for row in order[start : start + BATCH_SIZE]]))
        if start % (50 * BATCH_SIZE) == 0:
            print(f"  embedded {start} of {len(order)} queries", flush=True)
    embeddings = np.empty((len(rows), batches[0].shape[1]), dtype=np.float32)
    embeddings[order] = np.concatenate(batches)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, embeddings)
    return embeddings


def _rows(data: Path, collection: str) -> tuple[str, list[dict[str, str]]]:
    name, text = ("pqpp", "best_caption") if collection == "coco" else ("vqpp", "query")
    path = data / "vqpp" / f"{name}_queries.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if collection == "coco":
        return text, rows
    return text, [row for row in rows if row["dataset"] == collection]


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()[:16]
