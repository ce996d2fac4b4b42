"""How well a text-to-video retrieval system will do on a query, foretold from its text alone.

The task and the labels are those of VQPP (Lutu, Poesina and Ionescu 2026, arXiv 2602.17814). The
predictor reads a frozen sentence embedding, five word features, hashed word n-grams, and how near
the queries lie whose labels are known (`query_heads`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Encoding

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import CardError, ModelCard
from assay_models.families import query_features
from assay_models.families.parity import NotRight
from assay_models.families.query_features import QueryFeatures, normalise, read_features
from assay_models.families.query_heads import Head, head_of
from assay_models.families.sentence_embedding import FILES, LONGEST, SentenceEmbedding
from assay_models.items import VideoQppItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, digest_of, fingerprint_of

VERSION = 2
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
class VideoQppModel:
    """Expected reciprocal rank and recall at 10, before any retrieval.

    `alone`: every query's neighbours are looked up by themselves, so that no other one in the batch
    decides a bit.
    """

    fingerprint: str
    max_tokens: int
    encoder: SentenceEmbedding
    heads: Mapping[str, Head]
    alone: bool
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
        heads = _read_heads(card, files.folder / HEADS, encoder.width, runtime.device)
        return cls(
            _fingerprint(files, files.weights, runtime, encoder),
            min(card.limits.max_tokens, LONGEST),
            encoder,
            heads,
            runtime.deterministic,
        )

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
        """(rr, r10) of GRAM, then of VAST, for each input (for COCO one (rr, r10)), and last how
        near the four nearest known queries are."""
        if not inputs:
            return []
        embeddings = self.encoder.embed([one.payload[1] for one in inputs])
        found: dict[int, Raw] = {}
        for collection, rows in self._together(inputs):
            queries = [inputs[row].payload[2] for row in rows]
            raws = self.heads[collection].raws(embeddings[rows], queries)
            found.update(zip(rows, raws, strict=True))
        return [found[row] for row in range(len(inputs))]

    def _together(self, inputs: Sequence[Input]) -> Iterator[tuple[str, list[int]]]:
        collections = [one.payload[0] for one in inputs]
        if self.alone:
            yield from ((collection, [row]) for row, collection in enumerate(collections))
            return
        for collection in dict.fromkeys(collections):
            yield collection, [row for row, one in enumerate(collections) if one == collection]

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Channels `rr` and `r10` of the item's system (the mean of both where it names none),
        clipped to 0..1; the score is their mean, the raw the same mean before clipping. The flag
        `out_of_domain` says that no query like it had a part in training."""
        ((*outputs, nearest),) = raws
        collection, system = prepared.state
        rr, r10 = _of_system(outputs, collection, system)
        channels = {"rr": _clip(rr), "r10": _clip(r10)}
        raw = (rr + r10) / 2
        score = raw if options.raw else (channels["rr"] + channels["r10"]) / 2
        flags, details = prepared.flags, {**prepared.details, "nearest": round(nearest, 4)}
        if nearest < self.heads[collection].domain:
            flags = (*flags, "out_of_domain")
        return [Score(score, raw, channels, flags, details)]

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


def _of_system(
    outputs: Sequence[float], collection: str, system: str | None
) -> tuple[float, float]:
    if system is not None:
        place = 2 * SYSTEMS[collection].index(system)
        return outputs[place], outputs[place + 1]
    systems = len(outputs) // 2
    return sum(outputs[0::2]) / systems, sum(outputs[1::2]) / systems


def _clip(value: float) -> float:
    """NaN stays NaN, so that it is told and not served as a zero."""
    return value if math.isnan(value) else min(1.0, max(0.0, value))


def _read_heads(card: ModelCard, path: Path, width: int, device: str) -> dict[str, Head]:
    try:
        tensors = load_file(path)
        return {
            name: head_of(tensors, name, width, 2 * max(1, len(systems)), device)
            for name, systems in SYSTEMS.items()
        }
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CardError(f"{card.id}: {path} holds no heads of this family: {error}") from error


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
