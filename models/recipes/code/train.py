"""Train the adapter of `code@2`: Bradley-Terry loss on pairs of programs for one problem.

The logit less a weight times the surprisal of the program's tokens learns to order every two
programs of a problem. `recipes.code.surprisal_weight` shows the effect of other weights once it is
trained.

The run can be resumed: a checkpoint is written every few minutes, and an interrupted run continues
from it. Several processes share the work of each update: `python -m torch.distributed.run
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

from recipes.code.data import MixturePart, Pack, Packer, Pair, read_pairs, training_pairs
from recipes.code.packed_model import (
    AdapterConfig,
    PackedModel,
    add_adapter,
    bradley_terry,
    load_backbone,
    load_encoder,
)
from recipes.code.samples import sampled_pairs
from recipes.measure import pair_accuracy

EXAMPLE = "example: python -m recipes.code.train --data ../shared/data --out work/code"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Length and speed of a training run. Token counts are of packed rows.

    The learning rate falls to nothing at `schedule_tokens`; the run ends at `stop_tokens`.
    """

    schedule_tokens: int = 2_600_000
    stop_tokens: int = 800_000
    step_tokens: int = 2_500
    learning_rate: float = 4e-4
    warmup: float = 0.04
    weight_decay: float = 0.01
    centering: float = 0.002
    surprisal_weight: float = 5.0
    max_tokens: int = 768
    pack_tokens: int = 450
    seed: int = 17
    evaluations: int = 2
    validation_pairs: int = 200
    samples: int = 2_500
    checkpoint_seconds: float = 240.0


class ProcessGroup:
    """The processes that share each update; one, unless a launcher started several."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.size > 1:
            torch.distributed.init_process_group("gloo")

    def shard(self, packs: Sequence[Pack]) -> Sequence[Pack]:
        """Return this process's part of an update."""
        return packs[self.rank :: self.size]

    def all_reduce(self, weights: Sequence[Tensor], figures: Tensor) -> Tensor:
        """Sum over all processes: gradients in place, figures as the result."""
        if self.size == 1:
            return figures
        gradients = [
            torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights
        ]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), figures])
        torch.distributed.all_reduce(flat)
        sizes = [*(weight.numel() for weight in weights), len(figures)]
        *sums, summed = torch.split(flat, sizes)
        for weight, gradient in zip(weights, sums, strict=True):
            weight.grad = gradient.view_as(weight).clone()
        return summed

    def log(self, line: str) -> None:
        """Print a line, once for all processes."""
        if self.rank == 0:
            print(line, flush=True)


class Trainer:
    """A training run: the model, its optimizer, and the number of tokens it has seen."""

    def __init__(
        self, model: PeftModel, config: TrainConfig, out: Path, group: ProcessGroup
    ) -> None:
        self.model = model
        self.config = config
        self.group = group
        self.packed = PackedModel(model, AdapterConfig().first_layer, fused=True)
        self.trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.trained,
            lr=config.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=config.weight_decay,
        )
        self.seen = 0
        self.checkpoint = out / "checkpoint.pt"

    def step(self, packs: Sequence[Pack]) -> tuple[float, float]:
        """Update once from a few packs; return their mean loss and the share of pairs won."""
        programs = sum(len(pack.programs) for pack in packs)
        figures = torch.zeros(2)
        for pack in self.group.shard(packs):
            loss, won = self._loss(pack)
            weight = len(pack.programs) / programs
            torch.autograd.backward(weight * loss)
            figures += weight * torch.stack([loss.detach(), won])
        figures = self.group.all_reduce(self.trained, figures)
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = self.config.learning_rate * self._schedule()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.seen += sum(pack.tokens for pack in packs)
        loss, won = figures.tolist()
        return loss, won

    def _loss(self, pack: Pack) -> tuple[Tensor, Tensor]:
        logits, excess = self.packed.score(pack)
        scores = logits - self.config.surprisal_weight * excess
        loss, won = bradley_terry(scores, [program.is_chosen for program in pack.programs])
        return loss + self.config.centering * scores.mean().square(), won

    def _schedule(self) -> float:
        done = self.seen / self.config.schedule_tokens
        return min(1.0, (done + 0.002) / self.config.warmup) * max(0.02, 1.0 - done)

    def save(self) -> None:
        """Write the checkpoint atomically."""
        if self.group.rank:
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
        """Continue from the checkpoint, if there is one."""
        if not self.checkpoint.is_file():
            return
        state: dict[str, Any] = torch.load(self.checkpoint, weights_only=True)
        set_peft_model_state_dict(self.model, state["adapter"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.seen = state["seen"]
        self.group.log(f"resumed at {self.seen:,} tokens")


def training_steps(
    config: TrainConfig, epoch: Callable[[random.Random], list[Pack]]
) -> Iterator[tuple[int, list[Pack]]]:
    """Yield the tokens seen before each update and its packs; the same for the same config."""
    generator, seen = random.Random(config.seed), 0  # noqa: S311 - a sample
    while True:
        gathered: list[Pack] = []
        for pack in epoch(generator):
            gathered.append(pack)
            if sum(each.tokens for each in gathered) >= config.step_tokens:
                yield seen, gathered
                seen += sum(each.tokens for each in gathered)
                gathered = []


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Held-out pairs that show the progress of a run."""

    natural: Sequence[Pair]
    edits: Sequence[Pair]

    @classmethod
    def read(cls, data: Path, config: TrainConfig) -> "ValidationSet":
        """Draw `config.validation_pairs` of each kind."""
        drawn = [
            random.Random(config.seed).sample(  # noqa: S311 - a sample
                [pair for _, pair in read_pairs(data, file, "dev")], config.validation_pairs
            )
            for file in ("pairs_natural_dev", "pairs_mutation_dev")
        ]
        return cls(*drawn)

    def report(self, packed: PackedModel, packer: Packer) -> str:
        """Return pair accuracies in bf16: natural pairs by the logit, edits by the surprisal."""
        natural = pair_margins(packed, packer, self.natural)
        edits = pair_margins(packed, packer, self.edits)
        by_logit = pair_accuracy(natural[0], [pair.problem for pair in self.natural])
        by_surprisal = pair_accuracy(-edits[1], [pair.problem for pair in self.edits])
        return f"natural dev by logit {by_logit}, mutation dev by surprisal {by_surprisal}"


def pair_margins(packed: PackedModel, packer: Packer, pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """Return logit and mean excess surprisal of the better side of each pair less those of the
    worse; shape (2, pairs). Zeros where a side is too long."""
    known: dict[tuple[str, str], NDArray[np.float64]] = {}
    for _, group in groupby(sorted(pairs, key=lambda pair: pair.prompt), lambda pair: pair.prompt):
        same_prompt = list(group)
        for pack in packer.packs(same_prompt):
            with torch.no_grad():
                values = torch.stack(packed.score(pack), 1).double().numpy()
            keys = [(same_prompt[0].prompt, program.text) for program in pack.programs]
            known |= dict(zip(keys, values, strict=True))
    zeros = np.zeros(2)
    return np.array(
        [
            known.get((pair.prompt, pair.chosen), zeros)
            - known.get((pair.prompt, pair.rejected), zeros)
            for pair in pairs
        ]
    ).T


def train(data: Path, out: Path, config: TrainConfig) -> None:
    """Train until `config.stop_tokens` and write the adapter to `out/adapter`."""
    torch.manual_seed(config.seed)
    out.mkdir(parents=True, exist_ok=True)
    group = ProcessGroup()
    trainer = Trainer(add_adapter(load_backbone(), AdapterConfig()), config, out, group)
    trainer.resume()
    packer = Packer(load_encoder(), config.max_tokens, config.pack_tokens)
    samples = MixturePart("samples", config.samples)
    parts = [*training_pairs(data), (samples, sampled_pairs(data))]
    validation = ValidationSet.read(data, config)
    progress = Progress(config, trainer.seen, group)
    evaluation_points = iter(_evaluation_points(config, trainer.seen))
    next_evaluation = next(evaluation_points, config.schedule_tokens)
    for seen, packs in training_steps(config, lambda generator: packer.epoch(parts, generator)):
        if seen >= config.stop_tokens:
            break
        if seen < trainer.seen:
            continue
        progress.record(*trainer.step(packs), trainer.seen)
        if progress.checkpoint_is_due():
            trainer.save()
        if trainer.seen >= next_evaluation:
            next_evaluation = next(evaluation_points, config.schedule_tokens)
            trainer.save()
            if group.rank == 0:
                group.log(validation.report(trainer.packed, packer))
    trainer.save()
    if group.rank == 0:
        trainer.model.save_pretrained(str(out / "adapter"))
        group.log(validation.report(trainer.packed, packer))


class Progress:
    """A line every few steps: loss, share of pairs won, rate, remaining time."""

    def __init__(self, config: TrainConfig, seen: int, group: ProcessGroup) -> None:
        self._config = config
        self._group = group
        self._start, self._seen_at_start = time.monotonic(), seen
        self._saved = self._start
        self._window: list[tuple[float, float]] = []

    def record(self, loss: float, won: float, seen: int) -> None:
        """Add one step; print every tenth."""
        self._window.append((loss, won))
        if len(self._window) % 10:
            return
        losses, wins = zip(*self._window[-50:], strict=True)
        rate = (seen - self._seen_at_start) / (time.monotonic() - self._start)
        self._group.log(
            f"{seen:>9,} tokens  loss {sum(losses) / len(losses):.4f}"
            f"  won {sum(wins) / len(wins):.3f}  {rate:.0f} tokens/s"
            f"  {(self._config.stop_tokens - seen) / rate / 60:.0f} min left"
        )

    def checkpoint_is_due(self) -> bool:
        """Return whether the configured interval has passed since the last checkpoint."""
        due = time.monotonic() - self._saved > self._config.checkpoint_seconds
        if due:
            self._saved = time.monotonic()
        return due


def _evaluation_points(config: TrainConfig, seen: int) -> list[int]:
    every = config.stop_tokens // config.evaluations
    return [point for point in range(every, config.stop_tokens, every) if point > seen]


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds code/")
    parser.add_argument("--out", type=Path, default=Path("work/code"), help="where to write")
    parser.add_argument(
        "--stop", type=int, default=TrainConfig().stop_tokens, help="length of the run, in tokens"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments.data, arguments.out, TrainConfig(stop_tokens=arguments.stop))


if __name__ == "__main__":
    main()
