"""Gradient regularisation in TRL's GRPOTrainer, on a policy made on the spot."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from assay_client.callbacks.run_health import Firing
from assay_client.regularisation import (
    GoldResponse,
    GradientRegularisationMixin,
    GradientRegulariser,
    GradientReport,
)

from .policies import make_policy, make_tokenizer

GROUP, STEPS = 4, 3
PROMPTS, RESPONSES = ["count", "name"], ["a", "bb", "ccc", "dddd"]

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*deprecated:FutureWarning")]


class Trainer(GradientRegularisationMixin, GRPOTrainer):
    """As the mix-in's docstring has it; it checks what is repeated at moved weights."""

    def _replay(self, model: Any, batches: list[dict[str, Any]], count: Any) -> None:
        for batch in batches:
            old = batch["old_per_token_logps"]
            assert old.shape == batch["completion_ids"].shape, "fixed, and not of the moved weights"
            assert not old.requires_grad
        super()._replay(model, batches, count)


class Checking(GradientRegulariser):
    """A regulariser that compares the repeated gradient, at the same weights, with the step's."""

    checked = 0

    def regularise(self, parameters: Any, recompute: Any) -> GradientReport:
        named = list(parameters)
        given = [(tensor, tensor.grad) for _, tensor in named if tensor.grad is not None]
        for tensor, _ in given:
            tensor.grad = None
        recompute()
        for tensor, gradient in given:
            torch.testing.assert_close(tensor.grad, gradient)
            tensor.grad = gradient
        self.checked += 1
        return super().regularise(named, recompute)


def build(folder: Path, regulariser: Any, response: Any = None, beta: float = 0.0) -> Any:
    tokenizer = make_tokenizer([*PROMPTS, *RESPONSES])
    arguments = GRPOConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        seed=3,
        beta=beta,
        max_steps=STEPS,
        per_device_train_batch_size=GROUP,
        gradient_accumulation_steps=2,
        num_generations=GROUP,
        max_completion_length=2,
        learning_rate=1e-3,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    policy = make_policy(tokenizer, 3)
    policy.save_pretrained(folder / "policy")  # the trainer loads its reference from there
    policy.config._name_or_path = str(folder / "policy")
    return Trainer(
        model=policy,
        reward_funcs=[lambda completions, **_: [float(len(text)) for text in completions]],
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": PROMPTS * 10}),
        processing_class=tokenizer,
        regulariser=regulariser,
        gold_response=response,
    )


def test_the_repeated_gradient_is_that_of_all_micro_batches(tmp_path: Path) -> None:
    regulariser = Checking()
    trainer = build(tmp_path, regulariser)
    trainer.train()
    assert regulariser.checked == STEPS
    assert trainer._step == 2 * STEPS, "repeated passes are not counted as steps"
    logs = [row for row in trainer.state.log_history if "regularisation/norm" in row]
    assert len(logs) == STEPS
    assert all(row["regularisation/perturbed_norm"] > 0 for row in logs)
    assert all(row["regularisation/ratio"] == pytest.approx(0.3) for row in logs)


def test_without_a_regulariser_the_trainer_is_unchanged(tmp_path: Path) -> None:
    trained = []
    for regulariser in (None, GradientRegulariser(coefficient=0.0)):
        trainer = build(tmp_path, regulariser)
        trainer.train()
        trained.append([weight.detach().clone() for weight in trainer.model.parameters()])
    pairs = zip(*trained, strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


def test_gold_advice_raises_the_ratio_and_resets_the_reference(tmp_path: Path) -> None:
    response = GoldResponse()
    trainer = build(tmp_path, GradientRegulariser(), response, beta=0.01)
    with torch.no_grad():
        for weight in trainer.ref_model.parameters():
            weight.zero_()
    actions = ("raise_regularisation", "reset_reference")
    response(1, [Firing("gold", "warn", None, None, None, ("gold", a), "") for a in actions])
    before = [weight.detach().clone() for weight in trainer.model.parameters()]
    trainer.train()
    assert trainer.regulariser.ratio == 0.6
    pairs = zip(before, trainer.ref_model.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)
