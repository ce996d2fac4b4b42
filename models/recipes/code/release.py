"""Put a trained adapter beside its card: half precision, no local paths, and its digests."""

import argparse
import json
from pathlib import Path

import torch
from peft import PeftConfig
from safetensors.torch import load_file, save_file

from assay_models.repository import digest_of, embedded_root

EXAMPLE = "example: python -m recipes.code.release --adapter work/code/adapter"
WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
KEPT = (
    "peft_type",
    "task_type",
    "r",
    "lora_alpha",
    "target_modules",
    "layers_to_transform",
    "modules_to_save",
    "bias",
)


def release(adapter: Path, folder: Path) -> dict[str, str]:
    """Write the adapter to `folder/adapter`; return its files' digests by their path in `folder`.

    The low-rank matrices are stored in fp16 and the head in fp32.
    """
    target = folder / "adapter"
    target.mkdir(parents=True, exist_ok=True)
    weights = {
        name: (tensor if ".score." in name else tensor.to(torch.float16)).contiguous()
        for name, tensor in load_file(adapter / WEIGHTS).items()
    }
    save_file(weights, target / WEIGHTS)
    (target / WEIGHTS).chmod(0o644)
    config = PeftConfig.from_pretrained(str(adapter)).to_dict()
    stated = {name: _sorted_if_collection(config[name]) for name in KEPT}
    (target / CONFIG).write_text(json.dumps(stated, indent=2) + "\n", encoding="utf-8")
    return {f"adapter/{name}": digest_of(target / name) for name in (CONFIG, WEIGHTS)}


def _sorted_if_collection(value: object) -> object:
    return sorted(set(value)) if isinstance(value, set | list) else value


def main() -> None:
    """Parse the command line, release, and print the digests as the card states them."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--adapter", type=Path, required=True, help="output of the training")
    parser.add_argument("--model", default="code/2", help="folder in the embedded repository")
    parser.add_argument(
        "--out", type=Path, help="folder to write into, instead of the embedded repository"
    )
    arguments = parser.parse_args()
    folder = arguments.out or embedded_root() / arguments.model
    for name, digest in release(arguments.adapter, folder).items():
        print(f'"{name}" = "{digest}"')


if __name__ == "__main__":
    main()
