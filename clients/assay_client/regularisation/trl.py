"""Gradient regularisation in TRL's GRPOTrainer.

Checked against the source of TRL 1.16.0.
"""

from __future__ import annotations

import copy
from typing import Any, cast

from assay_client.callbacks.trl import broadcast
from assay_client.regularisation.gold import RAISE, RESET, GoldResponse
from assay_client.regularisation.gradients import GradientRegulariser, GradientReport


class GradientRegularisationMixin:
    """A base class to put before `GRPOTrainer`.

        class Trainer(GradientRegularisationMixin, GRPOTrainer):
            pass

        trainer = Trainer(..., regulariser=GradientRegulariser(), gold_response=response)

    At each step of the optimiser it repeats the backward passes of the step's micro-batches, with
    the same completions and advantages: no sampling and no reward is added. It logs
    `regularisation/norm`, `/perturbed_norm`, `/ratio`, `/coefficient` and `/degenerate_steps`;
    `HealthMonitorCallback` records the norms on the server. Use a policy without dropout.

    Args:
        *args: the trainer's.
        regulariser: None: gradients stay as they are.
        gold_response: its actions are taken before the next step, in all processes.
        **fields: the trainer's.

    Raises:
        ValueError: at the first step: DeepSpeed, FSDP or a scaler of gradients is in use, which
            keep the gradients elsewhere or scaled.
    """

    def __init__(
        self,
        *args: Any,
        regulariser: GradientRegulariser | None = None,
        gold_response: GoldResponse | None = None,
        **fields: Any,
    ) -> None:
        super().__init__(*args, **fields)
        self.regulariser = regulariser
        self.gold_response = gold_response
        self._step_batches: list[dict[str, Any]] = []
        self._is_replay = False
        self._log_probabilities: Any = None

    def _prepare_inputs(self: Any, inputs: Any) -> Any:
        if self._is_replay:
            return inputs
        prepared = cast("Any", super())._prepare_inputs(inputs)
        if self.model.training and self.regulariser is not None:
            self._step_batches.append(dict(prepared))
        return prepared

    def training_step(self: Any, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Run the trainer's step; regularise at the last micro-batch of an optimiser step."""
        loss = cast("Any", super()).training_step(model, inputs, num_items_in_batch)
        self._fix_old_log_probabilities()
        if not self.accelerator.sync_gradients:
            return loss
        batches, self._step_batches = self._step_batches, []
        self._take_actions()
        if self.regulariser is not None:
            _check_gradients_are_plain(self.accelerator)
            report = self.regulariser.regularise(
                model.named_parameters(), lambda: self._replay(model, batches, num_items_in_batch)
            )
            self._log_report(report)
        return loss

    def _get_per_token_logps_and_entropies(self: Any, *args: Any, **fields: Any) -> Any:
        found = cast("Any", super())._get_per_token_logps_and_entropies(*args, **fields)
        if found[0].requires_grad and not self._is_replay:
            self._log_probabilities = found[0].detach()
        return found

    def _fix_old_log_probabilities(self: Any) -> None:
        """Keep the old log probabilities of the latest micro-batch for its replay.

        TRL takes those of the present weights where a batch has none. At the moved weights the loss
        would be another one, whose gradient lacks a part of the curvature.
        """
        if self._step_batches and self._step_batches[-1].get("old_per_token_logps") is None:
            self._step_batches[-1]["old_per_token_logps"] = self._log_probabilities
        self._log_probabilities = None

    def _replay(self: Any, model: Any, batches: list[dict[str, Any]], count: Any) -> None:
        """Repeat the backward passes, without a trace in the trainer's counters and metrics."""
        kept = {name: copy.deepcopy(getattr(self, name)) for name in _COUNTERS}
        self._is_replay = True
        try:
            for batch in batches:
                cast("Any", super()).training_step(model, dict(batch), count)
        finally:
            self._is_replay = False
            vars(self).update(kept)

    def _log_report(self: Any, report: GradientReport) -> None:
        figures = {
            "norm": report.norm,
            "perturbed_norm": report.perturbed_norm,
            "ratio": report.ratio,
            "coefficient": report.coefficient,
            "degenerate_steps": self.regulariser.degenerate_steps,
        }
        for name, value in figures.items():
            self._metrics["train"][f"regularisation/{name}"].append(value)

    def _take_actions(self: Any) -> None:
        response: GoldResponse | None = self.gold_response
        if response is None:
            return
        actions = broadcast(response.take())
        if RAISE in actions and self.regulariser is not None:
            self.regulariser.scale(response.factor, response.max_ratio)
        if RESET in actions:
            copy_policy_to_reference(self)


_COUNTERS = ("_step", "_current_train_step_time", "_metrics")


def copy_policy_to_reference(trainer: Any) -> None:
    """Set a trainer's reference model to the present policy.

    Raises:
        ValueError: it has none, as with `beta=0` or a PEFT model.
    """
    if getattr(trainer, "ref_model", None) is None:
        raise ValueError("the trainer has no reference model to reset: set beta above 0")
    policy = trainer.accelerator.unwrap_model(trainer.model)
    reference = trainer.accelerator.unwrap_model(trainer.ref_model)
    reference.load_state_dict(policy.state_dict())


def _check_gradients_are_plain(accelerator: Any) -> None:
    kind = str(getattr(accelerator.distributed_type, "value", accelerator.distributed_type))
    if kind in ("DEEPSPEED", "FSDP", "MEGATRON_LM"):
        raise ValueError(f"{kind} keeps gradients apart: regularise with one process or with DDP")
    if getattr(accelerator, "scaler", None) is not None:
        raise ValueError("fp16 scales gradients: train in bf16 or in single precision")
