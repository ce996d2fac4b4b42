"""The head of one collection: from a query's embedding, words and neighbours to what is foretold.

How near the other queries of a collection lie says how crowded it is around this one, and what
became of them says how hard it is there. All inputs go through one hidden layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assay_models.base import Raw
from assay_models.families.qpp.features import BINS, FEATURES, QueryFeatures

BANDS = ((0, 1), (1, 4), (4, 16), (16, 50))
"""Ranks of the nearest queries over which cosines are averaged."""

SHARPNESS = (8.0, 16.0, 32.0)
"""Of the kernels exp(b (cosine - 1)), each the square of the one before."""

FARTHEST = 5.0
"""Standard deviations beyond which an input says no more."""

_EMPTY = 1e-12
_DOUBT = 1e-5

Matrix = NDArray[np.float64]


def surroundings(cosines: Tensor, labels: Tensor) -> Tensor:
    """What lies around queries: shape (m, 4 + 3 (1 + k)).

    The mean cosine of each band of nearest queries, then for each kernel the logarithm of its mean
    and the mean of the labels under it (Nadaraya 1964, Watson 1964), the sharpest drawn towards 0
    where hardly anything is near. In fp64: a kernel multiplies what a cosine is off by 32.

    Args:
        cosines: of m queries with n known ones, (m, n).
        labels: of the known ones, each column of mean 0, (n, k).
    """
    n = cosines.shape[1]
    cosines, labels = cosines.double(), labels.double()
    nearest = cosines.topk(min(BANDS[-1][1], n), dim=1).values
    columns = [nearest[:, start:stop].mean(dim=1, keepdim=True) for start, stop in BANDS]
    kernel = torch.exp(SHARPNESS[0] * (cosines - 1))
    for sharpness in SHARPNESS:
        if sharpness > SHARPNESS[0]:
            kernel = kernel * kernel
        total = kernel.sum(dim=1, keepdim=True)
        doubt = _DOUBT * n if sharpness == SHARPNESS[-1] else 0.0
        columns += [torch.log(total / n + _EMPTY), (kernel @ labels) / (total + doubt)]
    return torch.cat(columns, dim=1)


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """The queries that a collection's labels are known of, without their texts.

    Shapes: `projection` (width, d); `queries` (n, d), rows of length 1; `labels` (n, k), columns of
    mean 0.
    """

    projection: Tensor
    queries: Tensor
    labels: Tensor

    def around(self, embeddings: NDArray[np.float32]) -> Matrix:
        """`surroundings` of embedded queries (m, width)."""
        cosines = self.cosines(torch.from_numpy(embeddings).to(self.queries.device))
        return surroundings(cosines, self.labels).cpu().numpy()

    def cosines(self, embeddings: Tensor) -> Tensor:
        """With each known query, in the projection: (m, n)."""
        return nn.functional.normalize(embeddings @ self.projection, dim=1) @ self.queries.T


@dataclass(frozen=True, slots=True)
class Net:
    """One hidden layer: `constant + silu(x @ hidden + bias) @ out`, x standardised and clipped.

    Shapes: `mean` and `deviation` (columns,), `hidden` (columns, h), `bias` (h,), `out` (h, k) and
    `constant` (k,).
    """

    mean: Matrix
    deviation: Matrix
    hidden: Matrix
    bias: Matrix
    out: Matrix
    constant: Matrix

    def outputs(self, inputs: Matrix) -> Matrix:
        """The k outputs of one row of inputs (columns,)."""
        x = np.clip((inputs - self.mean) / self.deviation, -FARTHEST, FARTHEST)
        units = x @ self.hidden + self.bias
        outputs: Matrix = self.constant + (units / (1 + np.exp(-units))) @ self.out
        return outputs


@dataclass(frozen=True, slots=True)
class Head:
    """The predictor of one collection; its k outputs are (rr, r10) for each of its systems.

    Shapes: features are clipped to `low` .. `high` (5,); n-grams have `idf` (bins,) and a linear
    model `ngrams` (bins, k) and `ngrams_constant` (k,), whose outputs are inputs of the net.
    `domain` is the mean cosine of the four nearest queries below which a query is out of domain.
    """

    low: Matrix
    high: Matrix
    idf: Matrix
    ngrams: Matrix
    ngrams_constant: Matrix
    domain: float
    neighbourhood: Neighbourhood
    net: Net

    def raws(self, embeddings: NDArray[np.float32], queries: Sequence[QueryFeatures]) -> list[Raw]:
        """For each query its k outputs, not clipped, then the mean cosine of the four nearest
        queries; but for rounding none depends on another."""
        around = self.neighbourhood.around(embeddings)
        return [
            self._raw(embedding.astype(np.float64), query, row)
            for embedding, query, row in zip(embeddings, queries, around, strict=True)
        ]

    def _raw(self, embedding: Matrix, query: QueryFeatures, around: Matrix) -> Raw:
        numbers = np.clip(query.numbers, self.low, self.high)
        inputs = np.concatenate([embedding, numbers, around, self._of_ngrams(query)])
        nearest = (around[0] + 3 * around[1]) / 4
        return (*(float(value) for value in self.net.outputs(inputs)), float(nearest))

    def _of_ngrams(self, query: QueryFeatures) -> Matrix:
        if not query.bins:
            return self.ngrams_constant
        bins = np.array(query.bins)
        weights = (1 + np.log(query.counts)) * self.idf[bins]
        found: Matrix = self.ngrams_constant + weights / np.linalg.norm(weights) @ self.ngrams[bins]
        return found


def head_of(
    tensors: Mapping[str, NDArray[Any]], name: str, width: int, outputs: int, device: str
) -> Head:
    """The head of one collection, from tensors named `collection.part`.

    Raises:
        KeyError: a part is not there.
        ValueError: the parts do not belong together.
    """

    def wide(part: str) -> Matrix:
        return tensors[f"{name}.{part}"].astype(np.float64)

    def placed(part: str) -> Tensor:
        return torch.from_numpy(tensors[f"{name}.{part}"].astype(np.float32)).to(device)

    parts = ("mean", "deviation", "hidden", "bias", "out", "constant")
    head = Head(
        **{part: wide(part) for part in ("low", "high", "idf", "ngrams", "ngrams_constant")},
        domain=float(tensors[f"{name}.domain"][0]),
        neighbourhood=Neighbourhood(
            placed("projection"),
            nn.functional.normalize(placed("queries"), dim=1),
            placed("labels"),
        ),
        net=Net(**{part: wide(part) for part in parts}),
    )
    wrong = _wrong(head, width, outputs)
    if wrong:
        raise ValueError(f"the parts of {name!r} do not belong together: {wrong}")
    return head


def columns_of(width: int, outputs: int) -> int:
    """How many inputs the net has."""
    around = len(BANDS) + len(SHARPNESS) * (1 + outputs)
    return width + len(FEATURES) + around + outputs


def _wrong(head: Head, width: int, outputs: int) -> dict[str, tuple[int, ...]]:
    known, units = len(head.neighbourhood.queries), len(head.net.bias)
    found = {
        "ngrams": (head.ngrams.shape, (BINS, outputs)),
        "projection": (tuple(head.neighbourhood.projection.shape[:1]), (width,)),
        "labels": (tuple(head.neighbourhood.labels.shape), (known, outputs)),
        "hidden": (head.net.hidden.shape, (columns_of(width, outputs), units)),
        "out": (head.net.out.shape, (units, outputs)),
    }
    wrong = {part: shape for part, (shape, expected) in found.items() if shape != expected}
    return wrong if known >= BANDS[-1][1] else {"queries": (known,), **wrong}
