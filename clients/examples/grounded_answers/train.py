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

SEED, GENERATIONS, PROMPTS, LONGEST = 7, 8, 16, 32
COPYING, PRETRAINING, BATCH, RATE = 300, 450, 32, 4e-3


def write_policy(folder: Path, words: Any, chance: random.Random) -> str:
    """A small decoder that has learnt to copy, and then has read answers of all kinds, to passages
    with facts drawn by lot: no more of the coast than that."""
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=256, pad_token_id=0, bos_token_id=1,
        eos_token_id=1, tie_word_embeddings=True,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 0.03, total_iters=30)
    for step in range(PRETRAINING):
        examples = list(_examples(chance, right=step < COPYING))
        batch = words(examples, padding=True, return_tensors="pt")
        loss = model(**_lesson(batch, words)).loss
        loss.backward()
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        if step % 100 == 99:
            sys.stdout.write(f"pretraining {step + 1}/{PRETRAINING}: loss {loss.item():.3f}\n")
            sys.stdout.flush()
    model.save_pretrained(folder)
    return str(folder)


def _examples(chance: random.Random, *, right: bool) -> Iterator[str]:
    """Prompts with an answer each: the right one to one passage, or an attempt to two, of which the
    second is about another light, or about none."""
    for _ in range(BATCH):
        one, other = chance.sample(lights(chance), 2)
        question = chance.choice(list(questions([one])))
        passages = [one.passage()]
        if not right:
            passages.append(chance.choice((other.passage(), chance.choice(OTHERS))))
        said = f"<answer> {question.answer} </answer>" if right else attempt(chance, question)
        yield f"{prompt(passages, question.text)} {said} <end>"


def _lesson(batch: Any, words: Any) -> dict[str, Any]:
    """Inputs and labels: what follows the prompt is to be learnt."""
    ids, mask = batch["input_ids"], batch["attention_mask"]
    asked = words.convert_tokens_to_ids("answer")
    after = (ids == asked).cumsum(dim=1) - (ids == asked).long()
    labels = ids.masked_fill((after == 0) | (mask == 0), -100)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def rows_of(asked: Sequence[Question], library: Library) -> dict[str, list[Any]]:
    """The data set: each question with what the retriever found for it, what the reward knows of
    the answer, and what is true, which it does not."""
    found = [library.search(one.text) for one in asked]
    return {
        "prompt": [prompt(*pair) for pair in zip(found, (one.text for one in asked), strict=True)],
        "evidence": found,
        "references": [[one.reference] for one in asked],
        "facts": [one.facts for one in asked],
        "known": [[one.light.says(kind) for kind in VALUES] for one in asked],
    }


class Recorder:
    """The reward function, which also keeps the accounts of each call, and tells what is true."""

    __name__ = "grounded_answer"

    def __init__(self, reward: Reward) -> None:
        self.reward = reward
        self.accounts: list[dict[str, Any]] = []

    def __call__(
        self, prompts: Any, completions: Any, facts: Any, known: Any, **columns: Any
    ) -> Any:
        """As TRL asks; the accounts are kept with the step."""
        rewards = self.reward(prompts, completions, **columns)
        step = columns["trainer_state"].global_step
        for place, name in enumerate(("true/first", "true/second")):
            columns["log_metric"](name, share_of(completions, [one[place] for one in facts]))
        columns["log_metric"]("true/sentences", truth_of(completions, known))
        told = zip(completions, self.reward.accounts, strict=True)
        self.accounts += [{"step": step, "completion": text, **one.told()} for text, one in told]
        return rewards


def share_of(completions: Sequence[str], sentences: Sequence[str]) -> float:
    """The share of completions that say their sentence."""
    said = [one in text for text, one in zip(completions, sentences, strict=True)]
    return sum(said) / len(said)


def truth_of(completions: Sequence[str], known: Sequence[Sequence[str]]) -> float:
    """The share of sentences that are true of the light, whether they were asked for or not."""
    marks = []
    for text, facts in zip(completions, known, strict=True):
        plain = text.replace("<answer>", "").replace("</answer>", "")
        sentences = [one.strip() + " ." for one in plain.split(" .") if one.strip()]
        marks += [one in facts for one in sentences]
    return sum(marks) / max(1, len(marks))


def train(folder: Path, reward: Recorder, steps: int) -> list[dict[str, Any]]:
    """Train a policy on this reward; what was logged at each step."""
    torch.manual_seed(SEED)
    chance = random.Random(SEED)  # noqa: S311 nothing is secret here
    words, known = tokenizer(), lights()
    library = Library(known)
    policy = write_policy(folder / "policy", words, chance)
    asked = list(questions([one for one in known if one.name not in HELD_OUT]))
    arguments = GRPOConfig(
        str(folder / "trained"), max_steps=steps, logging_steps=1, learning_rate=5e-4,
        per_device_train_batch_size=PROMPTS * GENERATIONS, num_generations=GENERATIONS,
        max_completion_length=LONGEST, beta=0.01, temperature=1.0, seed=SEED, report_to=[],
        use_cpu=True, bf16=False, save_strategy="no", disable_tqdm=True,
        lr_scheduler_type="constant", activation_checkpointing=False,
    )  # fmt: skip
    trainer = GRPOTrainer(
        policy,
        reward_funcs=[reward],
        args=arguments,
        train_dataset=Dataset.from_dict(rows_of(chance.choices(asked, k=PROMPTS * steps), library)),
        processing_class=words,
    )
    held_out = [one for one in known if one.name in HELD_OUT]
    _show("before", trainer.model, words, held_out, library)
    trainer.train()
    _show("after", trainer.model, words, held_out, library)
    return [one for one in trainer.state.log_history if "reward" in one]


def _show(when: str, model: Any, words: Any, held_out: Any, library: Library) -> None:
    """Write how much is true of what is said of lights never trained on, and one such answer."""
    rows = rows_of(list(questions(held_out)), library)
    said = most_likely(model.eval(), words, rows["prompt"])
    first, second = (share_of(said, [one[at] for one in rows["facts"]]) for at in (0, 1))
    sys.stdout.write(f"{when}: held out, first {first:.3f}, second {second:.3f}; {said[0]!r}\n")
    sys.stdout.flush()


def most_likely(model: Any, words: Any, prompts: Sequence[str]) -> list[str]:
    """What the policy writes when it does not draw lots."""
    asked = words(list(prompts), padding=True, return_tensors="pt")
    ids, mask = asked["input_ids"], asked["attention_mask"]
    written = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=LONGEST)
    said: list[str] = words.batch_decode(written[:, ids.shape[1] :], skip_special_tokens=True)
    return said


def main() -> None:
    """Train, and write the log and the accounts beside the policy."""
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
    lines = "".join(json.dumps(one) + "\n" for one in recorder.accounts)
    (given.folder / "accounts.jsonl").write_text(lines)
    sys.stdout.write(f"{reward.failures}\n")
    reward.close()


if __name__ == "__main__":
    main()
