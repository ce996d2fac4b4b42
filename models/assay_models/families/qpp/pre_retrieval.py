"""Query performance prediction for text-to-video retrieval, from the text of the query alone.

The task and the labels are those of VQPP (Lutu, Poesina and Ionescu 2026, arXiv 2602.17814). The
predictor reads a frozen sentence embedding, five word features, hashed word n-grams, and the cosine
similarities to the training queries (see `heads`).

QPP: query performance prediction. rr: the reciprocal rank of the relevant video. r10: recall at 10.
GRAM and VAST: the two text-to-video retrieval systems whose results were measured.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from safetensors import SafetensorError
from tokenizers import Encoding

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import CardError, ModelCard
from assay_models.families.classifier.device import usable_device
from assay_models.families.classifier.parity import ParityError
from assay_models.families.classifier.weight_files import read_tensors
from assay_models.families.qpp import rewrites
from assay_models.families.qpp.encoder import FILES, MAX_POSITIONS, SentenceEmbedding
from assay_models.families.qpp.features import VERSION as FEATURES_VERSION
from assay_models.families.qpp.features import QueryFeatures, read_features
from assay_models.families.qpp.heads import Head, read_head
from assay_models.families.qpp.query_text import has_letters, normalise, text_flags
from assay_models.items import VideoQppItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, digest_of, fingerprint_of

VERSION = 2
"""The version of this module's computation, a part of the fingerprint."""
HEADS = "heads.safetensors"
DEFAULT_COLLECTION = "msrvtt"
MIN_WORDS = 3

SYSTEMS: Mapping[str, tuple[str, ...]] = {
    "msrvtt": ("gram", "vast"),
    "vatex": ("gram", "vast"),
    "coco": (),
}
"""The retrieval systems that each collection has labels of; COCO's are means over two systems."""

_SPECIAL_TOKENS = 2
"""The tokens [CLS] and [SEP], which the tokenizer puts around every query."""


_Token = tuple[int, tuple[int, int]]
"""The id of a token, and the start and the end of its text."""


@dataclass(frozen=True, slots=True)
class VideoQppModel:
    """A model of the expected reciprocal rank and recall at 10, before any retrieval.

    With `is_row_wise` the neighbours of each query are computed separately, so that its results are
    bitwise identical in every batch.
    """

    fingerprint: str
    max_tokens: int
    _: KW_ONLY
    encoder: SentenceEmbedding
    heads: Mapping[str, Head]
    is_row_wise: bool
    runs: ClassVar[Literal["device"]] = "device"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "VideoQppModel":
        """Read the frozen encoder and the heads beside the card.

        Raises:
            CardError: there are no weights, the heads are not those of this family, or the device
                does not exist.
        """
        usable_device(card, runtime.device)
        if files.weights is None:
            raise CardError(f"{card.id}: `weights` must name the sentence encoder's folder")
        missing = [name for name in FILES if not (files.weights / name).is_file()]
        if missing:
            raise CardError(f"{card.id}: {', '.join(missing)} missing from {files.weights}")
        try:
            encoder = SentenceEmbedding.load(
                files.weights, runtime.device, runtime.dtype, runtime.deterministic
            )
        except ParityError as error:
            raise CardError(f"{card.id}: {error}") from error
        heads = _read_heads(card, files.folder / HEADS, encoder.width, runtime.device)
        return cls(
            _fingerprint(files, files.weights, runtime, encoder),
            min(card.limits.max_tokens, MAX_POSITIONS),
            encoder=encoder,
            heads=heads,
            is_row_wise=runtime.deterministic,
        )

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Normalise the text, then read the tokens and the features of one query.

        With an `original` there is one more row, and the query's own row keeps its embedding.
        """
        item = items[0]
        assert isinstance(item, VideoQppItem)
        collection = _collection(item)
        query = self._tokenize("query", item.query, options)
        original = None
        if item.original is not None:
            original = self._tokenize("original", item.original, options)
        features = read_features(query.text)
        rows = [_query_row(collection, query, features, original is not None)]
        if original is not None:
            rows.append(_original_row(original))
        return Prepared(
            tuple(rows),
            QueryState(collection, item.system, _changes(query, original)),
            _flags(item, features, query, original),
            _details(features, query, original),
        )

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of tokens that are computed; see `SentenceEmbedding.cost`."""
        return self.encoder.cost(inputs)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        """Compute the raws of queries and the embeddings of originals.

        A query has (rr, r10) of GRAM, then of VAST (for COCO one (rr, r10)), then the mean cosine
        of the four nearest training queries, and its embedding where the row keeps it. An original
        has its embedding.
        """
        if not inputs:
            return []
        rows: list[QueryRow] = [row.payload for row in inputs]
        embeddings = self.encoder.embed([row.ids for row in rows])
        outputs: dict[int, Raw] = {}
        for collection, indices, queries in self._by_head(rows):
            raws = self.heads[collection].raws(embeddings[indices], queries)
            outputs.update(zip(indices, raws, strict=True))
        return [
            (*outputs.get(index, ()), *(embedding.tolist() if row.keeps_embedding else ()))
            for index, (row, embedding) in enumerate(zip(rows, embeddings, strict=True))
        ]

    def _by_head(
        self, rows: Sequence["QueryRow"]
    ) -> Iterator[tuple[str, list[int], list[QueryFeatures]]]:
        """Yield the collection, the indices and the queries that one head reads at a time."""
        groups: dict[tuple[str, int], tuple[list[int], list[QueryFeatures]]] = {}
        for index, row in enumerate(rows):
            if row.query is not None:
                collection, features = row.query
                group = index if self.is_row_wise else 0
                indices, queries = groups.setdefault((collection, group), ([], []))
                indices.append(index)
                queries.append(features)
        for (collection, _), (indices, queries) in groups.items():
            yield collection, indices, queries

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Return the channels `rr` and `r10` of the item's system, clipped to 0..1, and their mean.

        Without a system they are the means of both. The score is their mean, the raw the same mean
        before clipping. The flag `out_of_domain` says that no similar query was used in training.
        With an `original` there are also the channels `similarity`, `length_change` and `novelty`
        of the module `rewrites`; the score does not depend on them.
        """
        query, *originals = raws
        state: QueryState = prepared.state
        count = 2 * max(1, len(SYSTEMS[state.collection]))
        outputs, nearest, embedding = query[:count], query[count], query[count + 1 :]
        rr, r10 = _system_outputs(outputs, state.collection, state.system)
        channels = {"rr": _clip(rr), "r10": _clip(r10)}
        raw = (rr + r10) / 2
        score = raw if options.raw else (channels["rr"] + channels["r10"]) / 2
        for original in originals:
            channels["similarity"] = rewrites.similarity(embedding, original)
        flags, details = prepared.flags, {**prepared.details, "nearest": round(nearest, 4)}
        if nearest < self.heads[state.collection].domain_threshold:
            flags = (*flags, "out_of_domain")
        channels |= state.changes
        return [Score(score, raw, channels=channels, flags=flags, details=details)]

    def _tokenize(self, field: str, query: str, options: Options) -> "TokenizedQuery":
        text = normalise(query)
        encoding = self.encoder.tokenize(text)
        if len(encoding.ids) <= _SPECIAL_TOKENS or not has_letters(text):
            raise ItemError(
                "empty_query", f"`{field}` holds no word of letters: send a text to be searched"
            )
        flags = text_flags(query, encoding.word_ids)
        excess = len(encoding.ids) - self.max_tokens
        if excess <= 0:
            return TokenizedQuery(tuple(encoding.ids), text, 0, flags)
        if options.truncation == "error":
            raise ItemError(
                "input_too_long",
                f"`{field}` is {excess} tokens over the limit of {self.max_tokens}: "
                "shorten it, or set `options.truncation` to left, right or middle",
            )
        ids, text = _truncate(encoding, text, excess, options.truncation)
        return TokenizedQuery(ids, text, excess, flags)


@dataclass(frozen=True, slots=True)
class TokenizedQuery:
    """A query as it is scored: token ids with both special tokens, their text, the number of
    tokens that were cut, and the flags of the text."""

    ids: tuple[int, ...]
    text: str
    truncated: int
    flags: tuple[str, ...]


class QueryRow(NamedTuple):
    """The payload of one row. `query`: the collection and the features of a query; None for an
    original, of which only the embedding is needed."""

    query: tuple[str, QueryFeatures] | None
    ids: tuple[int, ...]
    keeps_embedding: bool


@dataclass(frozen=True, slots=True)
class QueryState:
    """The state of an item for `finish`; `changes` are the channels that need no embedding."""

    collection: str
    system: str | None
    changes: Mapping[str, float]


def _query_row(
    collection: str, query: TokenizedQuery, features: QueryFeatures, keeps_embedding: bool
) -> Input:
    # A raw with the embedding has a key of its own, different from that of a raw without it.
    key = _key(f"{collection} embedding" if keeps_embedding else collection, query)
    row = QueryRow((collection, features), query.ids, keeps_embedding)
    return Input(key, len(query.ids), row)


def _original_row(original: TokenizedQuery) -> Input:
    row = QueryRow(None, original.ids, keeps_embedding=True)
    return Input(_key("embedding", original), len(original.ids), row)


def _changes(query: TokenizedQuery, original: TokenizedQuery | None) -> dict[str, float]:
    if original is None:
        return {}
    return {
        "length_change": rewrites.length_change(query.text, original.text),
        "novelty": rewrites.novelty(query.text, original.text),
    }


def _details(
    features: QueryFeatures, query: TokenizedQuery, original: TokenizedQuery | None
) -> dict[str, Any]:
    details: dict[str, Any] = {"words": features.words}
    if query.truncated:
        details["truncated_tokens"] = query.truncated
    if original is not None and original.truncated:
        details["truncated_tokens_of_original"] = original.truncated
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
    item: VideoQppItem,
    features: QueryFeatures,
    query: TokenizedQuery,
    original: TokenizedQuery | None,
) -> tuple[str, ...]:
    truncated = query.truncated + (0 if original is None else original.truncated)
    conditions = {
        "default_collection": item.collection is None,
        "very_short": features.words < MIN_WORDS,
        "truncated": truncated > 0,
    }
    of_texts = query.flags if original is None else (*query.flags, *original.flags)
    return (*(flag for flag, holds in conditions.items() if holds), *dict.fromkeys(of_texts))


def _key(collection: str, query: TokenizedQuery) -> bytes:
    ids = np.array(query.ids, dtype="<u4").tobytes()
    length = len(query.ids).to_bytes(4, "big")
    return b"\0".join((collection.encode(), length, ids, query.text.encode()))


def _truncate(encoding: Encoding, text: str, excess: int, side: str) -> tuple[tuple[int, ...], str]:
    first, *inner, last = zip(encoding.ids, encoding.offsets, strict=True)
    kept = len(inner) - excess
    at_start = {"right": kept, "left": 0, "middle": (kept + 1) // 2}[side]
    head, tail = inner[:at_start], inner[len(inner) - (kept - at_start) :]
    pieces = [_text_between(text, part[0], part[-1]) for part in (head, tail) if part]
    ids = tuple(token for token, _ in (first, *head, *tail, last))
    return ids, normalise(" ".join(pieces))


def _text_between(text: str, first: _Token, last: _Token) -> str:
    (_, (start, _)), (_, (_, stop)) = first, last
    return text[start:stop]


def _system_outputs(
    outputs: Sequence[float], collection: str, system: str | None
) -> tuple[float, float]:
    if system is not None:
        index = 2 * SYSTEMS[collection].index(system)
        return outputs[index], outputs[index + 1]
    systems = len(outputs) // 2
    return sum(outputs[0::2]) / systems, sum(outputs[1::2]) / systems


def _clip(value: float) -> float:
    """Clip to 0..1; NaN stays NaN, so that it is reported and not served as a zero."""
    return value if math.isnan(value) else min(1.0, max(0.0, value))


def _read_heads(card: ModelCard, path: Path, width: int, device: str) -> dict[str, Head]:
    try:
        tensors = {name: tensor.numpy() for name, tensor in read_tensors(path).items()}
        return {
            name: read_head(
                tensors, name, width=width, outputs=2 * max(1, len(systems)), device=device
            )
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
        parts["deterministic"] = encoder.environment
    return fingerprint_of(parts)
