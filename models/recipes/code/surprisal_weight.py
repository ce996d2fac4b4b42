"""Show pair accuracies on held-out pairs for several weights of the surprisal.

Natural pairs are ordered best by the logit alone, edits by the surprisal: the table shows the gain
and the cost of each weight, in the precision of the training.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from assay_models.repository import embedded_root
from recipes.code.data import Packer, Pair
from recipes.code.evaluate import DATASETS, read_dataset
from recipes.code.packed_model import (
    AdapterConfig,
    PackedModel,
    add_adapter,
    load_backbone,
    load_encoder,
)
from recipes.code.train import TrainConfig, pair_margins
from recipes.measure import pair_accuracy

EXAMPLE = "example: python -m recipes.code.surprisal_weight --data ../shared/data --threads 2"
RELEASED = embedded_root() / "code" / "2" / "adapter"
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)
COMPARED = DATASETS[:3]


def main() -> None:
    """Parse the command line, score the pairs once, print the accuracies at each weight."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    packed = load_packed(arguments.adapter)
    packer = Packer(load_encoder(), 2 * TrainConfig().max_tokens, TrainConfig().pack_tokens)
    scored: dict[str, tuple[Sequence[Pair], NDArray[np.float64]]] = {}
    for dataset in COMPARED:
        pairs = read_dataset(dataset, arguments.data)
        if arguments.pairs is not None and len(pairs) > arguments.pairs:
            pairs = random.Random(0).sample(pairs, arguments.pairs)  # noqa: S311 - a sample
        scored[dataset.name] = (pairs, pair_margins(packed, packer, pairs))
    for weight in WEIGHTS:
        cells = (
            f"{name} {pair_accuracy(logit - weight * excess, [pair.problem for pair in pairs])}"
            for name, (pairs, (logit, excess)) in scored.items()
        )
        print(f"{weight:5} " + "  ".join(cells), flush=True)


def load_packed(adapter: Path) -> PackedModel:
    """Load the backbone with a trained adapter, for scoring packs."""
    model = add_adapter(load_backbone(), AdapterConfig())
    state = load_file(adapter / "adapter_model.safetensors")
    set_peft_model_state_dict(model, state)
    return PackedModel(model, AdapterConfig().first_layer)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds code/")
    parser.add_argument(
        "--adapter", type=Path, default=RELEASED, help="output of the training (the released one)"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--pairs", type=int, help="limit for each dataset, drawn (all)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
