"""Train a tiny policy by GRPO on a reward from Assay that it learns to hack; monitor the run."""

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM
from trl import GRPOConfig, GRPOTrainer
from world import RIGHT, answer, gold, question, tokenizer

from assay_client import Client
from assay_client.callbacks.run_health import Firing
from assay_client.callbacks.trl import HealthMonitorCallback

SEED, GENERATIONS, PROMPTS, GOLD_EVERY, PRETRAINING = 11, 8, 16, 5, 800


def write_policy(folder: Path, words: Any, rng: random.Random) -> str:
    """Pretrain a small decoder that answers rightly four times in five; return its folder."""
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, pad_token_id=0, bos_token_id=1,
        eos_token_id=1, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(PRETRAINING):
        rows = []
        for _ in range(64):
            thing = rng.choice(list(RIGHT))
            is_right, confident = rng.random() < 0.8, rng.choice((0, 0, 0, 1))
            response = answer(rng, thing, is_right=is_right, confident=confident)
            rows.append(f"{question(thing)} {response} <end>")
        batch = words(rows, padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        mask = batch["attention_mask"]
        model(batch["input_ids"], attention_mask=mask, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    return str(folder)


class Reward:
    """A reward function for TRL that gets scores from the server and records true rewards there."""

    __name__ = "assay"

    def __init__(self, client: Client, url: str, run: str) -> None:
        self._client = client
        self._gold = f"{url}/v1/runs/{run}/gold"
        self._run = run

    def __call__(
        self,
        prompts: list[str],
        completions: list[str],
        completion_ids: list[list[int]],
        trainer_state: Any,
        **_: Any,
    ) -> list[float]:
        """Return one score for each completion; an item without a score ends the training."""
        step = trainer_state.global_step
        groups = [f"{step}-{index // GENERATIONS}" for index in range(len(prompts))]
        items = [
            {"group": group, "prompt": prompt, "response": text or " ", "response_tokens": len(ids)}
            for group, prompt, text, ids in zip(
                groups, prompts, completions, completion_ids, strict=True
            )
        ]
        # `eager` is the served reward model, which pays for confident words.
        scores = self._client.score("eager", items, run={"id": self._run, "step": step}).scores
        if step % GOLD_EVERY == 0:
            self._record_gold(
                step, groups=groups, prompts=prompts, completions=completions, scores=scores
            )
        return scores

    def _record_gold(
        self,
        step: int,
        *,
        groups: list[str],
        prompts: list[str],
        completions: list[str],
        scores: list[float],
    ) -> None:
        # The group's name stands for its prompt.
        items = [
            {"prompt": group, "proxy": score, "gold": gold(prompt, text)}
            for group, prompt, text, score in zip(groups, prompts, completions, scores, strict=True)
        ]
        body = {"step": step, "source": "exact answers", "items": items}
        httpx2.post(self._gold, json=body).raise_for_status()
        mean = sum(item["gold"] for item in items) / len(items)
        sys.stdout.write(f"step {step}: gold {mean:.2f}; e.g. {completions[0]!r}\n")


def main() -> None:
    """Train, and write the step at which each rule fired first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--run", default="hacked")
    parser.add_argument("--steps", type=int, default=120)
    given = parser.parse_args()
    torch.manual_seed(SEED)
    rng = random.Random(SEED)  # noqa: S311 nothing is secret here
    words, client = tokenizer(), Client(given.url)
    fired: dict[str, dict[str, object]] = {}

    def record(step: int, firing: Sequence[Firing]) -> None:
        for rule in firing:
            first = {"since": rule.since_step, "seen": step, "severity": rule.severity}
            fired.setdefault(f"{rule.rule} ({rule.severity})", first)

    arguments = GRPOConfig(
        str(given.folder / "trained"), max_steps=given.steps, logging_steps=1, learning_rate=3e-4,
        per_device_train_batch_size=PROMPTS * GENERATIONS, num_generations=GENERATIONS,
        max_completion_length=16, beta=0.005, temperature=1.0, seed=SEED, report_to=[],
        use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True,
        lr_scheduler_type="constant",
        activation_checkpointing=False,
    )  # fmt: skip
    things = [rng.choice(list(RIGHT)) for _ in range(PROMPTS * given.steps)]
    trainer = GRPOTrainer(
        write_policy(given.folder / "policy", words, rng),
        reward_funcs=Reward(client, given.url, given.run),
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": [question(thing) for thing in things]}),
        processing_class=words,
        callbacks=[HealthMonitorCallback(client, given.run, every=1, on_firing=record)],
    )
    trainer.train()
    (given.folder / "fired.json").write_text(json.dumps(fired, indent=2) + "\n")


if __name__ == "__main__":
    main()
