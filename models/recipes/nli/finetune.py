"""Fine-tuning of an encoder with a three-way head on one core: bf16 weights, fp32 masters."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recipes.nli.backbones import encode_pairs
from recipes.nli.data import LABELS, Pair, batches_by_length

Target = tuple[float, float, float]
"""The probability of each of LABELS: a gold label, a teacher's probabilities, or a mix of both."""


@dataclass(frozen=True, slots=True)
class Row:
    """Token ids, segment ids (none for encoders without them) and target of a pair."""

    ids: list[int]
    segments: list[int] | None
    target: Target


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Length and speed of a training run.

    `learning_rate` is the top layer's; each layer below learns at `layer_decay` of the one above
    it, and layers below `first_layer` and the embeddings are frozen.
    """

    epochs: float
    batch_size: int
    learning_rate: float
    head_learning_rate: float = 3e-4
    layer_decay: float = 0.93
    first_layer: int = 0
    warmup: float = 0.08
    label_smoothing: float = 0.05
    weight_decay: float = 0.01
    seed: int = 1


class FineTuning:
    """AdamW on fp32 masters of a model that computes in bf16, with warmup and linear decay.

    Weights that do not require a gradient when the model is given stay frozen.
    """

    def __init__(self, model: Any, rows: Sequence[Row], config: TrainConfig, pad_id: int) -> None:
        self.model, self.rows, self.config, self.pad_id = model, rows, config, pad_id
        self.names: list[str] = []
        groups: list[dict[str, Any]] = []
        for name, weight in model.named_parameters():
            layers = model.config.num_hidden_layers
            rate = learning_rate_of(name, config, layers) if weight.requires_grad else 0.0
            weight.requires_grad = rate > 0
            if rate > 0:
                self.names.append(name)
                decay = config.weight_decay if weight.ndim > 1 else 0.0
                master = weight.detach().clone().float()
                group = {"params": [master], "lr": rate, "base": rate, "weight_decay": decay}
                groups.append(group)
        self.masters = [group["params"][0] for group in groups]
        model.bfloat16()
        parameters = dict(model.named_parameters())
        self.live = [parameters[name] for name in self.names]
        self.optimizer = torch.optim.AdamW(groups, fused=True, betas=(0.9, 0.98))

    def run(self) -> None:
        """Train for the configured number of epochs."""
        batches = list(self._batches())
        started, mean = time.monotonic(), 0.0
        self.model.train()
        for step, batch in enumerate(batches):
            loss = self._update([self.rows[at] for at in batch], step, len(batches))
            mean = loss if step == 0 else 0.97 * mean + 0.03 * loss
            if (step + 1) % 50 == 0:
                passed = (time.monotonic() - started) / 60
                left = passed / (step + 1) * (len(batches) - step - 1)
                line = f"step {step + 1}/{len(batches)} loss {mean:.4f} {left:.1f} min left"
                print(line, flush=True)
        self.model.eval()

    def trained(self) -> dict[str, torch.Tensor]:
        """Return the trained tensors in fp32, by their names in the model."""
        return dict(zip(self.names, self.masters, strict=True))

    def _update(self, rows: Sequence[Row], step: int, steps: int) -> float:
        warmup_steps = max(1, int(self.config.warmup * steps))
        remaining = (steps - step) / max(1, steps - warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * min((step + 1) / warmup_steps, remaining)
        loss = nn.functional.cross_entropy(
            logits(self.model, rows, self.pad_id),
            torch.tensor([row.target for row in rows]),
            label_smoothing=self.config.label_smoothing,
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
        left = int(self.config.epochs * len(lengths) / self.config.batch_size + 0.999)
        epoch = 0
        while left > 0:
            generator = random.Random(self.config.seed + epoch)  # noqa: S311 nothing is secret here
            for batch in batches_by_length(lengths, self.config.batch_size, generator):
                if left > 0:
                    yield batch
                left -= 1
            epoch += 1


def learning_rate_of(name: str, config: TrainConfig, layers: int) -> float:
    """Return the learning rate of a weight by its name; 0 where it stays frozen."""
    if "embeddings" in name or "relative_attention" in name:
        return 0.0
    if "layer." not in name:
        return config.head_learning_rate
    layer = int(name.split("layer.")[1].split(".")[0])
    if layer < config.first_layer:
        return 0.0
    return config.learning_rate * config.layer_decay ** (layers - 1 - layer)


def logits(model: Any, rows: Sequence[Row], pad_id: int) -> torch.Tensor:
    """Return the logits [rows, 3] in fp32 of one padded batch."""
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
    """Return the softmax of the logits of each row, in the order given."""
    model.eval()
    found: list[list[float]] = [[]] * len(rows)
    order = sorted(range(len(rows)), key=lambda at: len(rows[at].ids))
    for start in range(0, len(order), batch_size):
        indices = order[start : start + batch_size]
        batch = logits(model, [rows[at] for at in indices], pad_id).softmax(-1).tolist()
        for at, row in zip(indices, batch, strict=True):
            found[at] = row
        if start // batch_size % 100 == 99:
            print(f"  {start + batch_size}/{len(rows)} pairs scored", flush=True)
    return found


def encode_rows(
    folder: Path,
    pairs: Sequence[Pair],
    max_tokens: int | None = None,
    targets: Sequence[Target] | None = None,
) -> tuple[list[Row], int]:
    """Encode the pairs that have at most `max_tokens` tokens; return the rows and the padding id.

    Args:
        folder: holds the tokenizer.
        pairs: the pairs.
        max_tokens: longer pairs are left out.
        targets: of the pairs; their gold labels by default.
    """
    ids, segments, pad_id = encode_pairs(folder, pairs)
    row_targets = [gold_target(pair) for pair in pairs] if targets is None else targets
    row_segments: Sequence[list[int] | None] = [None] * len(ids) if segments is None else segments
    fields = zip(ids, row_segments, row_targets, strict=True)
    rows = [Row(*row) for row in fields if max_tokens is None or len(row[0]) <= max_tokens]
    return rows, pad_id


def gold_target(pair: Pair) -> Target:
    """Return a target with all the probability on the pair's label."""
    first, second, third = (float(pair.label == label) for label in LABELS)
    return first, second, third


def print_accuracy(model: Any, folder: Path, pairs: Sequence[Pair], max_tokens: int = 256) -> None:
    """Print the share of right labels on each source's pairs of at most `max_tokens` tokens."""
    for source in sorted({pair.source for pair in pairs}):
        own = [pair for pair in pairs if pair.source == source]
        rows, pad_id = encode_rows(folder, own, max_tokens)
        predicted = zip(probabilities(model, rows, pad_id), rows, strict=True)
        right = sum(row.target[p.index(max(p))] for p, row in predicted)
        print(f"dev {source}: {right / len(rows):.4f} (n={len(rows)})", flush=True)
