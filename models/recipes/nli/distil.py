"""Train `nli-small`: all layers of MiniLM, by labels and by the probabilities of `nli` as teacher.

The teacher's targets are cached in the work folder and are not computed again if they exist there.
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
from recipes.nli.finetune import (
    FineTuning,
    TrainConfig,
    encode_rows,
    gold_target,
    print_accuracy,
)
from recipes.nli.recombination import RecombinationConfig, labelled_pairs
from recipes.nli.teacher import teacher_targets

EXAMPLE = "example: OMP_NUM_THREADS=1 python -m recipes.nli.distil --data ../shared/data"
CONFIG = TrainConfig(epochs=5.0, batch_size=32, learning_rate=2e-4)
MAX_TOKENS = 128
CHANGED = "changed.safetensors"


def main() -> None:
    """Read the data, compute the teacher's targets, train, save the tensors that changed."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    work: Path = arguments.out
    work.mkdir(parents=True, exist_ok=True)
    data = arguments.data / "nli"
    pairs, recombination = read_pairs(data / "train.jsonl.gz", OPEN_TIERS), RecombinationConfig()
    learnt = teacher_targets(pairs, recombination, work)
    learnt += [(pair, gold_target(pair)) for pair in labelled_pairs(pairs, recombination)]
    torch.manual_seed(CONFIG.seed)
    folder = minilm_folder()
    targets = [target for _, target in learnt]
    rows, pad_id = encode_rows(folder, [pair for pair, _ in learnt], MAX_TOKENS, targets)
    print(f"{len(rows)} pairs, {sum(len(row.ids) for row in rows)} tokens", flush=True)
    config = replace(CONFIG, epochs=arguments.epochs)
    training = FineTuning(build_model(folder), rows, config, pad_id)
    training.run()
    changed = {name: weight.half().contiguous() for name, weight in training.trained().items()}
    save_file(changed, work / CHANGED)
    print(f"{work / CHANGED}: {digest_of(work / CHANGED)}")
    print_accuracy(training.model, folder, read_pairs(data / "dev.jsonl.gz"))


def build_model(folder: Path) -> Any:
    """Build MiniLM without dropout, with a new three-way head."""
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
    parser.add_argument("--epochs", type=float, default=CONFIG.epochs)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
