"""What has begun and what has ended since a run was last looked at."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Literal, NamedTuple

from assay_monitors.reports import GoldHealth, RuleState, RunHealth, StreamHealth
from assay_monitors.rules.finding import Severity

# Runs whose alerts are remembered; as many as are kept.
RUNS = 200
GOLD = "gold"
GOLD_LIMIT = "whether the reward or the gold source is at fault"

Place = tuple[str | None, str | None, str | None]


class AlertKey(NamedTuple):
    """What fires: a rule in a stream, or a gold source."""

    model: str | None
    split: str | None
    rule: str
    source: str | None = None

    @property
    def place(self) -> Place:
        """What has a latest step of its own."""
        return self.model, self.split, self.source


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule that fires, as it was when it was last looked at.

    `model` and `split` name the stream, None where only the trainer spoke; the rest is as in
    `RuleState`. Advice of a gold source has the rule `gold`, and is `about` the source, what is
    advised and the grounds.
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
    cannot_tell: str


@dataclass(frozen=True, slots=True)
class AlertChange:
    """An alert that began or changed its severity (`firing`), or ended (`resolved`)."""

    kind: Literal["firing", "resolved"]
    alert: Alert

    @property
    def id(self) -> str:
        """The same for the same change, whichever server tells it and however often."""
        one = self.alert
        names = (one.run, one.model, one.split, one.rule, one.since_step, one.severity, self.kind)
        # What gold is about is part of which alert it is: each source has its own.
        told = repr((*names, one.about[:1] if one.rule == GOLD else ()))
        return "alert-" + blake2b(told.encode(errors="surrogatepass"), digest_size=16).hexdigest()


class AlertBook:
    """Knows which alerts were told. It forgets the run that was not looked at for longest, and all
    with the process: what still fires is then told again, under the same ids.
    """

    def __init__(self, runs: int = RUNS) -> None:
        self._runs = runs
        self._firing: OrderedDict[str, dict[AlertKey, Alert]] = OrderedDict()

    def changes(self, health: RunHealth) -> list[AlertChange]:
        """What is to be told now that a run's health is known: what ended, then what began."""
        before = self._firing.pop(health.run, {})
        now = dict(_alerts(health))
        if now:
            self._firing[health.run] = now
        if len(self._firing) > self._runs:
            self._firing.popitem(last=False)
        steps = dict(_steps(health))
        ended = [
            AlertChange("resolved", replace(alert, step=steps.get(key.place, alert.step)))
            for key, alert in before.items()
            if key not in now
        ]
        return ended + [
            AlertChange("firing", alert)
            for key, alert in now.items()
            if key not in before or before[key].severity != alert.severity
        ]


def _steps(health: RunHealth) -> Iterator[tuple[Place, int]]:
    for stream in health.streams:
        yield (stream.model, stream.split, None), stream.step
    for gold in health.gold:
        yield (None, None, gold.source), gold.points[-1].step


def _alerts(health: RunHealth) -> Iterator[tuple[AlertKey, Alert]]:
    for stream in health.streams:
        for state in stream.rules:
            if state.severity is not None:
                key = AlertKey(stream.model, stream.split, state.rule)
                yield key, _of_rule(health.run, stream, state, state.severity)
    for gold in health.gold:
        if gold.advice is not None:
            yield AlertKey(None, None, GOLD, gold.source), _of_gold(health.run, gold)


def _of_rule(run: str, stream: StreamHealth, state: RuleState, severity: Severity) -> Alert:
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
        cannot_tell=state.cannot_tell,
    )


def _of_gold(run: str, gold: GoldHealth) -> Alert:
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
        cannot_tell=GOLD_LIMIT,
    )
