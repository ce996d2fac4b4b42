"""ScoringService: resolve, prepare, cache, batch, finish. The one way to a score, whatever protocol
asked for it.
"""

import asyncio
import logging
import math
import traceback
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError

from assay.batching import Clock, Outcome
from assay.cache import ScoreCache, cache_key
from assay.errors import (
    AssayError,
    DeadlineExceeded,
    InvalidRequest,
    ModelFailed,
    ModelNotFound,
    ModelNotReady,
    NonFiniteScore,
    RequestTooLarge,
)
from assay.groups import summarise
from assay.hosting import ServedModel
from assay.metrics import Metrics
from assay.results import ItemFailure, ItemResult, ScoreReply, Source, Timing, Usage
from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, RewardModel, Score

logger = logging.getLogger(__name__)

T = TypeVar("T")
DEFAULT_OPTIONS = Options()
MAX_PROBLEMS = 20
LOADING_RETRY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ScoreCall:
    """What a protocol asks for.

    `items` hold the wire's fields, which the model's family checks; `substitute` is served, marked,
    for items that fail; `timeout` is in seconds, and None means the server's own.
    """

    model: str
    items: Sequence[Mapping[str, Any]]
    options: Options = DEFAULT_OPTIONS
    substitute: float | None = None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class ScoringLimits:
    """Bounds of one request, and how long it may take if it does not say (seconds)."""

    max_items: int
    max_request_tokens: int
    timeout: float


@dataclass(frozen=True, slots=True)
class _Row:
    """What became of one input, and where it came from."""

    value: Raw | AssayError
    source: Source
    queue_seconds: float = 0.0
    predict_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Case:
    """The items that are prepared together: one, or a group for a model that sees groups."""

    indices: tuple[int, ...]
    items: tuple[Item, ...]


class ScoringService:
    """Scores items with the served models.

    Args:
        models: by `name@version` and by bare name.
        cache: of raws.
        pool: where prepare runs.
        metrics: where counts go.
        limits: of one request.
        clock: monotonic seconds, the same as the batchers'.
    """

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        cache: ScoreCache,
        pool: Executor,
        metrics: Metrics,
        limits: ScoringLimits,
        clock: Clock,
    ) -> None:
        self._models = models
        self._cache = cache
        self._pool = pool
        self._metrics = metrics
        self._limits = limits
        self._clock = clock

    def find(self, reference: str) -> ServedModel:
        """The served model of that name, ready or not.

        Raises:
            ModelNotFound: nothing of that name is served.
        """
        served = self._models.get(reference)
        if served is None:
            known = ", ".join(sorted({one.id for one in self._models.values()})) or "none"
            raise ModelNotFound(f"no model {reference!r} is served", hint=f"served: {known}")
        return served

    def models(self) -> list[ServedModel]:
        """All served models, by id."""
        return sorted({*self._models.values()}, key=lambda served: served.id)

    async def score(self, call: ScoreCall) -> ScoreReply:
        """The scores of a request's items, in order, failures told item by item.

        Raises:
            AssayError: the request as a whole cannot be served; see each class.
        """
        began = self._clock()
        deadline = began + (call.timeout or self._limits.timeout)
        served = self.find(call.model)
        model = _loaded(served)
        items = self._validated(served.family.item, call.items)
        cases = _cases(model, items)
        prepare = partial(_prepare_all, model, cases, call.options)
        prepared = await asyncio.get_running_loop().run_in_executor(self._pool, prepare)
        prepared_at = self._clock()
        rows = await self._rows(served, model, prepared, deadline)
        results = list(_results(model, cases, prepared, rows, call))
        self._observe(served.id, results, prepared_at - began)
        grouped = any(item.group is not None for item in items)
        return ScoreReply(
            id=f"score-{uuid.uuid4().hex}",
            model=served.id,
            fingerprint=served.fingerprints[call.options],
            results=results,
            groups=summarise(results, served.card.resolution) if grouped else None,
            usage=_usage(results),
            timing=_timing(rows, prepared_at - began, self._clock() - began),
        )

    def _validated(self, schema: type[Item], items: Sequence[Mapping[str, Any]]) -> list[Item]:
        if len(items) > self._limits.max_items:
            raise RequestTooLarge(
                f"{len(items)} items, the limit is {self._limits.max_items}",
                hint="split the request",
            )
        valid: list[Item] = []
        problems: list[dict[str, str]] = []
        for index, fields in enumerate(items):
            try:
                valid.append(schema.model_validate(fields))
            except ValidationError as error:
                problems.extend(_problems(index, error))
        if problems:
            known = ", ".join(schema.model_fields)
            raise InvalidRequest(
                f"{problems[0]['field']}: {problems[0]['problem']}",
                hint=f"fields of an item of this model: {known}",
                problems=problems[:MAX_PROBLEMS],
            )
        return valid

    async def _rows(
        self,
        served: ServedModel,
        model: RewardModel,
        prepared: Sequence[Prepared | ItemFailure],
        deadline: float,
    ) -> list[_Row]:
        inputs = [one for case in prepared if isinstance(case, Prepared) for one in case.inputs]
        self._check_tokens(inputs)
        keys = [cache_key(model.fingerprint, one.key) for one in inputs]
        known = await self._cache.get_many(list(dict.fromkeys(keys)))
        missing = [(key, one) for key, one in zip(keys, inputs, strict=True) if key not in known]
        outcomes = iter(await self._computed(served, missing, deadline))
        return [_Row(known[key], "cache") if key in known else _row(next(outcomes)) for key in keys]

    async def _computed(
        self, served: ServedModel, missing: Sequence[tuple[bytes, Input]], deadline: float
    ) -> list[Outcome]:
        if not missing:
            return []
        assert served.batcher is not None
        outcomes = await served.batcher.compute(missing, deadline)
        new = {
            key: outcome.value
            for (key, _), outcome in zip(missing, outcomes, strict=True)
            if not isinstance(outcome.value, AssayError) and not outcome.shared
        }
        await self._cache.put_many(new)
        for outcome in outcomes:
            if isinstance(outcome.value, DeadlineExceeded):
                raise outcome.value
        return outcomes

    def _check_tokens(self, inputs: Sequence[Input]) -> None:
        tokens = sum(one.tokens for one in inputs)
        if tokens > self._limits.max_request_tokens:
            raise RequestTooLarge(
                f"{tokens} tokens, the limit is {self._limits.max_request_tokens}",
                hint="split the request",
            )

    def _observe(self, model: str, results: Sequence[ItemResult], prepare: float) -> None:
        self._metrics.phase_seconds.labels(model, "prepare").observe(prepare)
        for result in results:
            self._metrics.items.labels(model, result.source or "error").inc()
            if result.error is not None:
                self._metrics.item_errors.labels(model, result.error.code).inc()
            if "truncated" in result.flags:
                self._metrics.truncated.labels(model).inc()


def _loaded(served: ServedModel) -> RewardModel:
    if served.state == "failed":
        raise ModelFailed(f"{served.id} could not be loaded", hint=served.failure)
    if served.model is None:
        raise ModelNotReady(f"{served.id} is loading", retry_after=LOADING_RETRY_SECONDS)
    return served.model


def _problems(index: int, error: ValidationError) -> list[dict[str, str]]:
    return [
        {
            "field": ".".join(["items", str(index), *(str(part) for part in problem["loc"])]),
            "problem": problem["msg"],
        }
        for problem in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _cases(model: RewardModel, items: Sequence[Item]) -> list[_Case]:
    if model.sees == "item":
        return [_Case((index,), (item,)) for index, item in enumerate(items)]
    groups: dict[object, list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(index if item.group is None else item.group, []).append(index)
    return [_Case(tuple(group), tuple(items[i] for i in group)) for group in groups.values()]


def _prepare_all(
    model: RewardModel, cases: Sequence[_Case], options: Options
) -> list[Prepared | ItemFailure]:
    return [_guarded(partial(model.prepare, case.items, options)) for case in cases]


def _guarded(step: Callable[[], T]) -> T | ItemFailure:
    try:
        return step()
    except ItemError as error:
        return ItemFailure(error.code, error.detail)
    except Exception as error:  # noqa: BLE001 any text may upset a tokenizer or a template; only its own item may suffer
        frame = traceback.extract_tb(error.__traceback__)[-1]
        kind = type(error).__name__
        logger.error("%s in %s, line %s of %s", kind, frame.name, frame.lineno, frame.filename)
        return ItemFailure("item_failed", f"the model raised {kind} on this item")


def _row(outcome: Outcome) -> _Row:
    source: Source = "shared" if outcome.shared else "computed"
    return _Row(outcome.value, source, outcome.queue_seconds, outcome.predict_seconds)


def _results(
    model: RewardModel,
    cases: Sequence[_Case],
    prepared: Sequence[Prepared | ItemFailure],
    rows: Sequence[_Row],
    call: ScoreCall,
) -> Iterator[ItemResult]:
    placed: list[ItemResult] = []
    start = 0
    for case, ready in zip(cases, prepared, strict=True):
        count = len(ready.inputs) if isinstance(ready, Prepared) else 0
        own = rows[start : start + count]
        start += count
        outcome = _finished(model, ready, own, call.options)
        tokens = sum(one.tokens for one in ready.inputs) if isinstance(ready, Prepared) else 0
        for place, (index, item) in enumerate(zip(case.indices, case.items, strict=True)):
            one = outcome if isinstance(outcome, ItemFailure) else _finite(outcome[place])
            spent = tokens if place == 0 else 0
            placed.append(_result(index, item, one, spent, _source(own), call.substitute))
    return iter(sorted(placed, key=lambda result: result.index))


def _finished(
    model: RewardModel, prepared: Prepared | ItemFailure, rows: Sequence[_Row], options: Options
) -> Sequence[Score] | ItemFailure:
    if isinstance(prepared, ItemFailure):
        return prepared
    raws: list[Raw] = []
    for row in rows:
        if isinstance(row.value, AssayError):
            return ItemFailure(row.value.code, row.value.detail)
        raws.append(row.value)
    return _guarded(partial(model.finish, prepared, raws, options))


def _finite(score: Score) -> Score | ItemFailure:
    numbers = [score.score, *score.channels.values()]
    if all(map(math.isfinite, numbers)) and math.isfinite(score.raw or 0.0):
        return score
    return ItemFailure(NonFiniteScore.code, "the score is not a finite number")


def _source(rows: Sequence[_Row]) -> Source:
    sources = {row.source for row in rows}
    order: tuple[Source, ...] = ("computed", "shared", "cache")
    return next((source for source in order if source in sources), "rule")


def _result(
    index: int,
    item: Item,
    outcome: Score | ItemFailure,
    tokens: int,
    source: Source,
    substitute: float | None,
) -> ItemResult:
    if isinstance(outcome, ItemFailure):
        flags = [] if substitute is None else ["substituted"]
        return ItemResult(
            index,
            item.id,
            item.group,
            "error",
            substitute,
            None,
            {},
            flags,
            tokens,
            None,
            {},
            outcome,
        )
    return ItemResult(
        index=index,
        id=item.id,
        group=item.group,
        status="ok",
        score=outcome.score,
        raw=outcome.raw,
        channels=dict(outcome.channels),
        flags=list(outcome.flags),
        tokens=tokens,
        source=source,
        details=dict(outcome.details),
        error=None,
    )


def _usage(results: Sequence[ItemResult]) -> Usage:
    sources = [result.source for result in results]
    return Usage(
        items=len(results),
        tokens=sum(result.tokens for result in results),
        computed=sources.count("computed"),
        cached=sources.count("cache"),
        shared=sources.count("shared"),
        rule=sources.count("rule"),
        failed=sources.count(None),
    )


def _timing(rows: Sequence[_Row], prepare: float, total: float) -> Timing:
    return Timing(
        prepare_ms=round(prepare * 1e3, 3),
        queue_ms=round(max((row.queue_seconds for row in rows), default=0.0) * 1e3, 3),
        predict_ms=round(max((row.predict_seconds for row in rows), default=0.0) * 1e3, 3),
        total_ms=round(total * 1e3, 3),
    )
