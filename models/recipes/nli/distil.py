"""Train `nli-small`: all layers of MiniLM, by labels and by the opinion of `nli` on more pairs.

The opinions are kept in the work folder and are not asked for again where they lie there already.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import BertForSequenceClassification

from assay_models.repository import digest_of
from recipes.nli.backbones import minilm_folder
from recipes.nli.data import LABELS, OPEN_TIERS, read_pairs
from recipes.nli.finetune import FineTuning, Plan, gold, rows_of, tell
from recipes.nli.pairs import Recombined, labelled_pairs
from recipes.nli.teacher import opinions

EXAMPLE = "example: OMP_NUM_THREADS=1 python -m recipes.nli.distil --data ../shared/data"
PLAN = Plan(epochs=5.0, batch_size=32, rate=2e-4)
LONGEST = 128
CHANGED = "changed.safetensors"


def main() -> None:
    """Read the data, ask the teacher, train, save the tensors that changed."""
    choice = _arguments()
    torch.set_num_threads(choice.threads)
    work: Path = choice.out
    work.mkdir(parents=True, exist_ok=True)
    data = choice.data / "nli"
    pairs, made = read_pairs(data / "train.jsonl.gz", OPEN_TIERS), Recombined()
    learnt = opinions(pairs, made, work)
    learnt += [(pair, gold(pair)) for pair in labelled_pairs(pairs, made)]
    torch.manual_seed(PLAN.seed)
    folder = minilm_folder()
    rows, pad_id = rows_of(folder, [pair for pair, _ in learnt], LONGEST, [t for _, t in learnt])
    print(f"{len(rows)} pairs, {sum(len(row.ids) for row in rows)} tokens", flush=True)
    training = FineTuning(build(folder), rows, replace(PLAN, epochs=choice.epochs), pad_id)
    training.run()
    changed = {name: one.half().contiguous() for name, one in training.trained().items()}
    save_file(changed, work / CHANGED)
    print(f"{work / CHANGED}: {digest_of(work / CHANGED)}")
    tell(training.model, folder, read_pairs(data / "dev.jsonl.gz"))


def build(folder: Path) -> Any:
    """MiniLM without dropout, with a new three-way head."""
    return BertForSequenceClassification.from_pretrained(
        folder,
        num_labels=len(LABELS),
        attn_implementation="eager",  # its backward pass is twice as fast on short sequences
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
        dtype=torch.float32,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.nli.distil",
        description=__doc__,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds nli/")
    parser.add_argument("--out", type=Path, default=Path("work/nli-small"), help="the work folder")
    parser.add_argument("--epochs", type=float, default=PLAN.epochs)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
