"""Every Prometheus series, declared once, in a registry that is passed in."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
POWERS = tuple(2**power for power in range(15))


class Metrics:
    """The series of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.requests = Counter(
            "assay_requests",
            "Requests by route and status.",
            ["route", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "assay_request_seconds",
            "Seconds from the request's first byte to the reply's last.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.items = Counter(
            "assay_items",
            "Items by model and outcome: computed, cache, shared, rule, error.",
            ["model", "outcome"],
            registry=registry,
        )
        self.item_errors = Counter(
            "assay_item_errors",
            "Items without a score, by code.",
            ["model", "code"],
            registry=registry,
        )
        self.truncated = Counter(
            "assay_items_truncated", "Items that were cut.", ["model"], registry=registry
        )
        self.phase_seconds = Histogram(
            "assay_phase_seconds",
            "Seconds in a phase: prepare, queue, predict.",
            ["model", "phase"],
            buckets=SECONDS,
            registry=registry,
        )
        self.forwards = Counter(
            "assay_forwards", "Forward passes by outcome.", ["model", "outcome"], registry=registry
        )
        self.batch_size = Histogram(
            "assay_batch_size", "Rows in a batch.", ["model"], buckets=POWERS, registry=registry
        )
        self.tokens = Counter("assay_tokens", "Tokens computed.", ["model"], registry=registry)
        self.padded_tokens = Counter(
            "assay_padded_tokens", "Tokens computed, padding counted.", ["model"], registry=registry
        )
        self.queue_tokens = Gauge(
            "assay_queue_tokens", "Tokens waiting.", ["model"], registry=registry
        )
        self.refused = Counter(
            "assay_refused", "Requests refused at admission.", ["model"], registry=registry
        )
        self.dropped = Counter(
            "assay_dropped",
            "Inputs dropped before compute, by reason: abandoned, expired.",
            ["model", "reason"],
            registry=registry,
        )
        self.cache_lookups = Counter(
            "assay_cache_lookups",
            "Keys looked up, by tier (memory, redis) and outcome (hit, miss, error).",
            ["tier", "outcome"],
            registry=registry,
        )
        self.cache_bytes = Gauge("assay_cache_bytes", "Bytes held in memory.", registry=registry)
        self.ready = Gauge(
            "assay_model_ready", "1 when the model computes.", ["model"], registry=registry
        )
