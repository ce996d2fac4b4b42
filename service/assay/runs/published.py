"""PublishedCounts: the recorder's counts as Prometheus series."""

from assay.metric_series import RunSeries
from assay_monitors.changes import Counts
from assay_monitors.recorder import Recorder


class PublishedCounts:
    """Counts of a recorder, of which each is added to its series once."""

    def __init__(self, series: RunSeries) -> None:
        self._series = series
        self._last = Counts()

    def update(self, recorder: Recorder, *, is_permanent: bool) -> None:
        """Bring the series up to date; `is_permanent`: the file outlives the process."""
        now, last, series = recorder.counts.copy(), self._last, self._series
        series.observations.labels("written").inc(now.written - last.written)
        series.observations.labels("dropped").inc(now.dropped - last.dropped)
        series.commit_failures.inc(now.failed_commits - last.failed_commits)
        series.damaged_rows.inc(now.damaged_rows - last.damaged_rows)
        for reason, count in (now.refused - last.refused).items():
            series.refused.labels(reason).inc(count)
        series.last_commit.set(now.last_commit)
        series.durable.set(is_permanent and recorder.is_durable)
        self._last = now
