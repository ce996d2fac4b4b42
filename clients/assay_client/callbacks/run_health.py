"""What a trainer's hook does at a step: ask for a run's health, say what fires, decide to stop."""

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
_GOLD_LIMIT = "whether the reward or the gold source is at fault"
_MOST_VALUES = 64

Unreachable = Literal["warn", "raise"]


@dataclass(frozen=True)
class Firing:
    """A rule that fires, and where. Advice of a gold source has the rule `gold`, and is `about` the
    source and what it advises."""

    rule: str
    severity: Severity
    model: str | None
    split: str | None
    since_step: int | None
    about: tuple[str, ...]
    cannot_tell: str


OnFiring = Callable[[int, Sequence[Firing]], object]


class HealthGuard:
    """Looks at a run's health for a trainer. It reports; only `stop_at` lets it stop a training.

    A server that cannot be asked does not hold up a training: that is logged and counted in
    `failures`, unless `unreachable` is `raise`.

    Args:
        client: asks the server.
        run: the run's name, as the reward function gives it.
        rules: those that count, by id (`gold` is advice of a gold source); None for all.
        stop_at: the severity from which a rule stops the training; None: none does.
        on_firing: called at each look at which rules fire, with the step and the rules.
        unreachable: what becomes of an error of the client's: `warn` or `raise`.
        timeout: seconds that a question may take.

    Raises:
        ValueError: `stop_at` or `unreachable` is something else.
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
        self._said: set[Firing] = set()

    def look(self, step: int) -> bool:
        """Look at the run's health.

        Returns:
            Whether the training is to stop.

        Raises:
            AssayError: the server cannot be asked, and `unreachable` is `raise`.
        """
        try:
            health = self._client.health(self._run, timeout=self._timeout)
        except AssayError as error:
            self._failed("cannot ask for the health of", error)
            return False
        firing = tuple(one for one in _firing(health) if self._counts(one.rule))
        for one in firing:
            if one not in self._said:
                _LOG.warning("run %s, step %d: %s", self._run, step, _told(one))
        self._said = set(firing)
        if firing and self._on_firing is not None:
            self._on_firing(step, firing)
        stops = ("critical",) if self._stop_at == "critical" else ("warn", "critical")
        return self._stop_at is not None and any(one.severity in stops for one in firing)

    def tell(self, step: int, values: Mapping[str, float]) -> None:
        """Tell what the trainer knows of a step; nothing where there is nothing to tell.

        Raises:
            AssayError: the server cannot be told, and `unreachable` is `raise`.
        """
        if not values:
            return
        try:
            self._client.tell(self._run, step, values, timeout=self._timeout)
        except AssayError as error:
            self._failed("cannot tell of", error)

    def _counts(self, rule: str) -> bool:
        return self._rules is None or rule in self._rules

    def _failed(self, what: str, error: AssayError) -> None:
        if self._unreachable == "raise":
            raise error
        self.failures += 1
        _LOG.warning("%s run %s (%d times now): %s", what, self._run, self.failures, error)


def named(logs: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, float]:
    """A trainer's own figures under the server's names; what is no finite number is left out.

    Args:
        logs: as the trainer logs them.
        names: the server's name for a trainer's; of two for one the first that is there counts.
    """
    found: dict[str, float] = {}
    for theirs, ours in names.items():
        value: Any = logs.get(theirs)
        if isinstance(value, bool) or not hasattr(value, "__float__") or ours in found:
            continue
        number = float(value)
        if math.isfinite(number):
            found[ours] = number
    return dict(list(found.items())[:_MOST_VALUES])


def _firing(health: RunHealth) -> Iterator[Firing]:
    for stream in health.streams:
        for rule in stream.rules:
            if rule.severity is not None:
                yield Firing(
                    rule.rule,
                    rule.severity,
                    stream.model,
                    stream.split,
                    rule.since_step,
                    rule.about,
                    rule.cannot_tell,
                )
    for gold in health.gold:
        if gold.advice is not None:
            severity: Severity = "critical" if gold.advice.action == "stop" else "warn"
            about = (gold.source, gold.advice.action)
            yield Firing("gold", severity, None, None, None, about, _GOLD_LIMIT)


def _told(one: Firing) -> str:
    place = f" on {one.model} ({one.split})" if one.model else ""
    about = f", about {', '.join(one.about)}" if one.about else ""
    since = f" since step {one.since_step}" if one.since_step is not None else ""
    return f"{one.rule} is {one.severity}{since}{place}{about}; cannot tell {one.cannot_tell}"
