"""Train a tiny policy by GRPO to answer from passages, on the contract `grounded-answer@1`."""

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from coast import (
    HELD_OUT,
    OTHERS,
    VALUES,
    Library,
    Question,
    attempt,
    lights,
    prompt,
    questions,
    tokenizer,
)
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM
from trl import GRPOConfig, GRPOTrainer

from assay_client.rewards.contracts import GroundedAnswer
from assay_client.trainers.grounded_answers import Reward

SEED, GENERATIONS, PROMPTS, MAX_TOKENS = 7, 8, 16, 32
COPYING, PRETRAINING, BATCH, RATE = 300, 450, 32, 4e-3


def write_policy(folder: Path, words: Any, rng: random.Random) -> str:
    """Pretrain a small decoder, first on copying, then on attempts, and return its folder.

    The passages have random facts, so that it learns nothing about the real ones.
    """
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=256, pad_token_id=0, bos_token_id=1,
        eos_token_id=1, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 0.03, total_iters=30)
    for step in range(PRETRAINING):
        examples = list(_examples(rng, is_copying=step < COPYING))
        batch = words(examples, padding=True, return_tensors="pt")
        loss = model(**_inputs_and_labels(batch, words)).loss
        loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 100 == 99:
            sys.stdout.write(f"pretraining {step + 1}/{PRETRAINING}: loss {loss.item():.3f}\n")
            sys.stdout.flush()
    model.save_pretrained(folder)
    return str(folder)


def _examples(rng: random.Random, *, is_copying: bool) -> Iterator[str]:
    """Yield prompts with an answer each: the right answer from one passage, or an attempt from two.

    The second passage is about another light, or about none.
    """
    for _ in range(BATCH):
        light, other = rng.sample(lights(rng), 2)
        question = rng.choice(list(questions([light])))
        passages = [light.passage()]
        if not is_copying:
            passages.append(rng.choice((other.passage(), rng.choice(OTHERS))))
        right = f"<answer> {question.answer} </answer>"
        response = right if is_copying else attempt(rng, question)
        yield f"{prompt(passages, question.text)} {response} <end>"


def _inputs_and_labels(batch: Any, words: Any) -> dict[str, Any]:
    """Return inputs and labels, with a loss only on the tokens after the prompt."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    end_of_prompt = words.convert_tokens_to_ids("answer")
    after = (ids == end_of_prompt).cumsum(dim=1) - (ids == end_of_prompt).long()
    labels = ids.masked_fill((after == 0) | (mask == 0), -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def rows_of(asked: Sequence[Question], library: Library) -> dict[str, list[Any]]:
    """Return the data set: questions, retrieved passages, references, and all true sentences.

    The reward does not get the columns `facts` and `known`.
    """
    texts = [question.text for question in asked]
    passages = [library.search(text) for text in texts]
    return {
        "prompt": [prompt(*pair) for pair in zip(passages, texts, strict=True)],
        "evidence": passages,
        "references": [[question.reference] for question in asked],
        "facts": [question.facts for question in asked],
        "known": [[question.light.sentence(kind) for kind in VALUES] for question in asked],
    }


class Recorder:
    """A reward function that records breakdowns, and logs the share of true sentences."""

    __name__ = "grounded_answer"

    def __init__(self, reward: Reward) -> None:
        self.reward = reward
        self.breakdowns: list[dict[str, Any]] = []

    def __call__(
        self, prompts: Any, completions: Any, facts: Any, known: Any, **columns: Any
    ) -> Any:
        """Return the rewards, and record the breakdowns with the step."""
        rewards = self.reward(prompts, completions, **columns)
        step = columns["trainer_state"].global_step
        for place, name in enumerate(("true/first", "true/second")):
            columns["log_metric"](name, share_of(completions, [row[place] for row in facts]))
        columns["log_metric"]("true/sentences", truth_of(completions, known))
        self.breakdowns += [
            {"step": step, "completion": text, **breakdown.to_dict()}
            for text, breakdown in zip(completions, self.reward.breakdowns, strict=True)
        ]
        return rewards


def share_of(completions: Sequence[str], sentences: Sequence[str]) -> float:
    """Return the share of completions that contain their sentence."""
    matches = [sentence in text for text, sentence in zip(completions, sentences, strict=True)]
    return sum(matches) / len(matches)


def truth_of(completions: Sequence[str], known: Sequence[Sequence[str]]) -> float:
    """Return the share of sentences that are true of the light, asked for or not."""
    matches = []
    for text, facts in zip(completions, known, strict=True):
        plain = text.replace("<answer>", "").replace("</answer>", "")
        sentences = [part.strip() + " ." for part in plain.split(" .") if part.strip()]
        matches += [sentence in facts for sentence in sentences]
    return sum(matches) / max(1, len(matches))


def train(folder: Path, reward: Recorder, steps: int) -> list[dict[str, Any]]:
    """Train a policy on this reward; return the log of each step."""
    torch.manual_seed(SEED)
    rng = random.Random(SEED)  # noqa: S311 nothing is secret here
    words, all_lights = tokenizer(), lights()
    library = Library(all_lights)
    policy = write_policy(folder / "policy", words, rng)
    asked = list(questions([light for light in all_lights if light.name not in HELD_OUT]))
    arguments = GRPOConfig(
        str(folder / "trained"), max_steps=steps, logging_steps=1, learning_rate=5e-4,
        per_device_train_batch_size=PROMPTS * GENERATIONS, num_generations=GENERATIONS,
        max_completion_length=MAX_TOKENS, beta=0.01, temperature=1.0, seed=SEED, report_to=[],
        use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True,
        lr_scheduler_type="constant", activation_checkpointing=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        policy,
        reward_funcs=[reward],
        args=arguments,
        train_dataset=Dataset.from_dict(rows_of(rng.choices(asked, k=PROMPTS * steps), library)),
        processing_class=words,
    )
    held_out = [light for light in all_lights if light.name in HELD_OUT]
    rows = rows_of(list(questions(held_out)), library)
    _print_held_out("before", trainer.model, words, rows)
    trainer.train()
    _print_held_out("after", trainer.model, words, rows)
    return [row for row in trainer.state.log_history if "reward" in row]


def _print_held_out(when: str, model: Any, words: Any, rows: dict[str, list[Any]]) -> None:
    """Print the shares of right answers about lights never trained on, and one such answer."""
    responses = most_likely(model.eval(), words, rows["prompt"])
    first, second = (share_of(responses, [row[at] for row in rows["facts"]]) for at in (0, 1))
    shares = f"first {first:.3f}, second {second:.3f}"
    sys.stdout.write(f"{when}: held out, {shares}; {responses[0]!r}\n")
    sys.stdout.flush()


def most_likely(model: Any, words: Any, prompts: Sequence[str]) -> list[str]:
    """Return the policy's responses with greedy decoding."""
    encoded = words(list(prompts), padding=True, return_tensors="pt")
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    output = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=MAX_TOKENS)
    responses: list[str] = words.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
    return responses


def main() -> None:
    """Train, and write the log and the breakdowns beside the policy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--alpha", type=float, default=1.0, help="the weight of phi (1)")
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    contract = GroundedAnswer(alpha=given.alpha)
    reward = Reward("nli-small@1", on_failure="none", url=given.url, contract=contract)
    recorder = Recorder(reward)
    log = train(given.folder, recorder, given.steps)
    (given.folder / "log.json").write_text(json.dumps(log, indent=1) + "\n")
    lines = "".join(json.dumps(breakdown) + "\n" for breakdown in recorder.breakdowns)
    (given.folder / "breakdowns.jsonl").write_text(lines)
    sys.stdout.write(f"{reward.failures}\n")
    reward.close()


if __name__ == "__main__":
    main()
