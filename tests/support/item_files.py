"""Item files, and the command line run on them in this process."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from assay.cli import app


def write_items(path: Path, items: Sequence[Mapping[str, Any]]) -> Path:
    """Write items as JSON lines, and return the path."""
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def distinct_items(count: int) -> list[dict[str, str]]:
    """Return items that all differ in prompt and response."""
    return [
        {"id": f"item-{n}", "prompt": f"count to {n} and back", "response": f"{n} and up"}
        for n in range(count)
    ]


def run(*arguments: str, **variables: str) -> Result:
    """Run `assay` with these variables and no other `ASSAY_*` ones."""
    unset = {name: None for name in os.environ if name.startswith("ASSAY_")}
    return CliRunner().invoke(app, arguments, env={**unset, **variables})


def score(source: Path, output: Path, *options: str, **variables: str) -> Result:
    """Run `assay score` with the reference model on a file of items."""
    arguments = ("score", str(source), "--model", "reference", "-o", str(output), *options)
    return run(*arguments, **variables)


def results_of(output: Path) -> list[dict[str, Any]]:
    """Read the results that `assay score` wrote."""
    return [json.loads(line) for line in output.read_bytes().splitlines()]
