"""Train the adapter of `nli`: LoRA on the upper layers of MPNet as a three-way cross-encoder."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import MPNetForSequenceClassification

from recipes.nli.backbones import MPNET, mpnet_folder
from recipes.nli.data import LABELS, OPEN_TIERS, read_pairs
from recipes.nli.finetune import FineTuning, TrainConfig, encode_rows, print_accuracy
from recipes.nli.recombination import ALL_TIERS_MIX, OPEN_MIX, mixed_pairs

EXAMPLE = "example: OMP_NUM_THREADS=1 python -m recipes.nli.train --data ../shared/data"
CONFIG = TrainConfig(epochs=1.0, batch_size=32, learning_rate=4e-4, layer_decay=1.0, warmup=0.06)
MAX_TOKENS = 160
RANK = 32
LAYERS = range(4, 12)


def main() -> None:
    """Read the data, train, save the adapter, print its accuracy."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(CONFIG.seed)
    data = arguments.data / "nli"
    tiers, mix = (None, ALL_TIERS_MIX) if arguments.all_tiers else (OPEN_TIERS, OPEN_MIX)
    pairs = mixed_pairs(read_pairs(data / "train.jsonl.gz", tiers), mix)
    folder = mpnet_folder()
    rows, pad_id = encode_rows(folder, pairs, MAX_TOKENS)
    print(f"{len(rows)} pairs, {sum(len(row.ids) for row in rows)} tokens", flush=True)
    training = FineTuning(build_model(folder), rows, CONFIG, pad_id)
    training.run()
    save_adapter(training, arguments.out / "adapter")
    print_accuracy(training.model, folder, read_pairs(data / "dev.jsonl.gz"))


def build_model(folder: Path) -> Any:
    """Build MPNet without dropout, with a new three-way head and LoRA on the dense layers of
    LAYERS."""
    model = MPNetForSequenceClassification.from_pretrained(
        folder,
        num_labels=len(LABELS),
        attention_probs_dropout_prob=0.0,
        hidden_dropout_prob=0.0,
        dtype=torch.float32,
    )
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=["q", "k", "v", "o", "intermediate.dense", "output.dense"],
        layers_to_transform=list(LAYERS),
        layers_pattern="layer",
        modules_to_save=["classifier"],
    )
    return get_peft_model(model, config)


def save_adapter(training: FineTuning, folder: Path) -> None:
    """Save the adapter in fp16, without a local path, its config always in the same order."""
    model, trained = training.model, training.trained()
    for name, weight in model.named_parameters():
        if name in trained:
            weight.data = trained[name].half()
    model.peft_config["default"].base_model_name_or_path = MPNET
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for name in ("target_modules", "modules_to_save"):
        config[name] = sorted(set(config[name]))
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    model.bfloat16()
    print(f"adapter in {folder}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.nli.train", description=__doc__, epilog=EXAMPLE
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds nli/")
    parser.add_argument("--out", type=Path, default=Path("work/nli"), help="the work folder")
    parser.add_argument(
        "--all-tiers",
        action="store_true",
        help="learn from data without a stated licence too, to see what it would add",
    )
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
