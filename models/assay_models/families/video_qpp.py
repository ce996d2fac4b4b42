"""How well a text-to-video retrieval system will do on a query, foretold from its text alone.

The task and the labels are those of VQPP (Lutu, Poesina and Ionescu 2026, arXiv 2602.17814). The
predictor is linear in a frozen sentence embedding, five word features and hashed word n-grams.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Encoding

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import CardError, ModelCard
from assay_models.families import query_features
from assay_models.families.parity import NotRight
from assay_models.families.query_features import QueryFeatures, normalise, read_features
from assay_models.families.sentence_embedding import FILES, LONGEST, SentenceEmbedding
from assay_models.items import VideoQppItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, digest_of, fingerprint_of

VERSION = 1
HEADS = "heads.safetensors"
DEFAULT_COLLECTION = "msrvtt"
FEWEST_WORDS = 3

SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "msrvtt": ("gram", "vast"),
    "vatex": ("gram", "vast"),
    "coco": (),
}
"""The retrieval systems each collection has labels of; COCO's are means over two systems."""

_MARKERS = 2


@dataclass(frozen=True, slots=True)
class Head:
    """The linear model of one collection. Its k outputs are (rr, r10) for each of its systems.

    Shapes: `intercept` (k,), `embedding` (384, k), `features` (5, k) on values clipped to `low` ..
    `high` (5,), `idf` (bins,) and `ngrams` (bins, k).
    """

    intercept: NDArray[np.float64]
    embedding: NDArray[np.float64]
    features: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    idf: NDArray[np.float64]
    ngrams: NDArray[np.float64]

    def outputs(self, embedding: NDArray[np.float32], query: QueryFeatures) -> Raw:
        """The k outputs for one query, not clipped; no query's depend on another's."""
        total = self.intercept + embedding.astype(np.float64) @ self.embedding
        total = total + np.clip(query.numbers, self.low, self.high) @ self.features
        if query.bins:
            bins = np.array(query.bins)
            weights = (1 + np.log(query.counts)) * self.idf[bins]
            total = total + (weights / np.linalg.norm(weights)) @ self.ngrams[bins]
        return tuple(float(value) for value in total)


@dataclass(frozen=True, slots=True)
class VideoQppModel:
    """Expected reciprocal rank and recall at 10, before any retrieval."""

    fingerprint: str
    max_tokens: int
    encoder: SentenceEmbedding
    heads: Mapping[str, Head]
    runs: ClassVar[Literal["device"]] = "device"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "VideoQppModel":
        """Read the frozen encoder and the heads beside the card.

        Raises:
            CardError: there are no weights, or the heads are not what the family computes with.
        """
        if files.weights is None:
            raise CardError(f"{card.id}: `weights` must name the sentence encoder's folder")
        missing = [name for name in FILES if not (files.weights / name).is_file()]
        if missing:
            raise CardError(f"{card.id}: {', '.join(missing)} missing from {files.weights}")
        try:
            encoder = SentenceEmbedding.load(
                files.weights, runtime.device, runtime.dtype, runtime.deterministic
            )
        except NotRight as error:
            raise CardError(f"{card.id}: {error}") from error
        heads = _read_heads(card, files.folder / HEADS, encoder.width)
        limit = min(card.limits.max_tokens, LONGEST)
        return cls(_fingerprint(files, files.weights, runtime, encoder), limit, encoder, heads)

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Normalise white space, then read the tokens and the features of one query."""
        item = items[0]
        assert isinstance(item, VideoQppItem)
        collection = _collection(item)
        text = self._read(normalise(item.query), options)
        features = read_features(text.kept)
        details: dict[str, Any] = {"words": features.words}
        if text.cut:
            details["truncated_tokens"] = text.cut
        payload = (collection, text.ids, features)
        row = Input(_key(collection, text), len(text.ids), payload)
        flags = _flags(item, features, text)
        return Prepared((row,), (collection, item.system), flags, details)

    def cost(self, inputs: Sequence[Input]) -> int:
        """See `SentenceEmbedding.cost`."""
        return self.encoder.cost(inputs)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        """(rr, r10) of GRAM, then of VAST, for each input; for COCO one (rr, r10)."""
        if not inputs:
            return []
        embeddings = self.encoder.embed([one.payload[1] for one in inputs])
        return [
            self.heads[one.payload[0]].outputs(embedding, one.payload[2])
            for one, embedding in zip(inputs, embeddings, strict=True)
        ]

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Channels `rr` and `r10` of the item's system (the mean of both where it names none),
        clipped to 0..1; the score is their mean, the raw the same mean before clipping."""
        (outputs,) = raws
        rr, r10 = _of_system(outputs, *prepared.state)
        channels = {"rr": _clip(rr), "r10": _clip(r10)}
        raw = (rr + r10) / 2
        score = raw if options.raw else (channels["rr"] + channels["r10"]) / 2
        return [Score(score, raw, channels, prepared.flags, prepared.details)]

    def _read(self, text: str, options: Options) -> "Read":
        encoding = self.encoder.tokenize(text)
        if len(encoding.ids) <= _MARKERS:
            raise ItemError("empty_query", "`query` holds no word: send the text to be searched")
        over = len(encoding.ids) - self.max_tokens
        if over <= 0:
            return Read(tuple(encoding.ids), text, 0)
        if options.truncation == "error":
            raise ItemError(
                "input_too_long",
                f"`query` is {over} tokens over the limit of {self.max_tokens}: "
                "shorten it, or set `options.truncation`",
            )
        return _cut(encoding, text, over, options.truncation)


@dataclass(frozen=True, slots=True)
class Read:
    """A query as it is scored: token ids with both markers, the text they stand for, and how many
    tokens were cut off."""

    ids: tuple[int, ...]
    kept: str
    cut: int


def _collection(item: VideoQppItem) -> str:
    collection = item.collection or DEFAULT_COLLECTION
    if item.results is not None:
        raise ItemError("unsupported", "this model reads the query alone: send no `results`")
    if item.system is not None and item.system not in SYSTEMS[collection]:
        raise ItemError("invalid_item", f"`{collection}` has no single system: send no `system`")
    return collection


def _flags(item: VideoQppItem, features: QueryFeatures, text: Read) -> tuple[str, ...]:
    raised = {
        "default_collection": item.collection is None,
        "very_short": features.words < FEWEST_WORDS,
        "truncated": text.cut > 0,
    }
    return tuple(flag for flag, holds in raised.items() if holds)


def _key(collection: str, text: Read) -> bytes:
    ids = np.array(text.ids, dtype="<u4").tobytes()
    length = len(text.ids).to_bytes(4, "big")
    return b"\0".join((collection.encode(), length, ids, text.kept.encode()))


def _cut(encoding: Encoding, text: str, over: int, side: str) -> Read:
    first, *inner, last = zip(encoding.ids, encoding.offsets, strict=True)
    room = len(inner) - over
    heads = {"right": room, "left": 0, "middle": (room + 1) // 2}[side]
    head, tail = inner[:heads], inner[len(inner) - (room - heads) :]
    pieces = [text[part[0][1][0] : part[-1][1][1]] for part in (head, tail) if part]
    ids = tuple(token for token, _ in (first, *head, *tail, last))
    return Read(ids, normalise(" ".join(pieces)), over)


def _of_system(outputs: Raw, collection: str, system: str | None) -> tuple[float, float]:
    if system is not None:
        place = 2 * SYSTEMS[collection].index(system)
        return outputs[place], outputs[place + 1]
    systems = len(outputs) // 2
    return sum(outputs[0::2]) / systems, sum(outputs[1::2]) / systems


def _clip(value: float) -> float:
    """NaN stays NaN, so that it is told and not served as a zero."""
    return value if math.isnan(value) else min(1.0, max(0.0, value))


def _read_heads(card: ModelCard, path: Path, width: int) -> dict[str, Head]:
    try:
        tensors = load_file(path)
        heads = {name: _head(tensors, name) for name in SYSTEMS}
    except (OSError, SafetensorError, KeyError) as error:
        raise CardError(f"{card.id}: {path} holds no heads of this family: {error}") from error
    for name, head in heads.items():
        outputs = 2 * max(1, len(SYSTEMS[name]))
        rows = (width, len(query_features.FEATURES), query_features.BINS)
        shapes = (head.embedding.shape, head.features.shape, head.ngrams.shape)
        if shapes != tuple((row, outputs) for row in rows):
            raise CardError(f"{card.id}: the head {name!r} in {path} has other shapes: {shapes}")
    return heads


def _head(tensors: Mapping[str, NDArray[Any]], name: str) -> Head:
    parts = ("intercept", "embedding", "features", "low", "high", "idf", "ngrams")
    return Head(**{part: tensors[f"{name}.{part}"].astype(np.float64) for part in parts})


def _fingerprint(
    files: ModelFiles, weights: Path, runtime: Runtime, encoder: SentenceEmbedding
) -> str:
    parts: dict[str, object] = {name: digest_of(weights / name) for name in FILES}
    parts |= {
        "heads": digest_of(files.folder / HEADS),
        "family": "video_qpp",
        "version": VERSION,
        "features": query_features.VERSION,
        "dtype": runtime.dtype,
    }
    if runtime.deterministic:
        parts["deterministic"] = encoder.decided_by
    return fingerprint_of(parts)
