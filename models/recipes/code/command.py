"""What the measuring commands of this recipe share on their command lines."""

import argparse
from pathlib import Path
from typing import Any, Literal

import torch

Option = Literal["model", "check", "plot", "batch_size"]

_OPTIONS: dict[Option, dict[str, Any]] = {
    "model": {"default": "code", "help": "a model of the family code, by name (code)"},
    "check": {"action": "store_true", "help": "fail where the card says otherwise"},
    "plot": {"type": Path, "help": "where to draw it, as SVG"},
    "batch_size": {"type": int, "default": 8, "help": "programs a forward pass (8)"},
}


def parser_of(description: str | None, example: str, *options: Option) -> argparse.ArgumentParser:
    """A parser that knows `--data`, `--threads` and those of the shared options."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that holds code/ and rm-bench/"
    )
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the model (1)")
    for name in options:
        parser.add_argument(f"--{name.replace('_', '-')}", **_OPTIONS[name])
    return parser


def parsed(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The command line, with PyTorch's threads set as it says."""
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return arguments
