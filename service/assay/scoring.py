"""ScoringService: resolve, prepare, cache, batch, finish. The one way to a score, whatever protocol
asked for it.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

from prometheus_client import Counter, Histogram
from pydantic import ValidationError

from assay.batching import Clock, Outcome
from assay.cache import PreparedCache, Ready, ScoreCache, digest_of, make_ready
from assay.errors import (
    AssayError,
    DeadlineExceeded,
    InvalidRequest,
    ModelFailed,
    ModelNotFound,
    ModelNotReady,
    RequestTooLarge,
    ShuttingDown,
)
from assay.groups import summarise
from assay.hosting import ServedModel
from assay.metrics import Metrics
from assay.outcomes import Case, Row, guarded, results_of, timing_of, usage_of
from assay.queueing import Lane
from assay.results import ItemFailure, ItemResult, ScoreReply, Source, Usage
from assay.runs import RunMonitor, RunStep
from assay_models.base import Input, Item, Options, RewardModel

DEFAULT_OPTIONS = Options()
NAMELESS = Item()
MAX_PROBLEMS = 20
LOADING_RETRY_SECONDS = 2.0
# So many items of a long request are looked up or finished before other requests have a turn.
TURN = 128


@dataclass(frozen=True, slots=True)
class ScoreCall:
    """What a protocol asks for.

    `items` hold the wire's fields, which the model's family checks; `substitute` is served, marked,
    for items that fail; `timeout` is in seconds, and None means the server's own; `lane` says who
    goes first where the device is busy; `run` is the training run to record the results of.
    """

    model: str
    items: Sequence[Mapping[str, Any]]
    options: Options = DEFAULT_OPTIONS
    substitute: float | None = None
    timeout: float | None = None
    lane: Lane = "training"
    run: RunStep | None = None


@dataclass(frozen=True, slots=True)
class ScoringLimits:
    """Bounds of one request, and how long it may take if it does not say (seconds)."""

    max_items: int
    max_request_tokens: int
    timeout: float


class ScoringService:
    """Scores items with the served models.

    Args:
        models: by `name@version` and by bare name.
        cache: of raws.
        prepared: what `prepare` made of items.
        pool: where prepare runs.
        metrics: where counts go.
        limits: of one request.
        clock: monotonic seconds, the same as the batchers'.
        monitor: of the runs that requests name.
    """

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        cache: ScoreCache,
        prepared: PreparedCache,
        pool: Executor,
        metrics: Metrics,
        limits: ScoringLimits,
        clock: Clock,
        monitor: RunMonitor,
    ) -> None:
        self._models = models
        self._cache = cache
        self._prepared = prepared
        self._pool = pool
        self._series = {one.id: _Series(metrics, one.id) for one in models.values()}
        self._limits = limits
        self._clock = clock
        self._monitor = monitor

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
        _refuse_unread(served, call.options)
        cases = await self._cases(served, model, call)
        prepared_at = self._clock()
        rows = await self._rows(served, cases, deadline, call.lane)
        results = results_of(model, cases, rows, call.options, call.substitute)
        usage = usage_of(results)
        self._series[served.id].count(results, usage, prepared_at - began)
        if call.run is not None:
            varying = served.family.candidate
            self._monitor.observe(call.run, served.id, varying, call.items, results)
        grouped = any(result.group is not None for result in results)
        return ScoreReply(
            id=f"score-{secrets.token_hex(16)}",
            model=served.id,
            fingerprint=_fingerprint(served, call.options),
            results=results,
            groups=summarise(results, served.card.resolution) if grouped else None,
            usage=usage,
            timing=timing_of(rows, prepared_at - began, self._clock() - began),
        )

    async def _cases(self, served: ServedModel, model: RewardModel, call: ScoreCall) -> list[Case]:
        """The items as they are prepared: remembered, or prepared now, in the pool."""
        if len(call.items) > self._limits.max_items:
            raise RequestTooLarge(
                f"{len(call.items)} items, the limit is {self._limits.max_items}",
                hint="split the request",
            )
        places = _together(model, call.items)
        scope = f"{served.id} {_fingerprint(served, call.options)}".encode()
        known: list[Case | None] = []
        digests: list[bytes | None] = []
        for place in places:
            fields = [call.items[index] for index in place]
            digest = digest_of(scope, fields) if self._prepared.enabled else None
            digests.append(digest)
            known.append(self._remembered(digest, place, fields))
            if len(known) % TURN == 0:
                await asyncio.sleep(0)
        cold = [number for number, case in enumerate(known) if case is None]
        self._series[served.id].prepared(len(places) - len(cold), len(cold))
        if cold:
            fresh = await self._prepare(served, model, call, [places[number] for number in cold])
            for number, case in zip(cold, fresh, strict=True):
                known[number] = case
                self._remember(digests[number], case)
        return [case for case in known if case is not None]

    def _remembered(
        self, digest: bytes | None, place: tuple[int, ...], fields: Sequence[Mapping[str, Any]]
    ) -> Case | None:
        ready = None if digest is None else self._prepared.get(digest)
        if ready is None:
            return None
        names = [_names(one) for one in fields]
        items = tuple([one for one in names if one is not None])
        return Case(place, items, ready) if len(items) == len(fields) else None

    def _remember(self, digest: bytes | None, case: Case) -> None:
        if digest is not None and isinstance(case.ready, Ready):
            self._prepared.put(digest, case.ready)

    async def _prepare(
        self,
        served: ServedModel,
        model: RewardModel,
        call: ScoreCall,
        places: Sequence[tuple[int, ...]],
    ) -> list[Case]:
        indices = sorted(index for place in places for index in place)
        valid = _validated(served.family.item, {index: call.items[index] for index in indices})
        items = [tuple(valid[index] for index in place) for place in places]
        work = partial(_prepare_all, model, items, call.options)
        ready = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        return [Case(*case) for case in zip(places, items, ready, strict=True)]

    async def _rows(
        self, served: ServedModel, cases: Sequence[Case], deadline: float, lane: Lane
    ) -> list[Row]:
        ready = [case.ready for case in cases if isinstance(case.ready, Ready)]
        self._check_tokens(sum([one.tokens for one in ready]))
        keys = [key for one in ready for key in one.keys]
        known = await self._cache.get_many(list(dict.fromkeys(keys)))
        missing = [
            pair
            for one in ready
            for pair in zip(one.keys, one.prepared.inputs, strict=True)
            if pair[0] not in known
        ]
        outcomes = iter(await self._computed(served, missing, deadline, lane))
        return [Row(known[key], "cache") if key in known else _row(next(outcomes)) for key in keys]

    async def _computed(
        self,
        served: ServedModel,
        missing: Sequence[tuple[bytes, Input]],
        deadline: float,
        lane: Lane,
    ) -> list[Outcome]:
        if not missing:
            return []
        assert served.batcher is not None
        outcomes = await served.batcher.compute(missing, deadline, lane)
        new = {
            key: outcome.value
            for (key, _), outcome in zip(missing, outcomes, strict=True)
            if not isinstance(outcome.value, AssayError) and not outcome.shared
        }
        await self._cache.put_many(new)
        for outcome in outcomes:
            if isinstance(outcome.value, DeadlineExceeded | ShuttingDown):
                raise outcome.value
        return outcomes

    def _check_tokens(self, tokens: int) -> None:
        if tokens > self._limits.max_request_tokens:
            raise RequestTooLarge(
                f"{tokens} tokens, the limit is {self._limits.max_request_tokens}",
                hint="split the request",
            )


class _Series:
    """One model's series, looked up once and not with every item."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        outcomes = ("computed", "cache", "shared", "rule", "error")
        self._items = [metrics.items.labels(model, outcome) for outcome in outcomes]
        self._known = metrics.prepared.labels(model, "memory")
        self._fresh = metrics.prepared.labels(model, "computed")
        self._prepare: Histogram = metrics.phase_seconds.labels(model, "prepare")
        self._truncated: Counter = metrics.truncated.labels(model)
        self._errors = partial(metrics.item_errors.labels, model)

    def prepared(self, known: int, fresh: int) -> None:
        if known:
            self._known.inc(known)
        if fresh:
            self._fresh.inc(fresh)

    def count(self, results: Sequence[ItemResult], usage: Usage, prepare: float) -> None:
        self._prepare.observe(prepare)
        amounts = (usage.computed, usage.cached, usage.shared, usage.rule, usage.failed)
        for series, amount in zip(self._items, amounts, strict=True):
            if amount:
                series.inc(amount)
        truncated = sum(["truncated" in result.flags for result in results])
        if truncated:
            self._truncated.inc(truncated)
        if usage.failed:
            for result in results:
                if result.error is not None:
                    self._errors(result.error.code).inc()


def _loaded(served: ServedModel) -> RewardModel:
    if served.state == "failed":
        raise ModelFailed(f"{served.id} could not be loaded", hint=served.failure)
    if served.model is None:
        raise ModelNotReady(f"{served.id} is loading", retry_after=LOADING_RETRY_SECONDS)
    return served.model


def _fingerprint(served: ServedModel, options: Options) -> str:
    known = served.fingerprints.get(options)
    return served.fingerprint(options) if known is None else known


def _refuse_unread(served: ServedModel, options: Options) -> None:
    unread = sorted({name for name, _ in options.numbers} - served.family.numbers)
    if unread:
        known = ", ".join(sorted(served.family.numbers)) or "none of this kind"
        raise InvalidRequest(
            f"options.{unread[0]}: {served.id} does not read it",
            hint=f"options of this model besides truncation, raw and on_error: {known}",
        )


def _validated(schema: type[Item], items: Mapping[int, Mapping[str, Any]]) -> dict[int, Item]:
    valid: dict[int, Item] = {}
    problems: list[dict[str, str]] = []
    for index, fields in items.items():
        try:
            valid[index] = schema.model_validate(fields)
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


def _problems(index: int, error: ValidationError) -> list[dict[str, str]]:
    return [
        {
            "field": ".".join(["items", str(index), *(str(part) for part in problem["loc"])]),
            "problem": problem["msg"],
        }
        for problem in error.errors(include_url=False, include_input=False, include_context=False)
    ]


def _names(fields: Mapping[str, Any]) -> Item | None:
    """What the caller calls an item, if it may be called so."""
    if "id" not in fields and "group" not in fields:
        return NAMELESS
    try:
        return Item(id=fields.get("id"), group=fields.get("group"))
    except ValidationError:
        return None


def _together(model: RewardModel, items: Sequence[Mapping[str, Any]]) -> list[tuple[int, ...]]:
    """Which items are prepared together, by their indices."""
    if model.sees == "item":
        return [(index,) for index in range(len(items))]
    groups: dict[object, list[int]] = {}
    for index, fields in enumerate(items):
        group = fields.get("group")
        groups.setdefault(group if isinstance(group, str) else index, []).append(index)
    return [tuple(group) for group in groups.values()]


def _prepare_all(
    model: RewardModel, cases: Sequence[Sequence[Item]], options: Options
) -> list[Ready | ItemFailure]:
    ready: list[Ready | ItemFailure] = []
    for items in cases:
        prepared = guarded(model.prepare, items, options)
        if isinstance(prepared, ItemFailure):
            ready.append(prepared)
        else:
            ready.append(make_ready(model.fingerprint, prepared))
    return ready


def _row(outcome: Outcome) -> Row:
    source: Source = "shared" if outcome.shared else "computed"
    return Row(outcome.value, source, outcome.queue_seconds, outcome.predict_seconds)
