"""All Prometheus series, declared once in a given registry."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from assay.metric_series import (
    SECONDS,
    AlertSeries,
    EngineSeries,
    PreparationSeries,
    RunSeries,
    ShadowSeries,
)

POWERS = tuple(2**power for power in range(15))


class Metrics:
    """The series of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._declare_requests(registry)
        self._declare_batches(registry)
        self._declare_caches(registry)
        self._declare_event_loop(registry)
        self.ready = Gauge(
            "assay_model_ready", "1 if the model computes.", ["model"], registry=registry
        )
        self.spans = Counter(
            "assay_trace_spans",
            "Spans of traces by outcome: sent, failed, dropped (too many were waiting).",
            ["outcome"],
            registry=registry,
        )
        self.preparation = PreparationSeries(registry)
        self.runs = RunSeries(registry)
        self.engines = EngineSeries(registry)
        self.alerts = AlertSeries(registry)
        self.shadows = ShadowSeries(registry)

    def forget_model(self, model: str) -> None:
        """Remove the gauges of a model that is served no longer; its counters stay."""
        for gauge in (self.ready, self.queue_tokens, self.batch_token_budget):
            gauge.remove_by_labels({"model": model})
        self.engines.forget_model(model)

    def _declare_requests(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        seconds = partial(Histogram, registry=registry, buckets=SECONDS)
        self.requests = counter(
            "assay_requests", "Requests by route and status.", ["route", "status"]
        )
        self.request_seconds = seconds(
            "assay_request_seconds",
            "Seconds from the request's first byte to the reply's last.",
            ["route"],
        )
        self.refusals = counter(
            "assay_auth_failures",
            "Requests with a missing or wrong key, or from another host or origin, by reason.",
            ["reason"],
        )
        self.rejected = counter(
            "assay_rejected",
            "Requests rejected before a route but for their sender, by error code, and closed"
            " connections: silent, evicted (the bound), unread (its reply), pipelined (too many).",
            ["reason"],
        )
        self.connections = Gauge("assay_connections", "Open connections.", registry=registry)
        self.body_bytes = Gauge(
            "assay_body_bytes", "Bytes of the bodies of unanswered requests.", registry=registry
        )
        self.items = counter(
            "assay_items",
            "Items by model and outcome: computed, cache, shared, rule, error.",
            ["model", "outcome"],
        )
        self.item_errors = counter(
            "assay_item_errors", "Items without a score, by code.", ["model", "code"]
        )
        self.truncated = counter("assay_items_truncated", "Items that were truncated.", ["model"])
        self.phase_seconds = seconds(
            "assay_phase_seconds",
            "Seconds in a phase: prepare, queue, predict.",
            ["model", "phase"],
        )

    def _declare_batches(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        self.queue_seconds = Histogram(
            "assay_queue_seconds",
            "Seconds an input waited for its forward pass, by lane: interactive, training, bulk.",
            ["model", "lane"],
            registry=registry,
            buckets=SECONDS,
        )
        self.forwards = counter(
            "assay_forwards", "Forward passes by outcome.", ["model", "outcome"]
        )
        self.batch_size = Histogram(
            "assay_batch_size", "Rows in a batch.", ["model"], buckets=POWERS, registry=registry
        )
        self.tokens = counter("assay_tokens", "Tokens of the computed inputs.", ["model"])
        self.padded_tokens = counter(
            "assay_padded_tokens",
            "Tokens that forward passes computed, padding included; a shared prefix counts once.",
            ["model"],
        )
        self.batch_token_budget = gauge(
            "assay_batch_token_budget",
            "Tokens that a batch may cost: the card's limit, or less after running out of memory.",
            ["model"],
        )
        self.queue_tokens = gauge(
            "assay_queue_tokens", "Tokens admitted and not yet settled.", ["model"]
        )
        self.scaling_tokens = Gauge(
            "assay_scaling_tokens",
            "Tokens admitted and not yet settled, of all models but shadows: replicas scale on it.",
            registry=registry,
        )
        self.refused = counter("assay_refused", "Requests refused at admission.", ["model"])
        self.dropped = counter(
            "assay_dropped",
            "Inputs dropped before compute, by reason: abandoned, expired.",
            ["model", "reason"],
        )

    def _declare_caches(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        self.cache_lookups = counter(
            "assay_cache_lookups",
            "Looked-up keys by tier (memory, redis) and outcome (hit, miss, error).",
            ["tier", "outcome"],
        )
        self.shared_flights = counter(
            "assay_shared_flights",
            "Keys without a score, claimed among replicas, by outcome: won (computed here), lost"
            " (another replica computes); of the lost ones: received, given_up (computed here).",
            ["outcome"],
        )
        self.share_decisions = counter(
            "assay_share_decisions",
            "Requests of keys with a share, by the balances that decided: redis (of all replicas),"
            " own (this replica's alone, as Redis failed).",
            ["balances"],
        )
        self.cache_up = gauge("assay_cache_up", "1 if a shared cache (redis) works.", ["tier"])
        self.cache_bytes = gauge("assay_cache_bytes", "Bytes of scores cached in memory.")
        self.prepared = counter(
            "assay_prepared",
            "Prepared items by model and source: computed, memory.",
            ["model", "source"],
        )
        self.prepared_bytes = gauge(
            "assay_prepared_bytes", "Bytes of prepared items cached in memory."
        )

    def _declare_event_loop(self, registry: CollectorRegistry) -> None:
        self.event_loop_lag_seconds = Histogram(
            "assay_event_loop_lag_seconds",
            "Seconds by which a timer of the event loop was late.",
            registry=registry,
            buckets=SECONDS,
        )
        self.event_loop_stalls = Counter(
            "assay_event_loop_stalls",
            "Delays of the event loop of more than 50 ms, by cause: computing, waiting.",
            ["cause"],
            registry=registry,
        )


class TierSeries:
    """The lookup counters of one cache tier, with bound labels."""

    def __init__(self, metrics: Metrics, tier: str) -> None:
        self._hits = metrics.cache_lookups.labels(tier, "hit")
        self._misses = metrics.cache_lookups.labels(tier, "miss")
        self._errors = metrics.cache_lookups.labels(tier, "error")

    def count(self, *, hits: int = 0, misses: int = 0, errors: int = 0) -> None:
        """Count looked-up keys by outcome."""
        for series, amount in ((self._hits, hits), (self._misses, misses), (self._errors, errors)):
            if amount:
                series.inc(amount)


class FlightSeries:
    """The counters of keys claimed among replicas, with bound labels."""

    def __init__(self, metrics: Metrics) -> None:
        outcomes = ("won", "lost", "received", "given_up")
        self._counters = {name: metrics.shared_flights.labels(name) for name in outcomes}

    def count(self, **amounts: int) -> None:
        """Count keys by outcome."""
        for outcome, amount in amounts.items():
            if amount:
                self._counters[outcome].inc(amount)


class BatcherSeries:
    """The series of one model's batcher, with bound labels."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self.refused = metrics.refused.labels(model)
        self.queue_tokens = metrics.queue_tokens.labels(model)
        self.budget = metrics.batch_token_budget.labels(model)
        self.dropped = {
            reason: metrics.dropped.labels(model, reason) for reason in ("abandoned", "expired")
        }
        self.forwards = {
            outcome: metrics.forwards.labels(model, outcome)
            for outcome in ("ok", "failed", "out_of_memory")
        }
        self.batch_size = metrics.batch_size.labels(model)
        self.tokens = metrics.tokens.labels(model)
        self.padded_tokens = metrics.padded_tokens.labels(model)
        self.predict_seconds = metrics.phase_seconds.labels(model, "predict")
        self.queue_phase = metrics.phase_seconds.labels(model, "queue")
        self.queue_seconds = {
            lane: metrics.queue_seconds.labels(model, lane)
            for lane in ("interactive", "training", "bulk")
        }
