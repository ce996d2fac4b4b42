"""Finds how much of the surprisal to take off the logit, on held-out pairs.

Natural pairs are ordered best by the logit alone, edits by the surprisal: the table shows what each
weight gains and costs, in the precision of the training.
"""

import argparse
import random
from pathlib import Path

import torch
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from assay_models.repository import embedded_root
from recipes.code.data import Packer
from recipes.code.evaluate import DATASETS, pairs_of
from recipes.code.packed import Adapter, PackedModel, adapted, backbone, encoder
from recipes.code.train import Plan, judged_pairs
from recipes.measure import pair_accuracy

EXAMPLE = "example: python -m recipes.code.weigh --data ../shared/data --threads 2"
RELEASED = embedded_root() / "code" / "2" / "adapter"
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)
SETS = DATASETS[:3]


def main() -> None:
    """Parse the command line, judge the pairs once, print the figures at each weight."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds code/")
    parser.add_argument(
        "--adapter", type=Path, default=RELEASED, help="what a run wrote (the released one)"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--pairs", type=int, help="so many of each set, drawn (all)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = adapted(backbone(), Adapter())
    state = load_file(arguments.adapter / "adapter_model.safetensors")
    set_peft_model_state_dict(model, state)
    packed = PackedModel(model, Adapter().first_layer)
    packer = Packer(encoder(), 2 * Plan().longest, Plan().pack_budget)
    judged = {}
    for dataset in SETS:
        pairs = pairs_of(dataset, arguments.data)
        if arguments.pairs is not None and len(pairs) > arguments.pairs:
            pairs = random.Random(0).sample(pairs, arguments.pairs)  # noqa: S311 - a sample
        judged[dataset.name] = (pairs, judged_pairs(packed, packer, pairs))
    for weight in WEIGHTS:
        cells = (
            f"{name} {pair_accuracy(logit - weight * excess, [pair.problem for pair in pairs])}"
            for name, (pairs, (logit, excess)) in judged.items()
        )
        print(f"{weight:5} " + "  ".join(cells), flush=True)


if __name__ == "__main__":
    main()
