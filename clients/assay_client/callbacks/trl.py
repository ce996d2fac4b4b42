"""A callback for TRL's trainers, and every other `transformers.Trainer`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

from assay_client.callbacks.run_health import HealthGuard, OnFiring, Unreachable, named
from assay_client.client import Client
from assay_client.types import Severity

# TRL's names for what the server's rules look at.
TELEMETRY: Mapping[str, str] = {
    "entropy": "entropy_nats",
    "kl": "kl",
    "objective/kl": "kl",
    "objective/entropy": "entropy_nats",
    "completions/mean_length": "response_tokens_mean",
}


class AssayCallback:
    """Watches a run's health while a trainer trains: `Trainer(..., callbacks=[AssayCallback(…)])`.

    Every so many steps it asks for the run's health, logs each rule that begins to fire, calls
    `on_firing`, and stops the training where `stop_at` says so. What the trainer logs of entropy,
    divergence and length it tells the server, under the step before: the one that
    `trainer_state.global_step` showed to the reward function.

    The first process alone asks and tells. Where `torch.distributed` is initialised, its decision
    is sent to all, so that all stop at the same step.

    Args:
        client: asks the server.
        run: the run's name, as the reward function gives it.
        every: steps between two looks.
        telemetry: the server's name for each of the trainer's that is told; empty for none.
        rules: see `HealthGuard`, as for the others.
        stop_at: the severity from which a rule stops the training; None: none does.
        on_firing: called with the step and the rules that fire.
        unreachable: `warn` or `raise`.
        timeout: seconds that a question may take.

    Raises:
        ValueError: an argument is something else than it may be.
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
        self.guard = HealthGuard(
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
        """Look at the run's health, every so many steps."""
        if state.global_step % self.every:
            return
        stop = self.guard.look(state.global_step) if state.is_world_process_zero else False
        if _agreed(stop):
            control.should_training_stop = True

    def on_log(
        self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **_: Any
    ) -> None:
        """Tell the server what the trainer logs."""
        if state.is_world_process_zero and logs:
            self.guard.tell(max(0, state.global_step - 1), named(logs, self._telemetry))

    def __getattr__(self, name: str) -> Callable[..., None]:
        # Trainers call every callback at every event, of tomorrow too.
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")


def _nothing(*_: object, **__: object) -> None:
    """At an event that is not looked at."""


def _agreed(stop: bool) -> bool:
    """The first process's decision, in all of them.

    This package does not import torch; who trains in several processes has.
    """
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return stop
    box = [stop]
    distributed.broadcast_object_list(box, src=0)
    return box[0]
