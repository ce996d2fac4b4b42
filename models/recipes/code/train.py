"""Trains the adapter of `code@1`: Bradley-Terry loss on pairs of programs for one problem.

Resumable: a checkpoint is written every few minutes, and a run that was broken off goes on from it.
"""

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

from recipes.code.data import Pack, Packer, Pair, read_pairs, training_pairs
from recipes.code.packed import (
    Adapter,
    PackedModel,
    adapted,
    backbone,
    bradley_terry,
    encoder,
)
from recipes.measure import Figure, pair_accuracy

EXAMPLE = "example: python -m recipes.code.train --data ../shared/data --out work/code"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to train. Token counts are of packed rows."""

    tokens: int = 2_400_000
    step_tokens: int = 2_500
    rate: float = 5e-4
    warm_up: float = 0.04
    weight_decay: float = 0.01
    centre: float = 0.01
    longest: int = 768
    pack_budget: int = 450
    seed: int = 17
    evaluations: int = 2
    guide_pairs: int = 200
    checkpoint_seconds: float = 240.0


class Trainer:
    """One training run: the model, its optimizer, how many tokens it has seen."""

    def __init__(self, model: PeftModel, plan: Plan, out: Path) -> None:
        self.model = model
        self.plan = plan
        self.packed = PackedModel(model, Adapter().first_layer)
        self.trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=plan.rate, betas=(0.9, 0.98), weight_decay=plan.weight_decay
        )
        self.seen = 0
        self.checkpoint = out / "checkpoint.pt"

    def step(self, packs: Sequence[Pack]) -> tuple[float, float]:
        """One update from a few packs; their mean loss and the share of pairs won."""
        programs = sum(len(pack.programs) for pack in packs)
        losses, wins = 0.0, 0.0
        for pack in packs:
            scores = self.packed.logits(pack)
            loss, won = bradley_terry(scores, [program.good for program in pack.programs])
            weight = len(pack.programs) / programs
            torch.autograd.backward(weight * (loss + self.plan.centre * scores.mean().square()))
            losses, wins = losses + weight * float(loss), wins + weight * float(won)
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate * self._schedule()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.seen += sum(pack.tokens for pack in packs)
        return losses, wins

    def _schedule(self) -> float:
        done = self.seen / self.plan.tokens
        return min(1.0, (done + 0.002) / self.plan.warm_up) * max(0.02, 1.0 - done)

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "adapter": get_peft_model_state_dict(self.model),
            "optimizer": self.optimizer.state_dict(),
            "seen": self.seen,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def resume(self) -> None:
        """Go on from the checkpoint, where there is one."""
        if not self.checkpoint.is_file():
            return
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        set_peft_model_state_dict(self.model, state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seen = state["seen"]
        print(f"resumed at {self.seen:,} tokens", flush=True)


def steps(
    plan: Plan, epoch: Callable[[random.Random], list[Pack]]
) -> Iterator[tuple[int, list[Pack]]]:
    """The packs of each update, with the tokens seen before it; the same for the same plan."""
    generator, seen = random.Random(plan.seed), 0  # noqa: S311 - a sample
    while True:
        gathered: list[Pack] = []
        for pack in epoch(generator):
            gathered.append(pack)
            if sum(one.tokens for one in gathered) >= plan.step_tokens:
                yield seen, gathered
                seen += sum(one.tokens for one in gathered)
                gathered = []


def natural_accuracy(packed: PackedModel, packer: Packer, pairs: Sequence[Pair]) -> Figure:
    """Pair accuracy on the natural dev pairs, bf16, as a guide during training."""
    ordered = sorted(pairs, key=lambda pair: pair.prompt)
    margins: list[float] = []
    for _, group in groupby(ordered, key=lambda pair: pair.prompt):
        same = list(group)
        scores: dict[str, float] = {}
        for pack in packer.packs(same):
            with torch.no_grad():
                logits = packed.logits(pack).tolist()
            scores |= dict(zip((program.text for program in pack.programs), logits, strict=True))
        margins += [scores.get(p.chosen, 0.0) - scores.get(p.rejected, 0.0) for p in same]
    return pair_accuracy(margins, [pair.problem for pair in ordered])


def train(data: Path, out: Path, plan: Plan) -> None:
    """Run the plan to its end and write the adapter to `out/adapter`."""
    torch.manual_seed(plan.seed)
    out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(adapted(backbone(), Adapter()), plan, out)
    trainer.resume()
    encode = encoder()
    packer = Packer(encode, plan.longest, plan.pack_budget)
    shares = training_pairs(data)
    dev = [pair for _, pair in read_pairs(data, "pairs_natural_dev", "dev")]
    dev = random.Random(plan.seed).sample(dev, plan.guide_pairs)  # noqa: S311 - a sample
    progress = Progress(plan, trainer.seen)
    marks = iter(_marks(plan, trainer.seen))
    mark = next(marks, plan.tokens)
    for seen, packs in steps(plan, lambda generator: packer.epoch(shares, generator)):
        if seen >= plan.tokens:
            break
        if seen < trainer.seen:
            continue
        progress.note(*trainer.step(packs), trainer.seen)
        if progress.checkpoint_is_due():
            trainer.save()
        if trainer.seen >= mark:
            mark = next(marks, 2 * plan.tokens)
            trainer.save()
            print(f"natural dev {natural_accuracy(trainer.packed, packer, dev)}", flush=True)
    trainer.save()
    trainer.model.save_pretrained(str(out / "adapter"))
    print(f"natural dev {natural_accuracy(trainer.packed, packer, dev)}", flush=True)


class Progress:
    """A line every few steps: loss, share of pairs won, rate, remaining time."""

    def __init__(self, plan: Plan, seen: int) -> None:
        self._plan = plan
        self._start, self._started_with = time.monotonic(), seen
        self._saved = self._start
        self._window: list[tuple[float, float]] = []

    def note(self, loss: float, won: float, seen: int) -> None:
        """Add one step; print every twentieth."""
        self._window.append((loss, won))
        if len(self._window) % 10:
            return
        losses, wins = zip(*self._window[-50:], strict=True)
        rate = (seen - self._started_with) / (time.monotonic() - self._start)
        print(
            f"{seen:>9,} tokens  loss {sum(losses) / len(losses):.4f}"
            f"  won {sum(wins) / len(wins):.3f}  {rate:.0f} tokens/s"
            f"  {(self._plan.tokens - seen) / rate / 60:.0f} min left",
            flush=True,
        )

    def checkpoint_is_due(self) -> bool:
        """Whether the plan's interval has passed since the last checkpoint."""
        due = time.monotonic() - self._saved > self._plan.checkpoint_seconds
        if due:
            self._saved = time.monotonic()
        return due


def _marks(plan: Plan, seen: int) -> list[int]:
    every = plan.tokens // plan.evaluations
    return [mark for mark in range(every, plan.tokens, every) if mark > seen]


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds code/")
    parser.add_argument("--out", type=Path, default=Path("work/code"), help="where to write")
    parser.add_argument("--tokens", type=int, default=Plan().tokens, help="length of the run")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.data, arguments.out, Plan(tokens=arguments.tokens))


if __name__ == "__main__":
    main()
