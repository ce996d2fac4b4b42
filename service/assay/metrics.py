"""All Prometheus series, declared once in a given registry."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from assay.types import LANES

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
PREPARE_DROP_REASONS = ("abandoned", "expired", "overloaded", "shutdown", "too_large")
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
        self.preparation = PreparationSeries(registry)
        self.runs = RunSeries(registry)
        self.alerts = AlertSeries(registry)

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


class PreparationSeries:
    """The series of the threads that prepare items, with bound labels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.bytes = Gauge(
            "assay_prepare_bytes",
            "Bytes of the items that wait for preparation or are being prepared.",
            registry=registry,
        )
        self.requests = Gauge(
            "assay_prepare_requests",
            "Requests that wait for preparation or are being prepared.",
            registry=registry,
        )
        dropped = Counter(
            "assay_prepare_dropped",
            "Requests dropped before their items were prepared, by reason: abandoned, expired,"
            " overloaded, shutdown, too_large.",
            ["reason"],
            registry=registry,
        )
        self.dropped = {reason: dropped.labels(reason) for reason in PREPARE_DROP_REASONS}
        wait = Histogram(
            "assay_prepare_wait_seconds",
            "Seconds a request waited for a thread to prepare it, by lane.",
            ["lane"],
            registry=registry,
            buckets=SECONDS,
        )
        self.wait_seconds = {lane: wait.labels(lane) for lane in LANES}


class RunSeries:
    """The series of run health."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._declare_recording(registry)
        self._declare_health(registry)

    def _declare_recording(self, registry: CollectorRegistry) -> None:
        self.observations = Counter(
            "assay_run_observations",
            "Items of requests that name a run, and telemetry, by outcome: written, dropped.",
            ["outcome"],
            registry=registry,
        )
        self.commit_failures = Counter(
            "assay_run_commit_failures",
            "Failed commits of runs, which were retried.",
            registry=registry,
        )
        self.durable = Gauge(
            "assay_runs_durable",
            "1 if runs are stored in a file that outlives the process, and what was written last"
            " can be read there.",
            registry=registry,
        )
        self.refused = Counter(
            "assay_run_refused",
            "Items and requests not recorded, by reason: owner (it is another key's run), runs,"
            " streams, sources (there is no place for one more), deleted (another server deleted"
            " the run after they were scored).",
            ["reason"],
            registry=registry,
        )
        self.damaged_rows = Counter(
            "assay_run_damaged_rows",
            "Stored rows of runs that could not be read, and were set aside.",
            registry=registry,
        )
        self.last_commit = Gauge(
            "assay_run_last_commit_timestamp_seconds",
            "Time of the last commit of runs that was read back, since the epoch; 0 before it.",
            registry=registry,
        )

    def _declare_health(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        of_stream = ["run", "model", "split"]
        self.severity = gauge(
            "assay_run_severity",
            "A rule's state at the run's latest evaluation: -1 waiting or not fed, 0 quiet, 1 warn,"
            " 2 critical. This and the next five series cover the 16 runs evaluated last, four"
            " streams of each.",
            ["run", "rule"],
        )
        self.status = gauge(
            "assay_run_status",
            "The run's status: -1 waiting to be assessed, 0 ok, 1 warn, 2 critical.",
            ["run"],
        )
        self.step = gauge("assay_run_step", "The run's latest step.", of_stream)
        self.score_mean = gauge("assay_run_score_mean", "The latest step's mean score.", of_stream)
        self.score_std = gauge(
            "assay_run_score_std", "The latest step's standard deviation of scores.", of_stream
        )
        self.null_share = gauge(
            "assay_run_null_share", "The latest step's share of items without a score.", of_stream
        )
        self.evaluations = Counter(
            "assay_run_evaluations",
            "Background evaluations of a run's rules: ok, failed, skipped (too many runs wait).",
            ["outcome"],
            registry=registry,
        )
        self.evaluation_seconds = Histogram(
            "assay_run_evaluation_seconds",
            "Seconds of a background evaluation of a run's rules.",
            registry=registry,
            buckets=SECONDS,
        )


class AlertSeries:
    """The series of the webhook."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.changes = Counter(
            "assay_alerts",
            "Alerts for the webhook: sent, failed (not accepted after all attempts), dropped (the"
            " oldest, for want of room, or because the server stopped).",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("sent", "failed", "dropped"):
            self.changes.labels(outcome)
        self.waiting = Gauge(
            "assay_alerts_waiting",
            "Alerts that are being sent to the webhook, or wait for that.",
            registry=registry,
        )

    def count(self, outcome: str, times: int = 1) -> None:
        """Count alerts by outcome."""
        self.changes.labels(outcome).inc(times)


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
