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
from recipes.nli.finetune import FineTuning, Plan, rows_of, tell
from recipes.nli.pairs import ALL_TIERS_MIX, OPEN_MIX, mixed_pairs

EXAMPLE = "example: OMP_NUM_THREADS=1 python -m recipes.nli.train --data ../shared/data"
PLAN = Plan(epochs=1.0, batch_size=32, rate=4e-4, by_layer=1.0, warm_up=0.06)
LONGEST = 160
RANK = 32
LAYERS = range(4, 12)


def main() -> None:
    """Read the data, train, save the adapter, tell what it reaches."""
    choice = _arguments()
    torch.set_num_threads(choice.threads)
    torch.manual_seed(PLAN.seed)
    data = choice.data / "nli"
    tiers, mix = (None, ALL_TIERS_MIX) if choice.all_tiers else (OPEN_TIERS, OPEN_MIX)
    pairs = mixed_pairs(read_pairs(data / "train.jsonl.gz", tiers), mix)
    folder = mpnet_folder()
    rows, pad_id = rows_of(folder, pairs, LONGEST)
    print(f"{len(rows)} pairs, {sum(len(row.ids) for row in rows)} tokens", flush=True)
    training = FineTuning(build(folder), rows, PLAN, pad_id)
    training.run()
    save(training, choice.out / "adapter")
    tell(training.model, folder, read_pairs(data / "dev.jsonl.gz"))


def build(folder: Path) -> Any:
    """MPNet without dropout, with a new three-way head and LoRA on the dense layers of LAYERS."""
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


def save(training: FineTuning, folder: Path) -> None:
    """The adapter in fp16, without a path of this machine, its config always in one order."""
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
