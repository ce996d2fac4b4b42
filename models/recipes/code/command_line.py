"""Command-line options that the measuring commands of this recipe share."""

import argparse
from pathlib import Path
from typing import Any, Literal

import torch

OptionName = Literal["model", "repository", "check", "plot", "batch_size"]

_OPTIONS: dict[OptionName, dict[str, Any]] = {
    "model": {"default": "code", "help": "a model of the family code, by name (code)"},
    "repository": {"type": Path, "help": "a folder of models whose models replace embedded ones"},
    "check": {"action": "store_true", "help": "fail where the card says otherwise"},
    "plot": {"type": Path, "help": "where to draw it, as SVG"},
    "batch_size": {"type": int, "default": 8, "help": "programs a forward pass (8)"},
}


def build_parser(
    description: str | None, example: str, *options: OptionName
) -> argparse.ArgumentParser:
    """Build a parser with `--data`, `--threads` and the named shared options."""
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


def parse_arguments(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line and set PyTorch's threads accordingly."""
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return arguments
