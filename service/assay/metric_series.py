"""Series of parts of a process: preparation, runs, alerts, shadows and engines."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Summary

from assay.types import LANES
from assay_models.engines.listener import BreakerState, CallOutcome, Place

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
PREPARE_DROP_REASONS = ("abandoned", "expired", "overloaded", "shutdown", "too_large")


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


class ShadowSeries:
    """The series of models that score the same items as another one, beside its replies."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.items = Counter(
            "assay_shadow_items",
            "Items that a shadow scored, by which model has a score: both, primary, shadow,"
            " neither.",
            ["model", "scored_by"],
            registry=registry,
        )
        self.dropped = Counter(
            "assay_shadow_dropped",
            "Items that a shadow did not score, by reason: busy (as many wait as may), overloaded,"
            " expired, stopped.",
            ["model", "reason"],
            registry=registry,
        )
        self.difference = Summary(
            "assay_shadow_absolute_difference",
            "Absolute difference of a shadow's score from the score that was served.",
            ["model"],
            registry=registry,
        )
        self.pairs = Counter(
            "assay_shadow_pairs",
            "Pairs of items of one group by the order of a shadow's scores: concordant with those"
            " served, discordant, tied (one model scores them the same). At most 64 items a group.",
            ["model", "order"],
            registry=registry,
        )

    def count_items(self, model: str, **items: int) -> None:
        """Count items by which model has a score."""
        for scored_by, amount in items.items():
            self.items.labels(model, scored_by).inc(amount)

    def count_pairs(self, model: str, **pairs: int) -> None:
        """Count pairs by their order."""
        for order, amount in pairs.items():
            self.pairs.labels(model, order).inc(amount)


class EngineSeries:
    """The series of calls to inference engines, an `EngineListener`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        place = ["model", "url"]
        self._calls = counter(
            "assay_engine_calls",
            "Tries of calls to engines by outcome: ok, refused, overloaded, unavailable, failed,"
            " bad_reply, timeout, cancelled. `url` is its number in the card, from 0.",
            [*place, "outcome"],
        )
        self._seconds = Histogram(
            "assay_engine_call_seconds",
            "Seconds of a try of a call to an engine.",
            place,
            registry=registry,
            buckets=SECONDS,
        )
        self._retries = counter(
            "assay_engine_retries",
            "Tries of calls to engines that were followed by another one, by outcome.",
            [*place, "outcome"],
        )
        self._breaker = gauge(
            "assay_engine_breaker",
            "The circuit breaker of an engine's URL: 0 closed, 1 half-open, 2 open (not called).",
            place,
        )
        self._in_flight = gauge(
            "assay_engine_calls_in_flight", "Calls to an engine's URL in flight.", place
        )

    def forget_model(self, model: str) -> None:
        """Remove the gauges of a model that is served no longer; its counters stay."""
        for gauge in (self._breaker, self._in_flight):
            gauge.remove_by_labels({"model": model})

    def on_call(self, place: Place, outcome: CallOutcome, seconds: float, rows: int) -> None:
        """Count a try."""
        self._calls.labels(*place, outcome).inc()
        self._seconds.labels(*place).observe(seconds)

    def on_retry(self, place: Place, outcome: CallOutcome) -> None:
        """Count a try that is followed by another one."""
        self._retries.labels(*place, outcome).inc()

    def on_breaker(self, place: Place, state: BreakerState) -> None:
        """Show a breaker's state."""
        self._breaker.labels(*place).set(("closed", "half_open", "open").index(state))

    def on_in_flight(self, place: Place, calls: int) -> None:
        """Show the number of calls in flight."""
        self._in_flight.labels(*place).set(calls)
