"""Alerts of a run: which of them began and which ended since its health was evaluated last."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Literal, NamedTuple, Protocol

from cachetools import LRUCache

from assay_monitors.observations import is_shadow
from assay_monitors.reports import GoldHealth, RuleState, RunHealth, StreamHealth
from assay_monitors.rules.base import Severity

# Runs whose alerts are remembered; as many as the file of runs keeps by default.
MAX_RUNS = 200
GOLD = "gold"
GOLD_LIMITS = "an exploited reward from a gold source that has changed"

StreamKey = tuple[str | None, str | None, str | None]
"""The model and the split of a stream, or the source of gold; the other places are None."""


class AlertKey(NamedTuple):
    """A rule in a stream, or a gold source."""

    model: str | None
    split: str | None
    rule: str
    source: str | None = None

    @classmethod
    def of(cls, alert: "Alert") -> "AlertKey":
        """Return the key of an alert."""
        source = alert.about[0] if alert.rule == GOLD else None
        return cls(alert.model, alert.split, alert.rule, source)

    @property
    def stream_key(self) -> StreamKey:
        """The stream or the gold source, which has a latest step of its own."""
        return self.model, self.split, self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A rule that fires, as it was when it was last evaluated.

    `model` and `split` name the stream, None where only the trainer sent data; the rest is as in
    `RuleState`. Advice of a gold source has the rule `gold`, and is `about` the source, the advised
    action and the grounds.
    """

    run: str
    model: str | None
    split: str | None
    step: int
    rule: str
    severity: Severity
    since_step: int
    value: float | None
    threshold: float | None
    about: list[str]
    evidence: dict[str, float]
    limits: str


@dataclass(frozen=True, slots=True)
class AlertChange:
    """An alert that began or changed its severity (`firing`), or ended (`resolved`)."""

    kind: Literal["firing", "resolved"]
    alert: Alert

    @property
    def id(self) -> str:
        """The id of the change: the same from every server, and each time it is sent."""
        alert = self.alert
        names = (
            *(alert.run, alert.model, alert.split, alert.rule),
            *(alert.since_step, alert.severity, self.kind),
        )
        # The gold source is part of the identity of a gold alert: each source has its own.
        identity = repr((*names, alert.about[:1] if alert.rule == GOLD else ()))
        digest = blake2b(identity.encode(errors="surrogatepass"), digest_size=16)
        return "alert-" + digest.hexdigest()


Firing = dict[AlertKey, Alert]
"""The alerts of a run that fire."""


def compare_alerts(before: Firing, health: RunHealth) -> tuple[Firing, list[AlertChange]]:
    """Return the alerts of a run that fire now, and the changes: ended ones, then those begun."""
    now = dict(_alerts(health))
    steps = dict(_latest_steps(health))
    ended = [
        AlertChange("resolved", replace(alert, step=steps.get(key.stream_key, alert.step)))
        for key, alert in before.items()
        if key not in now
    ]
    begun = [
        AlertChange("firing", alert)
        for key, alert in now.items()
        if key not in before or before[key].severity != alert.severity
    ]
    return now, ended + begun


class AlertMemory(Protocol):
    """Memory of the alerts that fire, by run."""

    def mark(self) -> int:
        """Return the age of what is read from now on; a later one is never lower."""
        ...

    def update(self, health: RunHealth, mark: int = 0) -> list[AlertChange]:
        """Take in a run's health that was read after `mark`; return the changes to send."""
        ...

    def forget(self, run: str) -> list[AlertChange]:
        """Forget a run that is no longer kept; return its alerts, which end with it."""
        ...

    def rename(self, run: str, name: str) -> None:
        """Keep a run's alerts under another name; none begins or ends."""
        ...


class AlertTracker:
    """Remembers which alerts fire, and returns the changes.

    It forgets the run whose alerts were updated least recently, and everything when the process
    ends: alerts that still fire are then returned again, under the same ids.
    """

    def __init__(self, max_runs: int = MAX_RUNS) -> None:
        self._firing: LRUCache[str, Firing] = LRUCache(max_runs)

    def mark(self) -> int:
        """Return 0: one evaluation follows another."""
        return 0

    def update(self, health: RunHealth, mark: int = 0) -> list[AlertChange]:
        """Take in a run's health, and return the alerts that ended, then those that began."""
        now, changes = compare_alerts(self._firing.pop(health.run, {}), health)
        if now:
            self._firing[health.run] = now
        return changes

    def forget(self, run: str) -> list[AlertChange]:
        """Forget a run that is no longer kept, and return its alerts, which end with it."""
        return [AlertChange("resolved", alert) for alert in self._firing.pop(run, {}).values()]

    def rename(self, run: str, name: str) -> None:
        """Keep a run's alerts under another name; none begins or ends."""
        firing = self._firing.pop(run, None)
        if firing:
            self._firing[name] = {key: replace(alert, run=name) for key, alert in firing.items()}


def _latest_steps(health: RunHealth) -> Iterator[tuple[StreamKey, int]]:
    for stream in health.streams:
        yield (stream.model, stream.split, None), stream.step
    for gold in health.gold:
        yield (None, None, gold.source), gold.points[-1].step


def _alerts(health: RunHealth) -> Iterator[tuple[AlertKey, Alert]]:
    for stream in (stream for stream in health.streams if not is_shadow(stream.split)):
        for state in stream.rules:
            if state.severity is not None:
                key = AlertKey(stream.model, stream.split, state.rule)
                yield key, _rule_alert(health.run, stream, state, state.severity)
    for gold in health.gold:
        if gold.advice is not None:
            yield AlertKey(None, None, GOLD, gold.source), _gold_alert(health.run, gold)


def _rule_alert(run: str, stream: StreamHealth, state: RuleState, severity: Severity) -> Alert:
    return Alert(
        run=run,
        model=stream.model,
        split=stream.split,
        step=stream.step,
        rule=state.rule,
        severity=severity,
        since_step=stream.step if state.since_step is None else state.since_step,
        value=state.value,
        threshold=state.threshold,
        about=state.about,
        evidence=state.evidence,
        limits=state.limits,
    )


def _gold_alert(run: str, gold: GoldHealth) -> Alert:
    advice = gold.advice
    assert advice is not None
    return Alert(
        run=run,
        model=None,
        split=None,
        step=gold.points[-1].step,
        rule=GOLD,
        severity="critical" if advice.action == "stop" else "warn",
        since_step=advice.step,
        value=None,
        threshold=None,
        about=[gold.source, advice.action, *advice.grounds],
        evidence={},
        limits=GOLD_LIMITS,
    )
