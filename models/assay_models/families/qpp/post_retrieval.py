"""Query performance prediction from the list that a retrieval system returned.

This is post-retrieval prediction without learning: each predictor of `predictors` is a channel. It
needs no weights and no torch.
"""

import hashlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import ModelCard
from assay_models.families.qpp import predictors
from assay_models.families.qpp.features import words_of
from assay_models.families.qpp.predictors import Rows, Scores
from assay_models.families.qpp.query_text import has_unseen, normalise
from assay_models.items import RetrievalQppItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of

VERSION = 2
NUMBERS_PER_TOKEN = 16
"""The numbers of embeddings that count as one token; a score counts as one by itself."""

Predictor = Literal[
    "score_deviation",
    "wig",
    "nqc",
    "smv",
    "sigma_max",
    "sigma_half",
    "top_gap",
    "coherence",
    "autocorrelation",
    "clarity",
    "query_fit",
]
NAMES: tuple[Predictor, ...] = get_args(Predictor)
"""The predictors in the order of the bits of a raw's first number."""
_SCORE_PREDICTORS = NAMES[: NAMES.index("coherence")]
_EMBEDDING_PREDICTORS = NAMES[NAMES.index("coherence") : NAMES.index("query_fit")]

SIGMA_SHARE = 0.5

Depth = Annotated[int, Field(ge=1, le=1000)]


class PredictorOptions(BaseModel):
    """`[options]` of a card of this family: the number of results that count (WIG has a number of
    its own), the channel that is the score, and the temperature of `clarity`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: Depth = 100
    wig_depth: Depth = 5
    score: Predictor = "score_deviation"
    temperature: Annotated[float, Field(gt=0, le=100)] = 0.1


class RetrievedList(NamedTuple):
    """The input of the predictors. Shapes: `scores` (n,), of the whole list; `rows` (k, d) and
    `query` (d,), embeddings of length 1."""

    scores: Scores
    depth: int
    words: int
    corpus: float | None
    rows: Rows | None
    query: Rows | None


@dataclass(frozen=True, slots=True)
class RetrievalQppModel:
    """Predictors of a retrieved list; the score is the one that the card names."""

    fingerprint: str
    max_tokens: int
    options: PredictorOptions
    runs: ClassVar[Literal["device"]] = "device"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "RetrievalQppModel":
        """Read the card's options; there is nothing else to read.

        Raises:
            CardError: an option is unknown or out of its range.
        """
        options = card.options_as(PredictorOptions)
        parts = {"family": "retrieval_qpp", "version": VERSION, **options.model_dump()}
        return cls(fingerprint_of(parts), card.limits.max_tokens, options)

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Check the list, and convert it to arrays."""
        item = items[0]
        assert isinstance(item, RetrievalQppItem)
        retrieved = self._read(item)
        tokens = _tokens(retrieved)
        if tokens > self.max_tokens:
            raise ItemError(
                "input_too_long",
                f"the list counts {tokens} tokens, the limit is {self.max_tokens}: lower `depth`, "
                "or send shorter embeddings",
            )
        conditions = {
            "corpus_from_list": item.corpus_score is None,
            "short_list": len(item.results) < self._depth(item),
            "hidden_characters": has_unseen(item.query),
        }
        return Prepared(
            (Input(_key(retrieved), tokens, retrieved),),
            _expected(retrieved),
            flags=tuple(flag for flag, holds in conditions.items() if holds),
            details={
                "results": len(item.results),
                "depth": retrieved.depth,
                "words": retrieved.words,
            },
        )

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of all tokens: nothing is padded."""
        return sum(row.tokens for row in inputs)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        """Compute for each list a number whose bits say which of `NAMES` are defined, then these.

        Each list is computed by itself, so that its bits do not depend on the others.
        """
        with np.errstate(all="ignore"):  # the caller refuses numbers that are not finite
            return [_packed(self._values(row.payload)) for row in inputs]

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Return every defined predictor as a channel.

        `details.undefined` names those that are not defined although their inputs were sent.

        Raises:
            ItemError: the predictor that is the score is not defined for this list.
        """
        ((bits, *values),) = raws
        defined = [name for index, name in enumerate(NAMES) if int(bits) >> index & 1]
        channels: dict[str, float] = dict(zip(defined, values, strict=True))
        undefined = [name for name in prepared.state if name not in channels]
        main = self.options.score
        if main not in channels:
            raise ItemError("undefined_predictor", f"`{main}` needs {NEEDS[main]}")
        details = {**prepared.details, "undefined": undefined}
        return [
            Score(
                channels[main],
                channels[main],
                channels=channels,
                flags=prepared.flags,
                details=details,
            )
        ]

    def _depth(self, item: RetrievalQppItem) -> int:
        return item.depth if item.depth is not None else self.options.depth

    def _read(self, item: RetrievalQppItem) -> RetrievedList:
        words = len(words_of(normalise(item.query)))
        if words == 0:
            raise ItemError("empty_query", "`query` holds no word: send the text that was searched")
        if not item.results:
            raise ItemError("undefined_predictor", "`results` is empty: there is nothing to score")
        scores = np.array([result.score for result in item.results], dtype=np.float64)
        rises = np.flatnonzero(scores[1:] > scores[:-1])
        if len(rises):
            raise ItemError(
                "invalid_item",
                f"`results` come best first, but number {rises[0] + 2} scores higher than the one "
                "before it: sort them, and send distances with a minus sign",
            )
        depth = min(self._depth(item), len(scores))
        rows = _rows(item, depth)
        return RetrievedList(
            scores,
            depth,
            words=words,
            corpus=item.corpus_score,
            rows=rows,
            query=_query(item, rows),
        )

    def _values(self, retrieved: RetrievedList) -> Iterator[float | None]:
        """Yield the predictors in the order of `NAMES`; None for one that is not defined."""
        scores, corpus = retrieved.scores, retrieved.corpus
        best = scores[: retrieved.depth]
        if corpus is None:
            corpus = predictors.mean(scores)
        gains = best[: self.options.wig_depth]
        yield predictors.deviation(best)
        yield predictors.wig(gains, corpus, retrieved.words)
        yield predictors.nqc(best, corpus) if corpus else None
        yield predictors.smv(best, corpus) if corpus and best[-1] > 0 else None
        yield predictors.sigma_max(scores)
        yield predictors.sigma_share(scores, SIGMA_SHARE) if scores[0] > 0 else None
        yield predictors.top_gap(scores) if len(scores) > 1 else None
        yield from self._embedding_values(retrieved)

    def _embedding_values(self, retrieved: RetrievedList) -> Iterator[float | None]:
        rows, query = retrieved.rows, retrieved.query
        if rows is None:
            yield from (None, None, None, None)
            return
        best = retrieved.scores[: retrieved.depth]
        yield predictors.coherence(rows)
        yield predictors.autocorrelation(best, rows)
        yield predictors.clarity(best, rows, self.options.temperature)
        yield None if query is None else predictors.query_fit(query, rows)


_EMBEDDED = "an embedding of each result within the depth, and"
NEEDS: Mapping[Predictor, str] = {
    "score_deviation": "a score",
    "wig": "a score",
    "nqc": "a score of the corpus that is not 0",
    "smv": "scores above 0 within the depth, and a score of the corpus that is not 0",
    "sigma_max": "a score",
    "sigma_half": "a best score above 0",
    "top_gap": "two results",
    "coherence": f"{_EMBEDDED} two results",
    "autocorrelation": f"{_EMBEDDED} three that are alike, with different scores",
    "clarity": f"{_EMBEDDED} two results",
    "query_fit": f"{_EMBEDDED} `query_embedding`",
}
"""The inputs that each predictor needs to be defined."""


def _expected(retrieved: RetrievedList) -> tuple[Predictor, ...]:
    """Return the predictors whose inputs were sent."""
    names = _SCORE_PREDICTORS
    if retrieved.rows is not None:
        names = (*names, *_EMBEDDING_PREDICTORS)
    return names if retrieved.query is None else (*names, "query_fit")


def _rows(item: RetrievalQppItem, depth: int) -> Rows | None:
    embeddings = [result.embedding for result in item.results[:depth]]
    present = [embedding for embedding in embeddings if embedding is not None]
    if not present:
        return None
    if len(present) < depth:
        raise ItemError(
            "invalid_item",
            f"{len(present)} of the {depth} results within the depth have an `embedding`: "
            "give one to each of them, or to none",
        )
    if len({len(embedding) for embedding in present}) > 1:
        raise ItemError("invalid_item", "the results' embeddings are of different lengths")
    rows = np.array(present, dtype=np.float64)
    if not rows.any(axis=1).all():
        raise ItemError("invalid_item", "an embedding holds nothing but zeros: it has no direction")
    return predictors.unit(rows)


def _query(item: RetrievalQppItem, rows: Rows | None) -> Rows | None:
    if item.query_embedding is None:
        return None
    if rows is None:
        raise ItemError("invalid_item", "`query_embedding` is of no use without the results'")
    query = np.array(item.query_embedding, dtype=np.float64)
    if len(query) != rows.shape[1] or not query.any():
        raise ItemError(
            "invalid_item",
            f"`query_embedding` must have {rows.shape[1]} numbers as the results' have, not all 0",
        )
    return predictors.unit(query)


def _tokens(retrieved: RetrievedList) -> int:
    numbers = 0 if retrieved.rows is None else retrieved.rows.size
    numbers += 0 if retrieved.query is None else retrieved.query.size
    return len(retrieved.scores) + -(-numbers // NUMBERS_PER_TOKEN)


def _key(retrieved: RetrievedList) -> bytes:
    scores, rows, query = retrieved.scores, retrieved.rows, retrieved.query
    shape = (0, 0) if rows is None else rows.shape
    lengths = (len(scores), *shape, 0 if query is None else len(query))
    digest = hashlib.sha256(struct.pack(">6Q", *lengths, retrieved.depth, retrieved.words))
    digest.update(b"" if retrieved.corpus is None else struct.pack(">d", retrieved.corpus))
    for part in (scores, rows, query):
        digest.update(b"" if part is None else part.astype("<f8").tobytes())
    return digest.digest()


def _packed(values: Iterator[float | None]) -> Raw:
    listed = list(values)
    bits = sum(1 << index for index, value in enumerate(listed) if value is not None)
    return (float(bits), *(value for value in listed if value is not None))
