"""Trains the adapter of `code@2`: Bradley-Terry loss on pairs of programs for one problem.

The logit less a weight times the surprisal of the program's tokens learns to order every two
programs of a problem. `recipes.code.weigh` shows what other weights do once it is trained.

Resumable: a checkpoint is written every few minutes, and a run that was broken off goes on from it.
Several processes share the work of each update: `python -m torch.distributed.run
--nproc-per-node 2 -m recipes.code.train ...`, one thread each.
"""

import argparse
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from numpy.typing import NDArray
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from recipes.code.data import Pack, Packer, Pair, Share, read_pairs, training_pairs
from recipes.code.packed import (
    Adapter,
    PackedModel,
    adapted,
    backbone,
    bradley_terry,
    encoder,
)
from recipes.code.samples import sampled_pairs
from recipes.measure import pair_accuracy

EXAMPLE = "example: python -m recipes.code.train --data ../shared/data --out work/code"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to train. Token counts are of packed rows.

    The rate falls to nothing at `tokens`; the run ends at `stop`.
    """

    tokens: int = 2_600_000
    stop: int = 800_000
    step_tokens: int = 2_500
    rate: float = 4e-4
    warm_up: float = 0.04
    weight_decay: float = 0.01
    centre: float = 0.002
    weight: float = 5.0
    longest: int = 768
    pack_budget: int = 450
    seed: int = 17
    evaluations: int = 2
    guide_pairs: int = 200
    samples: int = 2_500
    checkpoint_seconds: float = 240.0


class Crew:
    """The processes that share each update; one, unless a launcher started several."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.size > 1:
            torch.distributed.init_process_group("gloo")

    def share(self, packs: Sequence[Pack]) -> Sequence[Pack]:
        """This process's part of an update."""
        return packs[self.rank :: self.size]

    def add_up(self, weights: Sequence[Tensor], figures: Tensor) -> Tensor:
        """The sum over all processes, of the gradients in place, and of the figures."""
        if self.size == 1:
            return figures
        given = [torch.zeros_like(one) if one.grad is None else one.grad for one in weights]
        flat = torch.cat([*(one.flatten() for one in given), figures])
        torch.distributed.all_reduce(flat)
        *sums, summed = torch.split(flat, [*(one.numel() for one in weights), len(figures)])
        for weight, gradient in zip(weights, sums, strict=True):
            weight.grad = gradient.view_as(weight).clone()
        return summed

    def tell(self, line: str) -> None:
        """Print a line, once for all processes."""
        if self.rank == 0:
            print(line, flush=True)


class Trainer:
    """One training run: the model, its optimizer, how many tokens it has seen."""

    def __init__(self, model: PeftModel, plan: Plan, out: Path, crew: Crew) -> None:
        self.model = model
        self.plan = plan
        self.crew = crew
        self.packed = PackedModel(model, Adapter().first_layer, fused=True)
        self.trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trained, lr=plan.rate, betas=(0.9, 0.98), weight_decay=plan.weight_decay
        )
        self.seen = 0
        self.checkpoint = out / "checkpoint.pt"

    def step(self, packs: Sequence[Pack]) -> tuple[float, float]:
        """One update from a few packs; their mean loss and the share of pairs won."""
        programs = sum(len(pack.programs) for pack in packs)
        figures = torch.zeros(2)
        for pack in self.crew.share(packs):
            loss, won = self._loss(pack)
            weight = len(pack.programs) / programs
            torch.autograd.backward(weight * loss)
            figures += weight * torch.stack([loss.detach(), won])
        figures = self.crew.add_up(self.trained, figures)
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.rate * self._schedule()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.seen += sum(pack.tokens for pack in packs)
        loss, won = figures.tolist()
        return loss, won

    def _loss(self, pack: Pack) -> tuple[Tensor, Tensor]:
        logits, excess = self.packed.judged(pack)
        scores = logits - self.plan.weight * excess
        loss, won = bradley_terry(scores, [program.good for program in pack.programs])
        return loss + self.plan.centre * scores.mean().square(), won

    def _schedule(self) -> float:
        done = self.seen / self.plan.tokens
        return min(1.0, (done + 0.002) / self.plan.warm_up) * max(0.02, 1.0 - done)

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        if self.crew.rank:
            return
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
        self.crew.tell(f"resumed at {self.seen:,} tokens")


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


@dataclass(frozen=True, slots=True)
class Guide:
    """Held-out pairs that show how a run is going."""

    natural: Sequence[Pair]
    edits: Sequence[Pair]

    @classmethod
    def of(cls, data: Path, plan: Plan) -> "Guide":
        """As many of each kind as the plan says."""
        drawn = [
            random.Random(plan.seed).sample(  # noqa: S311 - a sample
                [pair for _, pair in read_pairs(data, file, "dev")], plan.guide_pairs
            )
            for file in ("pairs_natural_dev", "pairs_mutation_dev")
        ]
        return cls(*drawn)

    def told(self, packed: PackedModel, packer: Packer) -> str:
        """Pair accuracy in bf16: natural pairs by the logit, edits by the surprisal."""
        natural = judged_pairs(packed, packer, self.natural)
        edits = judged_pairs(packed, packer, self.edits)
        by_logit = pair_accuracy(natural[0], [pair.problem for pair in self.natural])
        by_surprisal = pair_accuracy(-edits[1], [pair.problem for pair in self.edits])
        return f"natural dev by logit {by_logit}, mutation dev by surprisal {by_surprisal}"


def judged_pairs(packed: PackedModel, packer: Packer, pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """What the better side of each pair has over the worse: logit, mean excess surprisal; shape
    (2, pairs). Zeros where a side is too long."""
    known: dict[tuple[str, str], NDArray[np.float64]] = {}
    for _, group in groupby(sorted(pairs, key=lambda pair: pair.prompt), lambda pair: pair.prompt):
        same = list(group)
        for pack in packer.packs(same):
            with torch.no_grad():
                told = torch.stack(packed.judged(pack), 1).double().numpy()
            keys = [(same[0].prompt, program.text) for program in pack.programs]
            known |= dict(zip(keys, told, strict=True))
    nothing = np.zeros(2)
    return np.array(
        [
            known.get((pair.prompt, pair.chosen), nothing)
            - known.get((pair.prompt, pair.rejected), nothing)
            for pair in pairs
        ]
    ).T


def train(data: Path, out: Path, plan: Plan) -> None:
    """Run the plan to its end and write the adapter to `out/adapter`."""
    torch.manual_seed(plan.seed)
    out.mkdir(parents=True, exist_ok=True)
    crew = Crew()
    trainer = Trainer(adapted(backbone(), Adapter()), plan, out, crew)
    trainer.resume()
    packer = Packer(encoder(), plan.longest, plan.pack_budget)
    shares = [*training_pairs(data), (Share("samples", plan.samples), sampled_pairs(data))]
    guide = Guide.of(data, plan)
    progress = Progress(plan, trainer.seen, crew)
    marks = iter(_marks(plan, trainer.seen))
    mark = next(marks, plan.tokens)
    for seen, packs in steps(plan, lambda generator: packer.epoch(shares, generator)):
        if seen >= plan.stop:
            break
        if seen < trainer.seen:
            continue
        progress.note(*trainer.step(packs), trainer.seen)
        if progress.checkpoint_is_due():
            trainer.save()
        if trainer.seen >= mark:
            mark = next(marks, plan.tokens)
            trainer.save()
            if crew.rank == 0:
                crew.tell(guide.told(trainer.packed, packer))
    trainer.save()
    if crew.rank == 0:
        trainer.model.save_pretrained(str(out / "adapter"))
        crew.tell(guide.told(trainer.packed, packer))


class Progress:
    """A line every few steps: loss, share of pairs won, rate, remaining time."""

    def __init__(self, plan: Plan, seen: int, crew: Crew) -> None:
        self._plan = plan
        self._crew = crew
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
        self._crew.tell(
            f"{seen:>9,} tokens  loss {sum(losses) / len(losses):.4f}"
            f"  won {sum(wins) / len(wins):.3f}  {rate:.0f} tokens/s"
            f"  {(self._plan.stop - seen) / rate / 60:.0f} min left"
        )

    def checkpoint_is_due(self) -> bool:
        """Whether the plan's interval has passed since the last checkpoint."""
        due = time.monotonic() - self._saved > self._plan.checkpoint_seconds
        if due:
            self._saved = time.monotonic()
        return due


def _marks(plan: Plan, seen: int) -> list[int]:
    every = plan.stop // plan.evaluations
    return [mark for mark in range(every, plan.stop, every) if mark > seen]


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds code/")
    parser.add_argument("--out", type=Path, default=Path("work/code"), help="where to write")
    parser.add_argument(
        "--stop", type=int, default=Plan().stop, help="length of the run, in tokens"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.data, arguments.out, Plan(stop=arguments.stop))


if __name__ == "__main__":
    main()
