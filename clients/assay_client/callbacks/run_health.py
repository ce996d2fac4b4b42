"""Run health monitor: fetches a run's health at a step, reports rules that fire, may stop."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from assay_client.client import Client
from assay_client.errors import AssayError
from assay_client.types import RunHealth, Severity

_LOG = logging.getLogger("assay_client")
_GOLD_LIMITS = "an exploited reward from a gold source that has changed"
_MAX_VALUES = 64

Unreachable = Literal["warn", "raise"]


@dataclass(frozen=True)
class Firing:
    """A rule that fires, with its model and split.

    Advice of a gold source has the rule `gold`, and is `about` the source and the advised action.
    """

    rule: str
    severity: str
    model: str | None
    split: str | None
    since_step: int | None
    about: tuple[str, ...]
    limits: str


OnFiring = Callable[[int, Sequence[Firing]], object]


class RunHealthMonitor:
    """Monitor of a run's health for a trainer. It only reports, unless `stop_at` is set.

    A server that cannot be reached does not delay the training: that is logged and counted in
    `failures`, unless `unreachable` is `raise`.

    Args:
        client: a client of Assay.
        run: the run's name, as the reward function sends it.
        rules: ids of the rules that are considered (`gold` is advice of a gold source); None for
            all.
        stop_at: the severity from which a rule stops the training; None: none does.
        on_firing: called with the step and the rules that fire, at each check at which any does.
        unreachable: the reaction to an error of the client: `warn` or `raise`.
        timeout: seconds for each request.

    Raises:
        ValueError: an argument is invalid.
    """

    def __init__(
        self,
        client: Client,
        run: str,
        *,
        rules: Collection[str] | None = None,
        stop_at: Severity | None = None,
        on_firing: OnFiring | None = None,
        unreachable: Unreachable = "warn",
        timeout: float = 5.0,
    ) -> None:
        if stop_at not in (None, "warn", "critical"):
            raise ValueError("stop_at must be None, 'warn' or 'critical'")
        if unreachable not in ("warn", "raise"):
            raise ValueError("unreachable must be 'warn' or 'raise'")
        if isinstance(rules, str):
            raise ValueError("rules must be several ids, or None for all")
        self.failures = 0
        self._client = client
        self._run = run
        self._rules = None if rules is None else frozenset(rules)
        self._stop_at = stop_at
        self._on_firing = on_firing
        self._unreachable = unreachable
        self._timeout = timeout
        self._logged: set[Firing] = set()

    def check(self, step: int) -> bool:
        """Fetch the run's health, and report the rules that fire.

        Returns:
            Whether the training should stop.

        Raises:
            AssayError: the request failed, and `unreachable` is `raise`.
        """
        try:
            health = self._client.run_health(self._run, timeout=self._timeout)
        except AssayError as error:
            self._handle_failure("cannot ask for the health of", error)
            return False
        firing = tuple(rule for rule in _firing(health) if self._is_considered(rule))
        for rule in firing:
            if rule not in self._logged:
                _LOG.warning("run %s, step %d: %s", self._run, step, _describe(rule))
        self._logged = set(firing)
        if firing and self._on_firing is not None:
            self._on_firing(step, firing)
        stopping = ("critical",) if self._stop_at == "critical" else ("warn", "critical")
        return self._stop_at is not None and any(rule.severity in stopping for rule in firing)

    def record_telemetry(self, step: int, values: Mapping[str, float]) -> None:
        """Record the trainer's figures of a step; do nothing if there are none.

        Raises:
            AssayError: the request failed, and `unreachable` is `raise`.
        """
        if not values:
            return
        try:
            self._client.record_telemetry(self._run, step, values, timeout=self._timeout)
        except AssayError as error:
            self._handle_failure("cannot record telemetry of", error)

    def _is_considered(self, rule: Firing) -> bool:
        return self._rules is None or rule.rule in self._rules

    def _handle_failure(self, action: str, error: AssayError) -> None:
        if self._unreachable == "raise":
            raise error
        self.failures += 1
        _LOG.warning("%s run %s (%d times now): %s", action, self._run, self.failures, error)


def to_telemetry(logs: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, float]:
    """Return a trainer's figures under the server's names; leave out what is no finite number.

    Args:
        logs: as the trainer logs them.
        names: from the trainer's name to the server's. If several map to the same name, the first
            that is in the logs counts.
    """
    telemetry: dict[str, float] = {}
    for trainer_name, server_name in names.items():
        value: Any = logs.get(trainer_name)
        if isinstance(value, bool) or not hasattr(value, "__float__") or server_name in telemetry:
            continue
        number = float(value)
        if math.isfinite(number):
            telemetry[server_name] = number
    return dict(list(telemetry.items())[:_MAX_VALUES])


def _firing(health: RunHealth) -> Iterator[Firing]:
    for stream in health.streams:
        for rule in stream.rules:
            if rule.severity is not None:
                yield Firing(
                    rule=rule.rule,
                    severity=rule.severity,
                    model=stream.model,
                    split=stream.split,
                    since_step=rule.since_step,
                    about=rule.about,
                    limits=rule.limits,
                )
    for gold in health.gold:
        if gold.advice is not None:
            yield Firing(
                rule="gold",
                severity="critical" if gold.advice.action == "stop" else "warn",
                model=None,
                split=None,
                since_step=None,
                about=(gold.source, gold.advice.action),
                limits=_GOLD_LIMITS,
            )


def _describe(rule: Firing) -> str:
    place = f" on {rule.model} ({rule.split})" if rule.model else ""
    about = f", about {', '.join(rule.about)}" if rule.about else ""
    since = f" since step {rule.since_step}" if rule.since_step is not None else ""
    return f"{rule.rule} is {rule.severity}{since}{place}{about}; cannot distinguish {rule.limits}"
