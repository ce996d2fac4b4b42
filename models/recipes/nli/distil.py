"""Fine-tune all layers of MiniLM by labels and by a teacher, MPNet fine-tuned on the same pairs.

Starts from the adapter of `nli@1`. What came of it is in docs/LOG.md; no weights of it are
released yet. Each stage leaves its result in the work folder and is passed over where that lies
there already; the last stage always runs.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import BertForSequenceClassification

from assay_models.repository import digest_of, embedded_root
from recipes.nli.backbones import encoded, student_folder
from recipes.nli.data import LABELS, OPEN_TIERS, Pair, read_pairs
from recipes.nli.finetune import FineTuning, Plan, Row, Target, probabilities
from recipes.nli.pairs import Recombined, labelled_pairs
from recipes.nli.teacher import gold, opinions, train_teacher

EXAMPLE = "example: OMP_NUM_THREADS=1 python -m recipes.nli.distil --data ../shared/data"
PLAN = Plan(epochs=3.0, batch_size=32, rate=1.5e-4)
LONGEST = 128
POSITIONS = 512
CHANGED = "changed.safetensors"
START = embedded_root() / "nli" / "1" / "adapter"


def main() -> None:
    """Read the data, go through the stages, save the tensors that changed."""
    choice = _arguments()
    torch.set_num_threads(choice.threads)
    work: Path = choice.out
    work.mkdir(parents=True, exist_ok=True)
    pairs = read_pairs(choice.data / "nli" / "train.jsonl.gz", OPEN_TIERS)
    made = Recombined()
    train_teacher(pairs, work)
    learnt = opinions(pairs, made, work)
    learnt += [(pair, gold(pair)) for pair in labelled_pairs(pairs, made)]
    torch.manual_seed(PLAN.seed)
    model = start(choice.adapter)
    rows, pad_id = student_rows([pair for pair, _ in learnt], [target for _, target in learnt])
    print(f"{len(rows)} pairs, {sum(len(row.ids) for row in rows)} tokens", flush=True)
    training = FineTuning(model, rows, replace(PLAN, epochs=choice.epochs), pad_id)
    training.run()
    changed = {name: one.half().contiguous() for name, one in training.trained().items()}
    save_file(changed, work / CHANGED)
    print(f"{work / CHANGED}: {digest_of(work / CHANGED)}")
    _tell(model, read_pairs(choice.data / "nli" / "dev.jsonl.gz", OPEN_TIERS))


def start(adapter: Path) -> Any:
    """MiniLM with a trained adapter merged into its layers, without dropout."""
    base = BertForSequenceClassification.from_pretrained(
        student_folder(),
        num_labels=len(LABELS),
        attn_implementation="eager",  # its backward pass is twice as fast on short sequences
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
        dtype=torch.float32,
    )
    adapted: Any = PeftModel.from_pretrained(base, str(adapter))
    return adapted.merge_and_unload()


def student_rows(
    pairs: Sequence[Pair], targets: Sequence[Target], longest: int = LONGEST
) -> tuple[list[Row], int]:
    """The rows of the pairs of at most `longest` tokens, and the padding id."""
    ids, segments, pad_id = encoded(student_folder(), pairs)
    assert segments is not None
    rows = [Row(*parts) for parts in zip(ids, segments, targets, strict=True)]
    return [row for row in rows if len(row.ids) <= longest], pad_id


def _tell(model: Any, dev: Sequence[Pair]) -> None:
    for source in sorted({pair.source for pair in dev}):
        own = [pair for pair in dev if pair.source == source]
        rows, pad_id = student_rows(own, [gold(pair) for pair in own], POSITIONS)
        stated = zip(probabilities(model, rows, pad_id), rows, strict=True)
        right = sum(row.target[p.index(max(p))] for p, row in stated)
        print(f"dev {source}: {right / len(rows):.4f} (n={len(rows)})", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.nli.distil",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds nli/")
    parser.add_argument("--out", type=Path, default=Path("work/nli"), help="the work folder")
    parser.add_argument("--adapter", type=Path, default=START, help="what the student starts from")
    parser.add_argument("--epochs", type=float, default=PLAN.epochs, help="of the last stage")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
