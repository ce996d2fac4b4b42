"""A callback for TRL's trainers, and every other `transformers.Trainer`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from assay_client.callbacks.run_health import (
    OnFiring,
    RunHealthMonitor,
    Unreachable,
    to_telemetry,
)
from assay_client.client import Client
from assay_client.types import Severity

# From TRL's names to the names that the server's rules use.
T = TypeVar("T")

TELEMETRY: Mapping[str, str] = {
    "entropy": "entropy_nats",
    "kl": "kl",
    "objective/kl": "kl",
    "objective/entropy": "entropy_nats",
    "completions/mean_length": "response_tokens_mean",
    "completions/clipped_ratio": "clipped_share",
    "regularisation/norm": "gradient_norm",
    "regularisation/perturbed_norm": "perturbed_gradient_norm",
    "regularisation/degenerate_steps": "degenerate_steps",
}


class HealthMonitorCallback:
    """Checks a run's health while a trainer trains.

        trainer = Trainer(..., callbacks=[HealthMonitorCallback(client, "exp-17")])

    Every `every` steps it fetches the run's health, logs each rule that begins to fire, calls
    `on_firing`, and stops the training if `stop_at` requires it. It records the trainer's entropy,
    divergence and length on the server, under the step before: the one that
    `trainer_state.global_step` showed to the reward function.

    Only the first process sends requests. If `torch.distributed` is initialised, its decision is
    broadcast, so that all processes stop at the same step.

    Args:
        client: a client of Assay.
        run: the run's name, as the reward function sends it.
        every: steps between two checks.
        telemetry: the server's name for each of the trainer's figures to record; empty for none.
        rules: see `RunHealthMonitor`, as for the others.
        stop_at: the severity from which a rule stops the training; None: none does.
        on_firing: called with the step and the rules that fire.
        unreachable: `warn` or `raise`.
        timeout: seconds for each request.

    Raises:
        ValueError: an argument is invalid.
    """

    def __init__(
        self,
        client: Client,
        run: str,
        *,
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
        self._telemetry = dict(telemetry)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Check the run's health, every `every` steps."""
        if state.global_step % self.every:
            return
        stop = self.monitor.check(state.global_step) if state.is_world_process_zero else False
        if broadcast(stop):
            control.should_training_stop = True

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        """Record the trainer's figures on the server."""
        if state.is_world_process_zero and logs:
            step = max(0, state.global_step - 1)
            self.monitor.record_telemetry(step, to_telemetry(logs, self._telemetry))

    def __getattr__(self, name: str) -> Callable[..., None]:
        # Trainers call every callback at every event, including events that are added later.
        if name.startswith("on_"):
            return _ignore
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


def _ignore(*_: object, **__: object) -> None:
    """Do nothing at an event that the callback does not use."""


def broadcast(decision: T) -> T:
    """Return the first process's decision in all processes.

    This package does not import torch; a trainer of several processes has imported it.
    """
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return decision
    shared = [decision]
    distributed.broadcast_object_list(shared, src=0)
    return shared[0]
