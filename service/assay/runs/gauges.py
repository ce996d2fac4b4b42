"""RunGauges: the health of the runs evaluated last, as a bounded number of series."""

import threading
from collections.abc import Iterator

from prometheus_client import Gauge

from assay.metric_series import RunSeries
from assay_monitors.reports import RANK, RunHealth, StreamHealth
from assay_monitors.rules.rolling import SCORE

# Runs that have series at a time, and streams of each.
MAX_RUNS, MAX_STREAMS = 16, 4

Sample = tuple[Gauge, tuple[str, ...], float]


class RunGauges:
    """Gauges of the health of the sixteen runs shown last, and of the first four streams (by model
    and split) of each.

    The number of series is bounded whatever names trainers use. `show` may be called from any
    thread.
    """

    def __init__(self, series: RunSeries) -> None:
        self._series = series
        self._lock = threading.Lock()
        self._shown: dict[str, list[tuple[Gauge, tuple[str, ...]]]] = {}

    def show(self, health: RunHealth) -> None:
        """Show a run's health, replacing the run's earlier values.

        Beyond the bound, the run that was shown least recently is removed.
        """
        with self._lock:
            before = self._shown.pop(health.run, [])
            samples = list(self._samples(health))
            for gauge, labels, value in samples:
                gauge.labels(*labels).set(value)
            now = [(gauge, labels) for gauge, labels, _ in samples]
            _remove([sample for sample in before if sample not in now])
            self._shown[health.run] = now
            if len(self._shown) > MAX_RUNS:
                _remove(self._shown.pop(next(iter(self._shown))))

    def remove(self, run: str) -> None:
        """Remove the series of a run that is no longer kept."""
        with self._lock:
            _remove(self._shown.pop(run, []))

    def _samples(self, health: RunHealth) -> Iterator[Sample]:
        series = self._series
        yield series.status, (health.run,), RANK[health.status]
        for rule, severity in health.severities().items():
            yield series.severity, (health.run, rule), severity
        for stream in health.streams[:MAX_STREAMS]:
            yield from self._stream_samples(health.run, stream)

    def _stream_samples(self, run: str, stream: StreamHealth) -> Iterator[Sample]:
        series, labels = self._series, (run, stream.model or "", stream.split or "")
        yield series.step, labels, stream.step
        score = stream.channels.get(SCORE)
        if score is not None:
            yield series.null_share, labels, score.null_share
            if score.mean is not None:
                yield series.score_mean, labels, score.mean
            if score.std is not None:
                yield series.score_std, labels, score.std


def _remove(shown: list[tuple[Gauge, tuple[str, ...]]]) -> None:
    for gauge, labels in shown:
        gauge.remove(*labels)
