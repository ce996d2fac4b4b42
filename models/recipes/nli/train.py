"""Train the adapter of `nli`: LoRA on all dense layers of MiniLM as a three-way cross-encoder."""

import argparse
import itertools
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoTokenizer, BertForSequenceClassification

from recipes.nli.backbones import STUDENT, student_folder
from recipes.nli.data import LABELS, OPEN_TIERS, Pair, batches_by_length, read_pairs

EXAMPLE = "example: OMP_NUM_THREADS=1 python -m recipes.nli.train --data ../shared/data"


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token and segment ids of one pair, with the number of its label."""

    ids: list[int]
    segments: list[int]
    label: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how fast to learn."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup: float
    smoothing: float
    weight_decay: float
    seed: int


def build(rank: int, dropout: float) -> nn.Module:
    """The backbone with a new three-way head and LoRA on every dense layer of its blocks."""
    model = BertForSequenceClassification.from_pretrained(
        student_folder(),
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
    )
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=dropout,
        target_modules=["query", "key", "value", "intermediate.dense", "output.dense"],
        modules_to_save=["classifier", "pooler"],
    )
    adapted: nn.Module = get_peft_model(model, config)
    return adapted


def encode(pairs: Sequence[Pair], max_tokens: int) -> list[Encoded]:
    """Tokenise pairs as [CLS] premise [SEP] hypothesis [SEP]; those over the limit are left out,
    since a cut premise may no longer bear its label."""
    tokenizer = AutoTokenizer.from_pretrained(student_folder())
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    found = tokenizer(
        [pair.premise for pair in pairs], [pair.hypothesis for pair in pairs], verbose=False
    )
    rows = zip(found["input_ids"], found["token_type_ids"], pairs, strict=True)
    return [
        Encoded(ids, segments, LABELS.index(pair.label))
        for ids, segments, pair in rows
        if len(ids) <= max_tokens
    ]


def collate(rows: Sequence[Encoded]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Padded tensors of a batch, and its labels."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [0] * (width - len(row.ids)) for row in rows])
    segments = torch.tensor([row.segments + [0] * (width - len(row.ids)) for row in rows])
    mask = torch.tensor([[1] * len(row.ids) + [0] * (width - len(row.ids)) for row in rows])
    inputs = {"input_ids": ids, "token_type_ids": segments, "attention_mask": mask}
    return inputs, torch.tensor([row.label for row in rows])


def forward(model: nn.Module, inputs: dict[str, torch.Tensor], bf16: bool) -> torch.Tensor:
    """Logits [batch, 3] in fp32."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits: torch.Tensor = model(**inputs).logits
    return logits.float()


@torch.no_grad()
def accuracy(model: nn.Module, rows: Sequence[Encoded], bf16: bool) -> float:
    """The share of rows whose highest logit is their label's."""
    model.eval()
    order = sorted(rows, key=lambda row: len(row.ids))
    right = 0
    for start in range(0, len(order), 32):
        inputs, labels = collate(order[start : start + 32])
        right += int((forward(model, inputs, bf16).argmax(-1) == labels).sum())
    model.train()
    return right / len(rows)


@dataclass(slots=True)
class Trainer:
    """AdamW with warm-up and linear decay over length-sorted batches; resumes from checkpoints."""

    model: nn.Module
    rows: list[Encoded]
    dev: list[Encoded]
    plan: Plan
    bf16: bool
    out: Path
    save_every: float
    done: int = 0

    def __post_init__(self) -> None:
        self.out.mkdir(parents=True, exist_ok=True)

    def run(self) -> None:
        """Train to the end of the plan and save the adapter."""
        trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(
            trained, lr=self.plan.learning_rate, weight_decay=self.plan.weight_decay
        )
        steps = self.plan.steps
        self._resume(optimizer)
        self.model.train()
        started, first, saved = time.monotonic(), self.done, time.monotonic()
        recent: list[float] = []
        for step, batch in enumerate(self._order()):
            if step < self.done:
                continue
            for group in optimizer.param_groups:
                group["lr"] = self.plan.learning_rate * self._factor(step, steps)
            recent.append(self._learn(batch, trained, optimizer))
            self.done = step + 1
            if self.done % 50 == 0:
                rate = (self.done - first) / (time.monotonic() - started)
                self._report(steps, recent[-50:], rate)
            if time.monotonic() - saved > self.save_every:
                self._checkpoint(optimizer)
                saved = time.monotonic()
        self._save_adapter()

    def _learn(
        self,
        batch: list[int],
        trained: list[nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> float:
        inputs, labels = collate([self.rows[index] for index in batch])
        loss = nn.functional.cross_entropy(
            forward(self.model, inputs, self.bf16), labels, label_smoothing=self.plan.smoothing
        )
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    def _order(self) -> Iterator[list[int]]:
        lengths = [len(row.ids) for row in self.rows]
        epochs = (
            batches_by_length(
                lengths,
                self.plan.batch_size,
                random.Random(self.plan.seed + epoch),  # noqa: S311
            )
            for epoch in itertools.count()
        )
        return itertools.islice(itertools.chain.from_iterable(epochs), self.plan.steps)

    def _factor(self, step: int, steps: int) -> float:
        warmup = max(1, round(self.plan.warmup * steps))
        if step < warmup:
            return (step + 1) / warmup
        return (steps - step) / max(1, steps - warmup)

    def _report(self, steps: int, losses: list[float], rate: float) -> None:
        left = (steps - self.done) / rate / 60
        line = f"step {self.done}/{steps} loss {sum(losses) / len(losses):.4f}"
        if self.done % 1000 == 0:
            line += f" dev {accuracy(self.model, self.dev, self.bf16):.4f}"
        print(f"{line} {rate:.2f} steps/s {left:.1f} min left", flush=True)

    def _checkpoint(self, optimizer: torch.optim.Optimizer) -> None:
        trained = {n: w for n, w in self.model.named_parameters() if w.requires_grad}
        state = {
            "trained": trained,
            "optimizer": optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "done": self.done,
        }
        torch.save(state, self.out / "checkpoint.new")
        (self.out / "checkpoint.new").replace(self.out / "checkpoint.pt")

    def _resume(self, optimizer: torch.optim.Optimizer) -> None:
        path = self.out / "checkpoint.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["trained"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        self.done = state["done"]
        print(f"resumed after step {self.done}")

    def _save_adapter(self) -> None:
        """fp16, and without the path of this machine."""
        adapted: Any = self.model
        for weight in adapted.parameters():
            if weight.requires_grad:
                weight.data = weight.data.half()
        adapted.peft_config["default"].base_model_name_or_path = STUDENT
        adapted.save_pretrained(self.out / "adapter")
        _tidy(self.out / "adapter")
        print(f"adapter in {self.out / 'adapter'}")


def _tidy(folder: Path) -> None:
    """No model card of PEFT's, and the lists of its config in one order, so that digests stay."""
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for name in ("target_modules", "modules_to_save"):
        config[name] = sorted(set(config[name]))
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read the data, train, save the adapter."""
    choice = _arguments()
    torch.set_num_threads(choice.threads)
    torch.manual_seed(choice.seed)
    pairs = read_pairs(choice.data / "nli" / "train.jsonl.gz", OPEN_TIERS)
    pairs = pairs[: round(len(pairs) * choice.fraction)]
    rows = encode(pairs, choice.max_tokens)
    print(f"{len(rows)} of {len(pairs)} pairs within {choice.max_tokens} tokens", flush=True)
    dev = read_pairs(choice.data / "nli" / "dev.jsonl.gz", OPEN_TIERS)[:: choice.dev_step]
    plan = Plan(
        steps=choice.steps,
        batch_size=choice.batch_size,
        learning_rate=choice.learning_rate,
        warmup=0.06,
        smoothing=0.05,
        weight_decay=0.01,
        seed=choice.seed,
    )
    model = build(choice.rank, choice.dropout)
    watched = encode(dev, 512)
    Trainer(model, rows, watched, plan, not choice.fp32, choice.out, choice.save_every).run()
    print(f"fp16 adapter, dev {accuracy(model.float(), watched, False):.4f} (n={len(watched)})")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.nli.train", description=__doc__, epilog=EXAMPLE
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds nli/")
    parser.add_argument("--out", type=Path, default=Path("work/nli"))
    parser.add_argument("--steps", type=int, default=4_000, help="batches in all")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--rank", type=int, default=32)
    parser.add_argument("--dropout", type=float, default=0.0, help="of the LoRA branches")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the pairs, for a trial")
    parser.add_argument("--dev-step", type=int, default=4, help="watch every n-th dev pair")
    parser.add_argument("--save-every", type=float, default=180.0, help="seconds")
    parser.add_argument("--fp32", action="store_true", help="for CPUs without bf16 units")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
