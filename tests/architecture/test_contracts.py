"""The import contracts hold, and would catch a violation, also one hidden in a function."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.paths import ROOT

ROOMS = (
    "service/assay",
    "models/assay_models",
    "models/assay_monitors",
    "models/recipes",
    "clients/assay_client",
)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    paths = [str(folder / room) for room in ("service", "models", "clients")]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; {program}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for room in ROOMS:
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / room, tmp_path / room, ignore=skipped)
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def test_the_contracts_hold(copy: Path) -> None:
    answer = lint(copy)
    assert answer.returncode == 0, answer.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("service/assay/scoring/service.py", "def planted():\n    import fastapi\n"),
        ("service/assay/batching/batcher.py", "from assay.scoring import service\n"),
        (
            "service/assay/cache/redis.py",
            "def planted():\n    from assay.batching.entry import Outcome\n",
        ),
        ("service/assay/batching/scheduler.py", "from assay.batching.entry import Entry\n"),
        ("service/assay/scoring/prepare.py", "from assay.scoring.ranking import rank\n"),
        ("service/assay/scoring/service.py", "import torch\n"),
        ("models/assay_models/base.py", "from assay_models.registry import FAMILIES\n"),
        ("models/assay_models/card.py", "import assay\n"),
        ("models/assay_models/families/nli/claims.py", "import assay_models.families.code.model\n"),
        ("service/assay/served_model.py", "import redis\n"),
        ("service/assay/scoring/service.py", "import assay.settings\n"),
        ("clients/assay_client/types.py", "import pydantic\n"),
        ("service/assay/app.py", "import recipes.measure\n"),
        ("service/assay/api/dialects/slime.py", "from assay.api.dialects import openrlhf\n"),
        ("service/assay/api/dialects/slime.py", "from assay.api.v1 import score\n"),
        ("service/assay/runs/subscribers.py", "import starlette\n"),
        ("models/assay_monitors/reports.py", "from assay_monitors.charts import Episode\n"),
        ("models/assay_monitors/distribution.py", "from assay_monitors import health\n"),
        ("models/assay_monitors/summaries.py", "from assay.types import Source\n"),
        ("models/assay_monitors/gold.py", "from assay_monitors.summaries import Summary\n"),
    ],
)
def test_a_planted_violation_is_caught(copy: Path, file: str, line: str) -> None:
    path = copy / file
    path.write_text(path.read_text() + "\n\n" + line)
    answer = lint(copy)
    assert answer.returncode != 0
    assert "BROKEN" in answer.stdout
