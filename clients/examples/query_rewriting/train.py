"""Train a tiny policy by GRPO to rewrite queries, with or without the drift penalty."""

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from queries import ORIGINALS, TEMPLATE, rewrite, tokenizer
from transformers import LlamaConfig, LlamaForCausalLM
from trl import GRPOConfig, GRPOTrainer

from assay_client.rewards.query_rewriting import DriftPenalty
from assay_client.trainers.query_rewriting import Reward

SEED, GENERATIONS, PROMPTS, PRETRAINING = 7, 8, 16, 600
NO_PENALTY = DriftPenalty(similarity=0, length=0, novelty=0)


def write_policy(folder: Path, words: Any, rng: random.Random) -> str:
    """Pretrain a small decoder on random rewrites; return its folder."""
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=64, pad_token_id=0, bos_token_id=1,
        eos_token_id=1, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(PRETRAINING):
        originals = rng.choices(ORIGINALS, k=64)
        rows = [f"{TEMPLATE.format(text)} {rewrite(rng, text)} <end>" for text in originals]
        batch = words(rows, padding=True, return_tensors="pt")
        mask = batch["attention_mask"]
        labels = batch["input_ids"].masked_fill(mask == 0, -100)
        model(batch["input_ids"], attention_mask=mask, labels=labels).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    return str(folder)


def train(folder: Path, reward: Reward, steps: int) -> list[dict[str, Any]]:
    """Train a policy on this reward; return the log of each step."""
    torch.manual_seed(SEED)
    rng = random.Random(SEED)  # noqa: S311 nothing is secret here
    words = tokenizer()
    arguments = GRPOConfig(
        str(folder / "trained"), max_steps=steps, logging_steps=1, learning_rate=1e-3,
        per_device_train_batch_size=PROMPTS * GENERATIONS, num_generations=GENERATIONS,
        max_completion_length=24, beta=0.02, temperature=1.0, seed=SEED, report_to=[],
        use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True,
        lr_scheduler_type="constant", activation_checkpointing=False,
    )  # fmt: skip
    policy = write_policy(folder / "policy", words, rng)
    originals = rng.choices(ORIGINALS, k=PROMPTS * steps)
    rows = {"prompt": [TEMPLATE.format(text) for text in originals], "original": originals}
    trainer = GRPOTrainer(
        policy,
        reward_funcs=[reward],
        args=arguments,
        train_dataset=Dataset.from_dict(rows),
        processing_class=words,
    )
    trainer.train()
    for original in ORIGINALS[:: len(ORIGINALS) // 5]:
        sys.stdout.write(f"{original!r}: {most_likely(trainer.model.eval(), words, original)!r}\n")
    return [row for row in trainer.state.log_history if "reward" in row]


def most_likely(model: Any, words: Any, original: str) -> str:
    """Return the policy's rewrite with greedy decoding."""
    encoded = words(TEMPLATE.format(original), return_tensors="pt")
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    output = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=24)
    response: str = words.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    return response


def main() -> None:
    """Train, and write the log beside the policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument(
        "--no-drift-penalty", action="store_true", help="the score alone is the reward"
    )
    parser.add_argument("--steps", type=int, default=60)
    given = parser.parse_args()
    reward = Reward(
        "video-qpp@2",
        on_failure="none",
        url=given.url,
        collection="msrvtt",
        empty=-1.0,
        drift_penalty=NO_PENALTY if given.no_drift_penalty else DriftPenalty(),
    )
    log = train(given.folder, reward, given.steps)
    (given.folder / "log.json").write_text(json.dumps(log, indent=1) + "\n")


if __name__ == "__main__":
    main()
