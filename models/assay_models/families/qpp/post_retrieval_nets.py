"""Query performance prediction by nets that read the embeddings of retrieved videos.

The two learnt post-retrieval predictors of VQPP and PQPP (Lutu and others 2026, arXiv 2602.17814;
Poesina and others, arXiv 2406.04746): a head on pairs of query and video, and a convolutional net
on the correlations between the videos' embedding dimensions. The recipe is
`recipes.video_qpp.studies.post_retrieval`; no weights come with the repository.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from torch import Tensor, nn

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import CardError, ModelCard
from assay_models.families.classifier.device import usable_device
from assay_models.families.classifier.weight_files import read_tensors
from assay_models.items import RetrievalQppItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, digest_of, fingerprint_of

VERSION = 1
WEIGHTS = "model.safetensors"
TARGETS = ("rr", "r10")
DROPOUT = 0.5
CONVOLUTIONS = 4
MIN_WIDTH = 2**CONVOLUTIONS
"""The fewest numbers of an embedding: each convolution halves the image."""

RECALL_CUTOFF = 10
"""The cutoff of recall at 10."""

Kind = Literal["pair", "correlation"]


class NetOptions(BaseModel):
    """`[options]` of a card of this family: the kind of its net, and the number of the best results
    that it reads."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    depth: Annotated[int, Field(ge=2, le=1000)] = 25


class EmbeddedList(NamedTuple):
    """The payload of one list: the query (d,) and its videos (k, d), best first, of length 1."""

    query: NDArray[np.float32]
    videos: NDArray[np.float32]


def pair_head(width: int, hidden: tuple[int, int] = (512, 256)) -> nn.Sequential:
    """Build the net from a query beside a video (2 width) to the logit of its relevance."""
    first, second = hidden
    return nn.Sequential(
        *(nn.Linear(2 * width, first), nn.ReLU(), nn.Dropout(DROPOUT)),
        *(nn.Linear(first, second), nn.ReLU(), nn.Dropout(DROPOUT)),
        nn.Linear(second, 1),
    )


def correlation_net(
    channels: Sequence[int] = (64, 128, 256, 512), hidden: int = 512
) -> nn.Sequential:
    """Build the net from a correlation image (1, d, d), d at least `MIN_WIDTH`, to one number."""
    layers: list[nn.Module] = []
    for before, after in zip((1, *channels), channels, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(
        *(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        *(nn.Linear(channels[-1], hidden), nn.ReLU(), nn.Linear(hidden, 1)),
    )


def make_pairs(query: Tensor, videos: Tensor) -> Tensor:
    """Put the query (..., d) beside each of its videos (..., k, d): (..., k, 2 d)."""
    return torch.cat([query.unsqueeze(-2).expand_as(videos), videos], dim=-1)


def correlation_images(videos: Tensor) -> Tensor:
    """Compute Pearson's r of the embedding dimensions over videos: (n, k, d) to (n, 1, d, d).

    A dimension that is the same in all videos has the correlation 0 with all others.
    """
    centred = videos - videos.mean(dim=1, keepdim=True)
    lengths = centred.norm(dim=1, keepdim=True)
    unit = torch.where(lengths > 0, centred / lengths.clamp_min(1e-12), 0.0)
    return (unit.transpose(1, 2) @ unit).unsqueeze(1)


def predict_from_pairs(logits: Sequence[float]) -> tuple[float, float]:
    """Return (rr, r10) of a list by the logits of the pair head.

    Candidates with a probability of one half or more count as relevant. The numbers are 1 / rank of
    the first one, and the share of them in the first ten; 0 where there is none.
    """
    relevant = [logit >= 0 for logit in logits]
    if not any(relevant):
        return 0.0, 0.0
    return 1 / (1 + relevant.index(True)), sum(relevant[:RECALL_CUTOFF]) / sum(relevant)


@dataclass(frozen=True, slots=True)
class RetrievalNet:
    """A learnt predictor; `nets` holds one net for pairs, or one for each target."""

    fingerprint: str
    options: NetOptions
    _: KW_ONLY
    width: int
    nets: Mapping[str, nn.Module]
    device: str
    runs: ClassVar[Literal["device"]] = "device"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "RetrievalNet":
        """Read the weights; the nets compute in fp32 whatever the dtype served.

        Raises:
            CardError: an option, the weights or the example is missing, the weights are not
                those of the net that the card names, or the device does not exist.
        """
        usable_device(card, runtime.device)
        options = card.options_as(NetOptions)
        if card.example is None:
            raise CardError(
                f"{card.id}: `example` must show a list, as long embeddings are its own"
            )
        path = (files.weights or files.folder) / WEIGHTS
        try:
            tensors = read_tensors(path)
            width, nets = build_nets(options.kind, tensors)
        except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise CardError(f"{card.id}: {path} is no {options.kind} net: {error}") from error
        parts = {"family": "retrieval_nets", "version": VERSION, "weights": digest_of(path)}
        fingerprint = fingerprint_of(parts | options.model_dump())
        placed = {name: net.to(runtime.device).eval() for name, net in nets.items()}
        return cls(fingerprint, options, width=width, nets=placed, device=runtime.device)

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Read the best results' embeddings; scores are not read."""
        item = items[0]
        assert isinstance(item, RetrievalQppItem)
        if item.depth is not None:
            raise ItemError("invalid_item", "the number of results is the card's: send no `depth`")
        results = item.results[: self.options.depth]
        query = self._unit("query_embedding", item.query_embedding)
        videos = [self._unit("embedding", result.embedding) for result in results]
        if len(videos) < 2:
            raise ItemError("invalid_item", "one result is too few: send at least two")
        listed = EmbeddedList(query, np.stack(videos))
        flags = ("short_list",) if len(videos) < self.options.depth else ()
        key = hashlib.sha256(query.tobytes() + listed.videos.tobytes()).digest()
        tokens = len(videos) * (1 + self.width // 16)
        details = {"results": len(videos)}
        return Prepared((Input(key, tokens, listed),), flags=flags, details=details)

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of all tokens: nothing is padded."""
        return sum(row.tokens for row in inputs)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        """Compute the logit of each result, or (rr, r10) by correlations.

        Each list is computed by itself, so that its bits do not depend on the others.
        """
        with torch.inference_mode():
            return [self._raw(row.payload) for row in inputs]

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Return the channels `rr` and `r10`, clipped to 0..1, and their mean as the score.

        The raw is the mean before clipping.
        """
        (raw,) = raws
        rr, r10 = predict_from_pairs(raw) if self.options.kind == "pair" else raw
        channels = {name: _clip(value) for name, value in zip(TARGETS, (rr, r10), strict=True)}
        mean = (rr + r10) / 2
        score = mean if options.raw else (channels["rr"] + channels["r10"]) / 2
        return [
            Score(score, mean, channels=channels, flags=prepared.flags, details=prepared.details)
        ]

    def _raw(self, listed: EmbeddedList) -> Raw:
        videos = torch.from_numpy(listed.videos).to(self.device)
        if self.options.kind == "pair":
            rows = make_pairs(torch.from_numpy(listed.query).to(self.device), videos)
            return tuple(self.nets["pair"](rows)[:, 0].tolist())
        image = correlation_images(videos.unsqueeze(0))
        return tuple(float(self.nets[target](image)) for target in TARGETS)

    def _unit(self, field: str, numbers: Sequence[float] | None) -> NDArray[np.float32]:
        if numbers is None or len(numbers) != self.width or not any(numbers):
            raise ItemError(
                "invalid_item",
                f"`{field}`: this model needs {self.width} numbers, not all 0, for the query and "
                f"for each of the best {self.options.depth} results",
            )
        vector = np.array(numbers, dtype=np.float64)
        vector /= np.abs(vector).max()
        unit: NDArray[np.float32] = (vector / np.sqrt(vector @ vector)).astype(np.float32)
        return unit


def build_nets(kind: Kind, tensors: Mapping[str, Tensor]) -> tuple[int, dict[str, nn.Module]]:
    """Return the embedding's width, and the nets by name, sized as their weights are.

    The width is a tensor of its own, because the weights of a correlation net do not show it.

    Raises:
        KeyError, RuntimeError: the weights are not those of such a net.
        ValueError: the width is not that of the weights, or too small for its net.
    """
    width = int(tensors["width"])
    names = ("pair",) if kind == "pair" else TARGETS
    nets = {}
    for name in names:
        own = {
            key.removeprefix(f"{name}."): value
            for key, value in tensors.items()
            if key.startswith(f"{name}.")
        }
        net = _sized(kind, own)
        net.load_state_dict(own)
        nets[name] = net
    is_fitting = (
        width == tensors["pair.0.weight"].shape[1] / 2 if kind == "pair" else width >= MIN_WIDTH
    )
    if not is_fitting:
        raise ValueError(f"embeddings of {width} numbers do not fit it")
    return width, nets


def _sized(kind: Kind, own: Mapping[str, Tensor]) -> nn.Module:
    if kind == "pair":
        first, second = own["0.weight"], own["3.weight"]
        return pair_head(first.shape[1] // 2, (first.shape[0], second.shape[0]))
    channels = [own[f"{3 * index}.weight"].shape[0] for index in range(CONVOLUTIONS)]
    return correlation_net(channels, own[f"{3 * CONVOLUTIONS + 2}.weight"].shape[0])


def _clip(value: float) -> float:
    """Clip to 0..1; NaN stays NaN, so that it is reported and not served as a zero."""
    return value if math.isnan(value) else min(1.0, max(0.0, value))


def export_tensors(width: int, nets: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the weights in the form in which they are stored, and `build_nets` reads them."""
    stored = {"width": torch.tensor(width)}
    for name, net in nets.items():
        stored |= {f"{name}.{key}": value.contiguous() for key, value in net.state_dict().items()}
    return stored
