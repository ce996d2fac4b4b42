"""ScoringService: resolve, prepare, look up, batch, assemble.

Every score is computed here, for every protocol.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from prometheus_client import Counter, Histogram

from assay.batching.entry import Outcome
from assay.cache.balances import RedisBalances
from assay.cache.flights import SharedFlights
from assay.cache.keys import owned_key
from assay.cache.memory import ScoreCache
from assay.errors import (
    AssayError,
    DeadlineExceeded,
    EngineFailed,
    InvalidRequest,
    RequestTooLarge,
    ShuttingDown,
)
from assay.lifecycle.table import ModelTable
from assay.metrics import Metrics
from assay.runs.monitor import RunMonitor
from assay.runs.owners import writer_of
from assay.runs.steps import RunStep
from assay.scoring.assemble import assemble_results, timing_of, usage_of
from assay.scoring.flight import Flight
from assay.scoring.prepare import PrepareCall, Preparer, RequestBudget
from assay.scoring.prepared_cache import PreparedItems
from assay.scoring.ranking import summarise
from assay.scoring.shares import Shares
from assay.served_model import Ready, ServedModel
from assay.types import (
    NO_CALLER,
    NO_SHARE,
    Caller,
    Clock,
    ItemFailure,
    ItemResult,
    Lane,
    ScoreReply,
    Usage,
)
from assay_models.base import Input, Options

DEFAULT_OPTIONS = Options()


@dataclass(frozen=True, slots=True)
class ScoreCall:
    """One scoring request, as a protocol passes it on.

    `items` hold the wire's fields, which the model's family validates. `substitute` is the score
    served for items that fail, which are flagged. `timeout` is in seconds; None means the server's
    own. `lane` is the priority. `run` is the training run that the results are recorded for.
    `caller` is the request's sender.
    """

    model: str
    items: Sequence[Mapping[str, Any]]
    options: Options = DEFAULT_OPTIONS
    substitute: float | None = None
    timeout: float | None = None
    lane: Lane = "training"
    run: RunStep | None = None
    caller: Caller = NO_CALLER


@dataclass(frozen=True, slots=True)
class ScoringLimits:
    """Bounds of one request, and the timeout (seconds) of a request that sets none."""

    max_items: int
    max_request_tokens: int
    timeout: float


Mirror = Callable[[ScoreCall, ServedModel, Sequence[ItemResult]], None]
"""Takes in a request, its model and its results. It returns at once."""


def _ignore(call: ScoreCall, served: ServedModel, results: Sequence[ItemResult]) -> None:
    """Take in nothing."""


class ScoringService:
    """The service that scores items with the served models.

    Args:
        models: the served models.
        cache: the cache of raws.
        preparer: the preparer of items.
        metrics: the series of the process.
        limits: bounds of one request.
        clock: monotonic seconds, the same clock as the batchers'.
        monitor: the recorder of the runs that requests name.
        is_cache_private: whether a score is shared only between requests of one API key's name.
        flights: the keys that this replica and others compute; None if they do not share them.
        balances: the balances of API keys at all replicas; None if each has its own.
    """

    def __init__(
        self,
        *,
        models: ModelTable,
        cache: ScoreCache,
        preparer: Preparer,
        metrics: Metrics,
        limits: ScoringLimits,
        clock: Clock,
        monitor: RunMonitor,
        is_cache_private: bool = False,
        flights: SharedFlights | None = None,
        balances: RedisBalances | None = None,
    ) -> None:
        self._models = models
        self._cache = cache
        self._preparer = preparer
        self._series = lru_cache(maxsize=None)(partial(_Series, metrics))
        self._limits = limits
        self._clock = clock
        self._monitor = monitor
        self._is_cache_private = is_cache_private
        self._flights = flights
        self._shares = Shares(clock, metrics, balances)
        self._mirror: Mirror = _ignore

    def set_mirror(self, mirror: Mirror) -> None:
        """Set the function that is called with each reply of a model that has shadows."""
        self._mirror = mirror

    def find(
        self, reference: str, run: RunStep | None = None, caller: Caller = NO_CALLER
    ) -> ServedModel:
        """Return the served model of that name, ready or not.

        Args:
            reference: `name@version`, or the bare name.
            run: the run that the request names. One that named the bare name before keeps the
                version that it began with.
            caller: the request's sender; runs of other senders do not count.

        Raises:
            ModelNotFound: no model of that name is served.
        """
        served = self._models.names.get(reference)
        if served is None:
            raise self._models.not_found(reference)
        if run is not None and reference != served.id:
            return self._models.version_for(run.id, served, caller.name)
        return served

    def models(self) -> list[ServedModel]:
        """Return all served models, by id."""
        return self._models.models()

    def unnamed(self) -> list[ServedModel]:
        """Return the models that a request may mean that names none."""
        return self._models.unnamed()

    async def score(self, call: ScoreCall) -> ScoreReply:
        """Score a request's items. Results are in request order; an item that fails has an error.

        Raises:
            AssayError: the request as a whole cannot be served; see each class.
        """
        if call.caller.share is NO_SHARE:
            return await self._score(call)
        async with self._shares.admitted(call.caller):
            return await self._score(call)

    async def _score(self, call: ScoreCall) -> ScoreReply:
        began = self._clock()
        served = self.find(call.model, call.run, call.caller)
        served.in_flight += 1
        try:
            return await self._score_with(served, call, began)
        finally:
            served.in_flight -= 1
            if served.id in self._models.unloading:
                self._models.leave(served)

    async def _score_with(self, served: ServedModel, call: ScoreCall, began: float) -> ScoreReply:
        deadline = began + (call.timeout or self._limits.timeout)
        ready = served.require_ready()
        fingerprint = ready.fingerprint(call.options)
        prepared = await self._prepare(served, ready, call, fingerprint, deadline)
        prepare_seconds = self._clock() - began
        outcomes = await self._outcomes(ready, prepared, deadline, call.lane)
        results = assemble_results(
            ready.model,
            prepared,
            outcomes=outcomes,
            options=call.options,
            substitute=call.substitute,
        )
        usage = usage_of(results)
        self._series(served.id).count(results, usage, prepare_seconds)
        if call.run is not None:
            varying = served.family.candidate
            self._monitor.observe(
                call.run,
                served.id,
                candidate=varying,
                items=call.items,
                results=results,
                writer=writer_of(call.caller),
            )
        if served.id in self._models.shadowed:
            self._mirror(call, served, results)
        grouped = any(result.group is not None for result in results)
        return ScoreReply(
            id=f"score-{secrets.token_hex(16)}",
            model=served.id,
            fingerprint=fingerprint,
            results=results,
            groups=summarise(results, served.card.resolution) if grouped else None,
            usage=usage,
            timing=timing_of(outcomes, prepare_seconds, self._clock() - began),
        )

    async def _prepare(
        self,
        served: ServedModel,
        ready: Ready,
        call: ScoreCall,
        fingerprint: str,
        deadline: float,
    ) -> list[PreparedItems]:
        _refuse_unread(served, call.options)
        if len(call.items) > self._limits.max_items:
            raise RequestTooLarge(
                f"{len(call.items)} items, the limit is {self._limits.max_items}",
                hint="split the request",
            )
        owner = call.caller.name.encode() if self._is_cache_private else b""
        budget = RequestBudget(self._limits.max_request_tokens)
        prepare_call = PrepareCall(
            ready.model,
            ready.raw_fingerprint,
            served.family.item,
            call.options,
            scope=f"{served.id} {fingerprint}".encode() + owner,
            budget=budget,
            lane=call.lane,
            deadline=deadline,
        )
        try:
            entries, computed = await self._preparer.prepare(prepare_call, call.items)
        finally:
            if call.caller.share is not NO_SHARE:
                self._shares.charge(call.caller, max(budget.made, len(call.items)))
        self._series(served.id).prepared(len(entries) - computed, computed)
        return [_private(entry, owner) for entry in entries] if owner else entries

    async def _outcomes(
        self, ready: Ready, entries: Sequence[PreparedItems], deadline: float, lane: Lane
    ) -> list[Outcome]:
        """Return one outcome for each input of the entries, in order."""
        keys = [key for entry in entries for key in entry.keys]
        known = await self._cache.get_many(list(dict.fromkeys(keys)))
        lengths = ready.raw_lengths
        if lengths and not lengths.issuperset(map(len, known.values())):
            known = {key: raw for key, raw in known.items() if len(raw) in lengths}
        if len(known) == len(keys):
            return [Outcome(known[key], "cache") for key in keys]
        missing = [pair for entry in entries for pair in _inputs(entry) if pair[0] not in known]
        compute = partial(self._compute, ready, deadline=deadline, lane=lane)
        if self._flights is None or not missing:
            computed = iter(await compute(missing))
        else:
            flight = Flight(self._flights, compute, lengths, deadline, self._clock)
            computed = iter(await flight.outcomes(missing))
        return [Outcome(known[key], "cache") if key in known else next(computed) for key in keys]

    async def _compute(
        self,
        ready: Ready,
        inputs: Sequence[tuple[bytes, Input]],
        deadline: float,
        lane: Lane,
    ) -> list[Outcome]:
        if not inputs:
            return []
        outcomes = await ready.batcher.compute(inputs, deadline, lane)
        new = {
            key: outcome.value
            for (key, _), outcome in zip(inputs, outcomes, strict=True)
            if not isinstance(outcome.value, AssayError) and outcome.source == "computed"
        }
        ready.raw_lengths.update(map(len, new.values()))
        await self._cache.put_many(new)
        for outcome in outcomes:
            if isinstance(outcome.value, DeadlineExceeded | EngineFailed | ShuttingDown):
                raise outcome.value
        return outcomes


class _Series:
    """One model's series, looked up once rather than for every item."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        outcomes = ("computed", "cache", "shared", "rule", "error")
        self._items = [metrics.items.labels(model, outcome) for outcome in outcomes]
        self._prepared_cached = metrics.prepared.labels(model, "memory")
        self._prepared_computed = metrics.prepared.labels(model, "computed")
        self._prepare: Histogram = metrics.phase_seconds.labels(model, "prepare")
        self._truncated: Counter = metrics.truncated.labels(model)
        self._errors = partial(metrics.item_errors.labels, model)

    def prepared(self, cached: int, computed: int) -> None:
        if cached:
            self._prepared_cached.inc(cached)
        if computed:
            self._prepared_computed.inc(computed)

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


def _private(entry: PreparedItems, owner: bytes) -> PreparedItems:
    """Return an entry with cache keys that no other owner's entries have."""
    return entry._replace(keys=tuple([owned_key(owner, key) for key in entry.keys]))


def _inputs(entry: PreparedItems) -> list[tuple[bytes, Input]]:
    """Return an entry's inputs with their cache keys."""
    if isinstance(entry.prepared, ItemFailure):
        return []
    return list(zip(entry.keys, entry.prepared.inputs, strict=True))


def _refuse_unread(served: ServedModel, options: Options) -> None:
    unread = sorted({name for name, _ in options.numbers} - served.family.numbers)
    if unread:
        known = ", ".join(sorted(served.family.numbers)) or "none of this kind"
        raise InvalidRequest(
            f"options.{unread[0]}: {served.id} does not read it",
            hint=f"options of this model besides truncation, raw and on_error: {known}",
        )
