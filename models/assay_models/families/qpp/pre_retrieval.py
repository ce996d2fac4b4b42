"""How well a text-to-video retrieval system will do on a query, foretold from its text alone.

The task and the labels are those of VQPP (Lutu, Poesina and Ionescu 2026, arXiv 2602.17814). The
predictor reads a frozen sentence embedding, five word features, hashed word n-grams, and how near
the queries lie whose labels are known (`query_heads`).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Encoding

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import CardError, ModelCard
from assay_models.families.classifier.parity import NotRight
from assay_models.families.qpp import rewrites
from assay_models.families.qpp.encoder import FILES, LONGEST, SentenceEmbedding
from assay_models.families.qpp.features import VERSION as FEATURES_VERSION
from assay_models.families.qpp.features import QueryFeatures, normalise, read_features
from assay_models.families.qpp.heads import Head, head_of
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
        """Normalise white space, then read the tokens and the features of one query.

        With an `original` there is one row more, and the query's own row keeps its embedding.
        """
        item = items[0]
        assert isinstance(item, VideoQppItem)
        collection = _collection(item)
        text = self._read("query", item.query, options)
        original = None
        if item.original is not None:
            original = self._read("original", item.original, options)
        features = read_features(text.kept)
        rows = [_query_row(collection, text, features, original is not None)]
        if original is not None:
            rows.append(_original_row(original))
        return Prepared(
            tuple(rows),
            Asked(collection, item.system, _changes(text, original)),
            _flags(item, features, text, original),
            _details(features, text, original),
        )

    def cost(self, inputs: Sequence[Input]) -> int:
        """See `SentenceEmbedding.cost`."""
        return self.encoder.cost(inputs)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        """(rr, r10) of GRAM, then of VAST, for each query (for COCO one (rr, r10)), then how near
        the four nearest known queries are, and its embedding where that is asked for. Of an
        original, the embedding."""
        if not inputs:
            return []
        asked: list[Row] = [one.payload for one in inputs]
        embeddings = self.encoder.embed([row.ids for row in asked])
        found: dict[int, Raw] = {}
        for collection, places, queries in self._together(asked):
            raws = self.heads[collection].raws(embeddings[places], queries)
            found.update(zip(places, raws, strict=True))
        return [
            (*found.get(place, ()), *(embedding.tolist() if row.keeps_embedding else ()))
            for place, (row, embedding) in enumerate(zip(asked, embeddings, strict=True))
        ]

    def _together(
        self, asked: Sequence["Row"]
    ) -> Iterator[tuple[str, list[int], list[QueryFeatures]]]:
        """What one head reads at a time: the collection, places among the rows, and queries."""
        lots: dict[tuple[str, int], tuple[list[int], list[QueryFeatures]]] = {}
        for place, row in enumerate(asked):
            if row.foretold is not None:
                collection, features = row.foretold
                lot = place if self.alone else 0
                places, queries = lots.setdefault((collection, lot), ([], []))
                places.append(place)
                queries.append(features)
        for (collection, _), (places, queries) in lots.items():
            yield collection, places, queries

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Channels `rr` and `r10` of the item's system (the mean of both where it names none),
        clipped to 0..1; the score is their mean, the raw the same mean before clipping. The flag
        `out_of_domain` says that no query like it had a part in training.

        With an `original` there are besides `similarity`, `length_change` and `novelty` of the
        module `rewriting`; the score has no part of them."""
        query, *originals = raws
        asked: Asked = prepared.state
        count = 2 * max(1, len(SYSTEMS[asked.collection]))
        outputs, nearest, embedding = query[:count], query[count], query[count + 1 :]
        rr, r10 = _of_system(outputs, asked.collection, asked.system)
        channels = {"rr": _clip(rr), "r10": _clip(r10)}
        raw = (rr + r10) / 2
        score = raw if options.raw else (channels["rr"] + channels["r10"]) / 2
        for original in originals:
            channels["similarity"] = rewrites.similarity(embedding, original)
        flags, details = prepared.flags, {**prepared.details, "nearest": round(nearest, 4)}
        if nearest < self.heads[asked.collection].domain:
            flags = (*flags, "out_of_domain")
        return [Score(score, raw, {**channels, **asked.changes}, flags, details)]

    def _read(self, field: str, given: str, options: Options) -> "Read":
        text = normalise(given)
        encoding = self.encoder.tokenize(text)
        if len(encoding.ids) <= _MARKERS:
            raise ItemError("empty_query", f"`{field}` holds no word: send a text to be searched")
        over = len(encoding.ids) - self.max_tokens
        if over <= 0:
            return Read(tuple(encoding.ids), text, 0)
        if options.truncation == "error":
            raise ItemError(
                "input_too_long",
                f"`{field}` is {over} tokens over the limit of {self.max_tokens}: "
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


class Row(NamedTuple):
    """The payload of one row. `foretold`: the collection and the features of a query; None for an
    original, of which only the embedding is wanted."""

    foretold: tuple[str, QueryFeatures] | None
    ids: tuple[int, ...]
    keeps_embedding: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """What `finish` needs of an item; `changes` are the channels that need no embedding."""

    collection: str
    system: str | None
    changes: Mapping[str, float]


def _query_row(
    collection: str, text: Read, features: QueryFeatures, keeps_embedding: bool
) -> Input:
    # A raw that holds the embedding has a key of its own: the other has it not.
    key = _key(f"{collection} embedding" if keeps_embedding else collection, text)
    return Input(key, len(text.ids), Row((collection, features), text.ids, keeps_embedding))


def _original_row(text: Read) -> Input:
    return Input(_key("embedding", text), len(text.ids), Row(None, text.ids, keeps_embedding=True))


def _changes(text: Read, original: Read | None) -> dict[str, float]:
    if original is None:
        return {}
    return {
        "length_change": rewrites.length_change(text.kept, original.kept),
        "novelty": rewrites.novelty(text.kept, original.kept),
    }


def _details(features: QueryFeatures, text: Read, original: Read | None) -> dict[str, Any]:
    details: dict[str, Any] = {"words": features.words}
    if text.cut:
        details["truncated_tokens"] = text.cut
    if original is not None and original.cut:
        details["truncated_tokens_of_original"] = original.cut
    return details


def _collection(item: VideoQppItem) -> str:
    collection = item.collection or DEFAULT_COLLECTION
    if item.results is not None:
        raise ItemError(
            "unsupported",
            "this model reads the query alone: send no `results`, or send them to `retrieval-qpp`",
        )
    if item.system is not None and item.system not in SYSTEMS[collection]:
        raise ItemError("invalid_item", f"`{collection}` has no single system: send no `system`")
    return collection


def _flags(
    item: VideoQppItem, features: QueryFeatures, text: Read, original: Read | None
) -> tuple[str, ...]:
    cut = text.cut + (0 if original is None else original.cut)
    raised = {
        "default_collection": item.collection is None,
        "very_short": features.words < FEWEST_WORDS,
        "truncated": cut > 0,
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
        "features": FEATURES_VERSION,
        "dtype": runtime.dtype,
    }
    if runtime.deterministic:
        parts["deterministic"] = encoder.decided_by
    return fingerprint_of(parts)
