"""The import contracts hold, and would catch a violation, also one hidden in a function."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.paths import ROOT

PACKAGES = (
    "service/assay",
    "models/assay_models",
    "models/assay_monitors",
    "models/recipes",
    "clients/assay_client",
)
# Where an import is planted, the statement, and the pair of modules that the linter has to name.
PLANTED = (
    (
        "service/assay/scoring/service.py",
        "def planted():\n    import fastapi\n",
        "assay.scoring.service -> fastapi",
    ),
    (
        "service/assay/batching/batcher.py",
        "from assay.scoring import best_of_n\n",
        "assay.batching.batcher -> assay.scoring.best_of_n",
    ),
    (
        "service/assay/cache/redis.py",
        "def planted():\n    from assay.batching.entry import Outcome\n",
        "assay.cache.redis -> assay.batching.entry",
    ),
    (
        "service/assay/batching/scheduler.py",
        "from assay.batching.entry import Entry\n",
        "assay.batching.scheduler -> assay.batching.entry",
    ),
    (
        "service/assay/scoring/prepare.py",
        "from assay.scoring.ranking import rank\n",
        "assay.scoring.prepare -> assay.scoring.ranking",
    ),
    (
        "service/assay/scoring/ranking.py",
        "import torch\n",
        "assay.scoring.ranking -> torch",
    ),
    (
        "models/assay_models/base.py",
        "from assay_models.registry import FAMILIES\n",
        "assay_models.base -> assay_models.registry",
    ),
    (
        "models/assay_models/shaping.py",
        "import assay.errors\n",
        "assay_models.shaping -> assay.errors",
    ),
    (
        "models/assay_models/families/nli/claims.py",
        "import assay_models.families.code.model\n",
        "assay_models.families.nli.claims -> assay_models.families.code.model",
    ),
    (
        "service/assay/served_model.py",
        "import redis\n",
        "assay.served_model -> redis",
    ),
    (
        "service/assay/scoring/assemble.py",
        "import assay.settings\n",
        "assay.scoring.assemble -> assay.settings",
    ),
    (
        "clients/assay_client/types.py",
        "import pydantic\n",
        "assay_client.types -> pydantic",
    ),
    (
        "service/assay/app.py",
        "import recipes.measure\n",
        "assay.app -> recipes.measure",
    ),
    (
        "service/assay/api/dialects/slime.py",
        "from assay.api.dialects import openrlhf\n",
        "assay.api.dialects.slime -> assay.api.dialects.openrlhf",
    ),
    (
        "service/assay/api/dialects/roll.py",
        "from assay.api.v1 import score\n",
        "assay.api.dialects.roll -> assay.api.v1",
    ),
    (
        "service/assay/api/errors.py",
        "def planted():\n    from assay.api.dialects import slime\n",
        "assay.api.errors -> assay.api.dialects.slime",
    ),
    (
        "models/assay_models/families/classifier/batch_layout.py",
        "def planted():\n    from assay_models.families.nli import claims\n",
        "assay_models.families.classifier.batch_layout -> assay_models.families.nli.claims",
    ),
    (
        "service/assay/runs/subscribers.py",
        "import starlette\n",
        "assay.runs.subscribers -> starlette",
    ),
    (
        "models/assay_monitors/reports.py",
        "from assay_monitors.charts import Episode\n",
        "assay_monitors.reports -> assay_monitors.charts",
    ),
    (
        "models/assay_monitors/distribution.py",
        "from assay_monitors import health\n",
        "assay_monitors.distribution -> assay_monitors.health",
    ),
    (
        "models/assay_monitors/gold.py",
        "from assay_monitors.summaries import Summary\n",
        "assay_monitors.gold -> assay_monitors.summaries",
    ),
    (
        "models/assay_monitors/summaries.py",
        "from assay.types import Source\n",
        "assay_monitors.summaries -> assay.types",
    ),
)


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"
    paths = [str(folder / room) for room in ("service", "models", "clients")]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {paths!r}; {program}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all packages and of the contracts."""
    folder = tmp_path_factory.mktemp("contracts")
    for package in PACKAGES:
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=skipped)
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


@pytest.fixture(scope="module")
def findings(copy: Path) -> Iterator[str]:
    """The linter's report on a copy in which every violation is planted at once."""
    before = {file: (copy / file).read_text() for file, _, _ in PLANTED}
    for file, statement, _ in PLANTED:
        with (copy / file).open("a") as source:
            source.write(f"\n\n{statement}")
    report = lint(copy)
    assert report.returncode != 0
    yield " ".join(report.stdout.split())
    for file, text in before.items():
        (copy / file).write_text(text)


@pytest.mark.parametrize("imported", [pair for _, _, pair in PLANTED])
def test_a_planted_import_is_reported(findings: str, imported: str) -> None:
    assert f"{imported} (l." in findings


def test_the_contracts_hold(copy: Path, findings: str) -> None:
    for file, statement, _ in PLANTED:
        path = copy / file
        path.write_text(path.read_text().removesuffix(f"\n\n{statement}"))
    answer = lint(copy)
    assert answer.returncode == 0, answer.stdout
