"""The head of one collection: from a query's embedding, words and neighbours to predictions.

The cosine similarities to a collection's training queries measure the density of queries around
this one, and their labels measure the difficulty there. All inputs go through one hidden layer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assay_models.base import Raw
from assay_models.families.qpp.features import BINS, FEATURES, QueryFeatures

BANDS = ((0, 1), (1, 4), (4, 16), (16, 50))
"""The ranks of the nearest queries over which cosines are averaged."""

SHARPNESS = (8.0, 16.0, 32.0)
"""The b of the kernels exp(b (cosine - 1)), each kernel the square of the one before."""

MAX_DEVIATIONS = 5.0
"""The standard deviations from the mean at which an input is clipped."""

_MIN_DENSITY = 1e-12
_SHRINKAGE = 1e-5

Matrix = NDArray[np.float64]


def neighbour_features(cosines: Tensor, labels: Tensor) -> Tensor:
    """Compute the features of the neighbours of queries: shape (m, 4 + 3 (1 + k)).

    They are the mean cosine of each band of nearest queries, then for each kernel the logarithm of
    its mean and the mean of the labels under it (Nadaraya 1964, Watson 1964), the sharpest one
    shrunk towards 0 where few queries are near. They are computed in fp64, because a kernel
    multiplies the error of a cosine by 32.

    Args:
        cosines: of m queries with n training queries, (m, n).
        labels: of the training queries, each column of mean 0, (n, k).
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
        shrinkage = _SHRINKAGE * n if sharpness == SHARPNESS[-1] else 0.0
        columns += [torch.log(total / n + _MIN_DENSITY), (kernel @ labels) / (total + shrinkage)]
    return torch.cat(columns, dim=1)


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """The training queries of a collection, without their texts.

    Shapes: `projection` (width, d); `queries` (n, d), rows of length 1; `labels` (n, k), columns of
    mean 0.
    """

    projection: Tensor
    queries: Tensor
    labels: Tensor

    def features(self, embeddings: NDArray[np.float32]) -> Matrix:
        """Compute `neighbour_features` of embedded queries (m, width)."""
        cosines = self.cosines(torch.from_numpy(embeddings).to(self.queries.device))
        return neighbour_features(cosines, self.labels).cpu().numpy()

    def cosines(self, embeddings: Tensor) -> Tensor:
        """Compute the cosine with each training query, in the projection: (m, n)."""
        return nn.functional.normalize(embeddings @ self.projection, dim=1) @ self.queries.T


@dataclass(frozen=True, slots=True)
class Net:
    """One hidden layer: `constant + silu(x @ hidden + bias) @ out`, x standardised and clipped.

    Shapes: `mean` and `deviation` (columns,), `hidden` (columns, h), `bias` (h,), `out` (h, k) and
    `constant` (k,).
    """

    _: KW_ONLY
    mean: Matrix
    deviation: Matrix
    hidden: Matrix
    bias: Matrix
    out: Matrix
    constant: Matrix

    def outputs(self, inputs: Matrix) -> Matrix:
        """Compute the k outputs of one row of inputs (columns,)."""
        x = np.clip((inputs - self.mean) / self.deviation, -MAX_DEVIATIONS, MAX_DEVIATIONS)
        units = x @ self.hidden + self.bias
        outputs: Matrix = self.constant + (units / (1 + np.exp(-units))) @ self.out
        return outputs


@dataclass(frozen=True, slots=True)
class Head:
    """The predictor of one collection; its k outputs are (rr, r10) for each of its systems.

    Shapes: features are clipped to `low` .. `high` (5,); n-grams have `idf` (bins,) and a linear
    model `ngrams` (bins, k) and `ngrams_constant` (k,), whose outputs are inputs of the net.
    `domain_threshold` is the mean cosine of the four nearest queries below which a query is out of
    domain.
    """

    _: KW_ONLY
    low: Matrix
    high: Matrix
    idf: Matrix
    ngrams: Matrix
    ngrams_constant: Matrix
    domain_threshold: float
    neighbourhood: Neighbourhood
    net: Net

    def raws(self, embeddings: NDArray[np.float32], queries: Sequence[QueryFeatures]) -> list[Raw]:
        """Compute for each query its k outputs, not clipped, and the mean cosine of the four
        nearest queries; a raw depends on the others only by rounding."""
        neighbours = self.neighbourhood.features(embeddings)
        return [
            self._raw(embedding.astype(np.float64), query, row)
            for embedding, query, row in zip(embeddings, queries, neighbours, strict=True)
        ]

    def _raw(self, embedding: Matrix, query: QueryFeatures, neighbours: Matrix) -> Raw:
        numbers = np.clip(query.numbers, self.low, self.high)
        inputs = np.concatenate([embedding, numbers, neighbours, self._ngram_outputs(query)])
        nearest = (neighbours[0] + 3 * neighbours[1]) / 4
        return (*(float(value) for value in self.net.outputs(inputs)), float(nearest))

    def _ngram_outputs(self, query: QueryFeatures) -> Matrix:
        if not query.bins:
            return self.ngrams_constant
        bins = np.array(query.bins)
        weights = (1 + np.log(query.counts)) * self.idf[bins]
        unit = weights / np.linalg.norm(weights)
        outputs: Matrix = self.ngrams_constant + unit @ self.ngrams[bins]
        return outputs


def read_head(
    tensors: Mapping[str, NDArray[Any]], name: str, *, width: int, outputs: int, device: str
) -> Head:
    """Read the head of one collection, from tensors named `collection.part`.

    Raises:
        KeyError: a part is missing.
        ValueError: the shapes of the parts do not fit together.
    """

    def matrix(part: str) -> Matrix:
        return tensors[f"{name}.{part}"].astype(np.float64)

    def tensor(part: str) -> Tensor:
        return torch.from_numpy(tensors[f"{name}.{part}"].astype(np.float32)).to(device)

    parts = ("mean", "deviation", "hidden", "bias", "out", "constant")
    head = Head(
        **{part: matrix(part) for part in ("low", "high", "idf", "ngrams", "ngrams_constant")},
        domain_threshold=float(tensors[f"{name}.domain"][0]),
        neighbourhood=Neighbourhood(
            tensor("projection"),
            nn.functional.normalize(tensor("queries"), dim=1),
            tensor("labels"),
        ),
        net=Net(**{part: matrix(part) for part in parts}),
    )
    wrong = _wrong_shapes(head, width, outputs)
    if wrong:
        raise ValueError(f"the parts of {name!r} do not belong together: {wrong}")
    return head


def input_width(width: int, outputs: int) -> int:
    """Return the number of inputs of the net."""
    neighbours = len(BANDS) + len(SHARPNESS) * (1 + outputs)
    return width + len(FEATURES) + neighbours + outputs


def _wrong_shapes(head: Head, width: int, outputs: int) -> dict[str, tuple[int, ...]]:
    known, units = len(head.neighbourhood.queries), len(head.net.bias)
    shapes = {
        "ngrams": (head.ngrams.shape, (BINS, outputs)),
        "projection": (tuple(head.neighbourhood.projection.shape[:1]), (width,)),
        "labels": (tuple(head.neighbourhood.labels.shape), (known, outputs)),
        "hidden": (head.net.hidden.shape, (input_width(width, outputs), units)),
        "out": (head.net.out.shape, (units, outputs)),
    }
    wrong = {part: shape for part, (shape, expected) in shapes.items() if shape != expected}
    return wrong if known >= BANDS[-1][1] else {"queries": (known,), **wrong}
