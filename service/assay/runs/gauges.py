"""RunGauges: the health of the runs looked at last, as series whose number is bounded."""

import threading
from collections.abc import Iterator

from prometheus_client import Gauge

from assay.metrics import RunSeries
from assay_monitors.reports import RANK, RunHealth, StreamHealth
from assay_monitors.rules.windows import SCORE

# Runs that have series at a time, and streams of each.
RUNS, STREAMS = 16, 4

Sample = tuple[Gauge, tuple[str, ...], float]


class RunGauges:
    """Shows the health of sixteen runs, those looked at last, and of each its first four streams
    by model and split: whatever names trainers make up, the number of series is bounded. May be
    told from any thread.
    """

    def __init__(self, series: RunSeries) -> None:
        self._series = series
        self._lock = threading.Lock()
        self._shown: dict[str, list[tuple[Gauge, tuple[str, ...]]]] = {}

    def show(self, health: RunHealth) -> None:
        """Show a run's health in the place of what was shown of it, or of the run that was not
        looked at for longest.
        """
        with self._lock:
            before = self._shown.pop(health.run, [])
            samples = list(self._samples(health))
            for gauge, labels, value in samples:
                gauge.labels(*labels).set(value)
            now = [(gauge, labels) for gauge, labels, _ in samples]
            _remove([one for one in before if one not in now])
            self._shown[health.run] = now
            if len(self._shown) > RUNS:
                _remove(self._shown.pop(next(iter(self._shown))))

    def _samples(self, health: RunHealth) -> Iterator[Sample]:
        series = self._series
        yield series.status, (health.run,), RANK[health.status]
        for rule, severity in health.severities().items():
            yield series.severity, (health.run, rule), severity
        for stream in health.streams[:STREAMS]:
            yield from self._of_stream(health.run, stream)

    def _of_stream(self, run: str, stream: StreamHealth) -> Iterator[Sample]:
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
