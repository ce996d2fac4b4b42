"""Files of items, and `assay score` on them in this process."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from assay.cli import app


def write_items(path: Path, items: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    return path


def distinct_items(count: int) -> list[dict[str, str]]:
    return [
        {"id": f"item-{n}", "prompt": f"count to {n} and back", "response": f"{n} and up"}
        for n in range(count)
    ]


def score(source: Path, output: Path, *options: str, **environment: str) -> Result:
    arguments = ["score", str(source), "--model", "reference", "-o", str(output), *options]
    return CliRunner().invoke(app, arguments, env=environment)


def results_of(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.read_bytes().splitlines()]
