"""Fine-tuning of an encoder with a three-way head on one core: bf16 weights, fp32 masters."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recipes.nli.backbones import encoded
from recipes.nli.data import LABELS, Pair, batches_by_length

Target = tuple[float, float, float]
"""The probability of each of LABELS: a gold label, a teacher's opinion, or a mix of both."""


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids, segment ids (none for encoders without them) and target of one pair."""

    ids: list[int]
    segments: list[int] | None
    target: Target


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to learn. `rate` is the top layer's; each layer below learns at
    `by_layer` of the one above it, and layers below `first_layer` and the embeddings not at all."""

    epochs: float
    batch_size: int
    rate: float
    head_rate: float = 3e-4
    by_layer: float = 0.93
    first_layer: int = 0
    warm_up: float = 0.08
    smoothing: float = 0.05
    weight_decay: float = 0.01
    seed: int = 1


class FineTuning:
    """AdamW on fp32 masters of a model that computes in bf16, with warm-up and linear decay.

    Weights that ask for no gradient when it is given stay as they are.
    """

    def __init__(self, model: Any, rows: Sequence[Row], plan: Plan, pad_id: int) -> None:
        self.model, self.rows, self.plan, self.pad_id = model, rows, plan, pad_id
        self.names: list[str] = []
        groups: list[dict[str, Any]] = []
        for name, weight in model.named_parameters():
            layers = model.config.num_hidden_layers
            rate = rate_of(name, plan, layers) if weight.requires_grad else 0.0
            weight.requires_grad = rate > 0
            if rate > 0:
                self.names.append(name)
                decay = plan.weight_decay if weight.ndim > 1 else 0.0
                master = weight.detach().clone().float()
                group = {"params": [master], "lr": rate, "base": rate, "weight_decay": decay}
                groups.append(group)
        self.masters = [group["params"][0] for group in groups]
        model.bfloat16()
        parameters = dict(model.named_parameters())
        self.live = [parameters[name] for name in self.names]
        self.optimizer = torch.optim.AdamW(groups, fused=True, betas=(0.9, 0.98))

    def run(self) -> None:
        """Train to the end of the plan."""
        batches = list(self._batches())
        started, mean = time.monotonic(), 0.0
        self.model.train()
        for step, batch in enumerate(batches):
            loss = self._learn([self.rows[at] for at in batch], step, len(batches))
            mean = loss if step == 0 else 0.97 * mean + 0.03 * loss
            if (step + 1) % 50 == 0:
                passed = (time.monotonic() - started) / 60
                left = passed / (step + 1) * (len(batches) - step - 1)
                line = f"step {step + 1}/{len(batches)} loss {mean:.4f} {left:.1f} min left"
                print(line, flush=True)
        self.model.eval()

    def trained(self) -> dict[str, torch.Tensor]:
        """The trained tensors in fp32, by their names in the model."""
        return dict(zip(self.names, self.masters, strict=True))

    def _learn(self, rows: Sequence[Row], step: int, steps: int) -> float:
        warm_up = max(1, int(self.plan.warm_up * steps))
        rest = (steps - step) / max(1, steps - warm_up)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * min((step + 1) / warm_up, rest)
        loss = nn.functional.cross_entropy(
            logits(self.model, rows, self.pad_id),
            torch.tensor([row.target for row in rows]),
            label_smoothing=self.plan.smoothing,
        )
        torch.autograd.backward(loss)
        for live, master in zip(self.live, self.masters, strict=True):
            master.grad = None if live.grad is None else live.grad.float()
            live.grad = None
        nn.utils.clip_grad_norm_(self.masters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(self.live, self.masters)
        return loss.item()

    def _batches(self) -> Iterator[list[int]]:
        lengths = [len(row.ids) for row in self.rows]
        left = int(self.plan.epochs * len(lengths) / self.plan.batch_size + 0.999)
        epoch = 0
        while left > 0:
            chance = random.Random(self.plan.seed + epoch)  # noqa: S311 nothing is secret here
            for batch in batches_by_length(lengths, self.plan.batch_size, chance):
                if left > 0:
                    yield batch
                left -= 1
            epoch += 1


def rate_of(name: str, plan: Plan, layers: int) -> float:
    """The learning rate of one weight by its name; 0 where it stays as it is."""
    if "embeddings" in name or "relative_attention" in name:
        return 0.0
    if "layer." not in name:
        return plan.head_rate
    layer = int(name.split("layer.")[1].split(".")[0])
    return plan.rate * plan.by_layer ** (layers - 1 - layer) if layer >= plan.first_layer else 0.0


def logits(model: Any, rows: Sequence[Row], pad_id: int) -> torch.Tensor:
    """Logits [rows, 3] in fp32 of one padded batch."""
    width = max(len(row.ids) for row in rows)
    inputs = {
        "input_ids": [row.ids + [pad_id] * (width - len(row.ids)) for row in rows],
        "attention_mask": [[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows],
    }
    if rows[0].segments is not None:
        inputs["token_type_ids"] = [
            (row.segments or []) + [0] * (width - len(row.ids)) for row in rows
        ]
    tensors = {name: torch.tensor(values) for name, values in inputs.items()}
    found: torch.Tensor = model(**tensors).logits
    return found.float()


@torch.inference_mode()
def probabilities(
    model: Any, rows: Sequence[Row], pad_id: int, batch_size: int = 64
) -> list[list[float]]:
    """The softmax of the logits of each row, in the order given."""
    model.eval()
    found: list[list[float]] = [[]] * len(rows)
    order = sorted(range(len(rows)), key=lambda at: len(rows[at].ids))
    for start in range(0, len(order), batch_size):
        places = order[start : start + batch_size]
        batch = logits(model, [rows[at] for at in places], pad_id).softmax(-1).tolist()
        for place, row in zip(places, batch, strict=True):
            found[place] = row
        if start // batch_size % 100 == 99:
            print(f"  {start + batch_size}/{len(rows)} pairs judged", flush=True)
    return found


def rows_of(
    folder: Path,
    pairs: Sequence[Pair],
    longest: int | None = None,
    targets: Sequence[Target] | None = None,
) -> tuple[list[Row], int]:
    """The rows of those pairs that have at most `longest` tokens, with their gold labels or the
    targets given, and the padding id; `folder` holds the tokenizer."""
    ids, segments, pad_id = encoded(folder, pairs)
    aims = [gold(pair) for pair in pairs] if targets is None else targets
    kinds: Sequence[list[int] | None] = [None] * len(ids) if segments is None else segments
    parts = zip(ids, kinds, aims, strict=True)
    return [Row(*one) for one in parts if longest is None or len(one[0]) <= longest], pad_id


def gold(pair: Pair) -> Target:
    """All the probability on the pair's label."""
    first, second, third = (float(pair.label == label) for label in LABELS)
    return first, second, third


def tell(model: Any, folder: Path, pairs: Sequence[Pair], longest: int = 256) -> None:
    """Print the share of right labels on each source's pairs of at most `longest` tokens."""
    for source in sorted({pair.source for pair in pairs}):
        own = [pair for pair in pairs if pair.source == source]
        rows, pad_id = rows_of(folder, own, longest)
        stated = zip(probabilities(model, rows, pad_id), rows, strict=True)
        right = sum(row.target[p.index(max(p))] for p, row in stated)
        print(f"dev {source}: {right / len(rows):.4f} (n={len(rows)})", flush=True)
