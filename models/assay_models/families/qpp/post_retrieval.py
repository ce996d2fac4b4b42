"""How well a query was answered, from the list that a retrieval system returned for it.

Post-retrieval query performance prediction without learning: the predictors of
`predictors`, each a channel. No weights and no torch.
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
from assay_models.items import RetrievalQppItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of

VERSION = 1
NUMBERS_PER_TOKEN = 16
"""Numbers of embeddings that are counted as one token; a score is one by itself."""

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
"""In the order of the bits of a raw's first number."""
_OF_SCORES = NAMES[: NAMES.index("coherence")]
_OF_EMBEDDINGS = NAMES[NAMES.index("coherence") : NAMES.index("query_fit")]

SIGMA_SHARE = 0.5

Depth = Annotated[int, Field(ge=1, le=1000)]


class PredictorOptions(BaseModel):
    """What a card of this family may set: how many results count (WIG's number is its own), the
    channel that is the score, and the temperature of `clarity`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    depth: Depth = 100
    wig_depth: Depth = 5
    score: Predictor = "score_deviation"
    temperature: Annotated[float, Field(gt=0, le=100)] = 0.1


class Retrieved(NamedTuple):
    """What the predictors read. Shapes: `scores` (n,), of the whole list; `rows` (k, d) and `query`
    (d,), embeddings of length 1."""

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
        """Read the card's options; there is nothing else.

        Raises:
            CardError: an option is unknown or out of its range.
        """
        options = card.options_as(PredictorOptions)
        parts = {"family": "retrieval_qpp", "version": VERSION, **options.model_dump()}
        return cls(fingerprint_of(parts), card.limits.max_tokens, options)

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Check that the list is one, and bring it to arrays."""
        item = items[0]
        assert isinstance(item, RetrievalQppItem)
        read = self._read(item)
        tokens = _tokens(read)
        if tokens > self.max_tokens:
            raise ItemError(
                "input_too_long",
                f"the list counts {tokens} tokens, the limit is {self.max_tokens}: lower `depth`, "
                "or send shorter embeddings",
            )
        raised = {
            "corpus_from_list": item.corpus_score is None,
            "short_list": len(item.results) < self._asked(item),
        }
        return Prepared(
            (Input(_key(read), tokens, read),),
            _expected(read),
            flags=tuple(flag for flag, holds in raised.items() if holds),
            details={"results": len(item.results), "depth": read.depth, "words": read.words},
        )

    def cost(self, inputs: Sequence[Input]) -> int:
        """Nothing is padded."""
        return sum(one.tokens for one in inputs)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        """For each list a number whose bits say which of `NAMES` are defined, then those that are.

        Each list is computed by itself, so no other one decides a bit.
        """
        with np.errstate(all="ignore"):  # what is not finite is refused by whoever asked
            return [_packed(self._values(one.payload)) for one in inputs]

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Every predictor that is defined as a channel. `details.undefined` names those that are
        not, although what they read was sent.

        Raises:
            ItemError: the one that is the score is not defined for this list.
        """
        ((bits, *values),) = raws
        defined = [name for place, name in enumerate(NAMES) if int(bits) >> place & 1]
        channels: dict[str, float] = dict(zip(defined, values, strict=True))
        undefined = [name for name in prepared.state if name not in channels]
        main = self.options.score
        if main not in channels:
            raise ItemError("undefined_predictor", f"`{main}` needs {NEEDS[main]}")
        details = {**prepared.details, "undefined": undefined}
        return [Score(channels[main], channels[main], channels, prepared.flags, details)]

    def _asked(self, item: RetrievalQppItem) -> int:
        return item.depth if item.depth is not None else self.options.depth

    def _read(self, item: RetrievalQppItem) -> Retrieved:
        words = len(words_of(item.query))
        if words == 0:
            raise ItemError("empty_query", "`query` holds no word: send the text that was searched")
        if not item.results:
            raise ItemError("undefined_predictor", "`results` is empty: nothing was found to judge")
        scores = np.array([result.score for result in item.results], dtype=np.float64)
        rises = np.flatnonzero(scores[1:] > scores[:-1])
        if len(rises):
            raise ItemError(
                "invalid_item",
                f"`results` come best first, but number {rises[0] + 2} scores higher than the one "
                "before it: sort them, and send distances with a minus sign",
            )
        depth = min(self._asked(item), len(scores))
        rows = _rows(item, depth)
        return Retrieved(scores, depth, words, item.corpus_score, rows, _query(item, rows))

    def _values(self, read: Retrieved) -> Iterator[float | None]:
        """In the order of `NAMES`."""
        best, corpus = read.scores[: read.depth], read.corpus
        if corpus is None:
            corpus = predictors.mean(read.scores)
        gains = best[: self.options.wig_depth]
        yield predictors.deviation(best)
        yield predictors.wig(gains, corpus, read.words)
        yield predictors.nqc(best, corpus) if corpus else None
        yield predictors.smv(best, corpus) if corpus and best[-1] > 0 else None
        yield predictors.sigma_max(read.scores)
        positive = read.scores[0] > 0
        yield predictors.sigma_share(read.scores, SIGMA_SHARE) if positive else None
        yield predictors.top_gap(read.scores) if len(read.scores) > 1 else None
        yield from self._of_embeddings(read)

    def _of_embeddings(self, read: Retrieved) -> Iterator[float | None]:
        if read.rows is None:
            yield from (None, None, None, None)
            return
        best = read.scores[: read.depth]
        yield predictors.coherence(read.rows)
        yield predictors.autocorrelation(best, read.rows)
        yield predictors.clarity(best, read.rows, self.options.temperature)
        yield None if read.query is None else predictors.query_fit(read.query, read.rows)


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
"""What each predictor is not defined without."""


def _expected(read: Retrieved) -> tuple[Predictor, ...]:
    """The predictors whose inputs were sent."""
    of_embeddings = () if read.rows is None else _OF_EMBEDDINGS
    return (*_OF_SCORES, *of_embeddings, *(() if read.query is None else ("query_fit",)))


def _rows(item: RetrievalQppItem, depth: int) -> Rows | None:
    found = [result.embedding for result in item.results[:depth]]
    if all(embedding is None for embedding in found):
        return None
    present = [embedding for embedding in found if embedding is not None]
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


def _tokens(read: Retrieved) -> int:
    numbers = 0 if read.rows is None else read.rows.size
    numbers += 0 if read.query is None else read.query.size
    return len(read.scores) + -(-numbers // NUMBERS_PER_TOKEN)


def _key(read: Retrieved) -> bytes:
    shape = (0, 0) if read.rows is None else read.rows.shape
    lengths = (len(read.scores), *shape, 0 if read.query is None else len(read.query))
    digest = hashlib.sha256(struct.pack(">6Q", *lengths, read.depth, read.words))
    digest.update(b"" if read.corpus is None else struct.pack(">d", read.corpus))
    for part in (read.scores, read.rows, read.query):
        digest.update(b"" if part is None else part.astype("<f8").tobytes())
    return digest.digest()


def _packed(values: Iterator[float | None]) -> Raw:
    found = list(values)
    bits = sum(1 << place for place, value in enumerate(found) if value is not None)
    return (float(bits), *(value for value in found if value is not None))
