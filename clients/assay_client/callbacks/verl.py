"""A hook for verl: one more logger of its tracking, which verl calls at the end of each step."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from assay_client.callbacks.run_health import HealthGuard, OnFiring, Unreachable, named
from assay_client.client import Client
from assay_client.types import Severity

# verl's names for what the server's rules look at.
TELEMETRY: Mapping[str, str] = {
    "actor/entropy": "entropy_nats",
    "actor/kl_loss": "kl",
    "actor/reward_kl_penalty": "kl",
    "response_length/mean": "response_tokens_mean",
}


class VerlHook:
    """Watches a run's health while verl trains.

        hook = VerlHook(client, "exp-17", trainer=trainer, stop_at="critical")
        with hook.tracking(verl.utils.tracking.Tracking):
            trainer.fit()

    Every so many steps it asks for the run's health, logs each rule that begins to fire and calls
    `on_firing`. Where `stop_at` says so, the next step becomes verl's last: it validates, saves and
    returns as at its end. verl's own loop runs in one process, so nothing has to be agreed on.

    Args:
        client: asks the server.
        run: the run's name, as the reward function gives it.
        trainer: verl's trainer (`global_steps`, `total_training_steps`); only with `stop_at`.
        every: steps between two looks.
        telemetry: the server's name for each of verl's that is told; empty for none.
        rules: see `HealthGuard`, as for the others.
        stop_at: the severity from which a rule stops the training; None: none does.
        on_firing: called with the step and the rules that fire.
        unreachable: `warn` or `raise`.
        timeout: seconds that a question may take.

    Raises:
        ValueError: an argument is something else than it may be, or `stop_at` without a trainer.
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
        self.guard = HealthGuard(
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
        """What verl calls with a step's figures."""
        self.guard.tell(step, named(data, self._telemetry))
        if step % self.every == 0 and self.guard.look(step):
            last = self._trainer.global_steps + 1
            self._trainer.total_training_steps = min(last, self._trainer.total_training_steps)

    @contextmanager
    def tracking(self, tracking: type) -> Iterator[None]:
        """While this is open, each `Tracking` that verl makes has the hook among its loggers."""
        made: Any = tracking
        begin = made.__init__

        def begin_with_hook(self: Any, *args: Any, **fields: Any) -> None:
            begin(self, *args, **fields)
            self.logger["assay"] = hook

        hook = self
        made.__init__ = begin_with_hook
        try:
            yield
        finally:
            made.__init__ = begin
