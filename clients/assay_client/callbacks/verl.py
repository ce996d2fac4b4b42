"""A hook for verl: a logger of its tracking, which verl calls at the end of each step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from assay_client.callbacks.run_health import (
    OnFiring,
    RunHealthMonitor,
    Unreachable,
    to_telemetry,
)
from assay_client.client import Client
from assay_client.types import Severity

# From verl's names to the names that the server's rules use.
TELEMETRY: Mapping[str, str] = {
    "actor/entropy": "entropy_nats",
    "actor/kl_loss": "kl",
    "actor/reward_kl_penalty": "kl",
    "response_length/mean": "response_tokens_mean",
    "response_length/clip_ratio": "clipped_share",
}


class VerlHook:
    """Checks a run's health while verl trains.

        hook = VerlHook(client, "exp-17", trainer=trainer, stop_at="critical")
        with hook.tracking(verl.utils.tracking.Tracking):
            trainer.fit()

    Every `every` steps it fetches the run's health, logs each rule that begins to fire and calls
    `on_firing`. If `stop_at` requires it, the next step becomes verl's last: it validates, saves
    and returns as at its end. verl's own loop runs in one process, so no decision is broadcast.

    Args:
        client: a client of Assay.
        run: the run's name, as the reward function sends it.
        trainer: verl's trainer (`global_steps`, `total_training_steps`); only with `stop_at`.
        every: steps between two checks.
        telemetry: the server's name for each of verl's figures to record; empty for none.
        rules: see `RunHealthMonitor`, as for the others.
        stop_at: the severity from which a rule stops the training; None: none does.
        on_firing: called with the step and the rules that fire.
        unreachable: `warn` or `raise`.
        timeout: seconds for each request.

    Raises:
        ValueError: an argument is invalid, or there is `stop_at` without a trainer.
    """

    def __init__(
        self,
        client: Client,
        run: str,
        *,
        trainer: Any = None,
        every: int = 10,
        telemetry: Mapping[str, str] = TELEMETRY,
        rules: Collection[str] | None = None,
        stop_at: Severity | None = None,
        on_firing: OnFiring | None = None,
        unreachable: Unreachable = "warn",
        timeout: float = 5.0,
    ) -> None:
        if every < 1:
            raise ValueError("every must be 1 or more steps")
        if stop_at is not None and trainer is None:
            raise ValueError("stop_at needs the trainer that is to be stopped")
        self.every = every
        self.monitor = RunHealthMonitor(
            client,
            run,
            rules=rules,
            stop_at=stop_at,
            on_firing=on_firing,
            unreachable=unreachable,
            timeout=timeout,
        )
        self._trainer = trainer
        self._telemetry = dict(telemetry)

    def log(self, data: Mapping[str, Any], step: int) -> None:
        """Record a step's figures, and check the run's health; verl calls this."""
        self.monitor.record_telemetry(step, to_telemetry(data, self._telemetry))
        if step % self.every == 0 and self.monitor.check(step):
            last = self._trainer.global_steps + 1
            self._trainer.total_training_steps = min(last, self._trainer.total_training_steps)

    @contextmanager
    def tracking(self, tracking: type) -> Iterator[None]:
        """Add the hook to the loggers of each `Tracking` that verl makes in this context."""
        patched: Any = tracking
        original_init = patched.__init__

        def init_with_hook(self: Any, *args: Any, **fields: Any) -> None:
            original_init(self, *args, **fields)
            self.logger["assay"] = hook

        hook = self
        patched.__init__ = init_with_hook
        try:
            yield
        finally:
            patched.__init__ = original_init
