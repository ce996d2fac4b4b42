"""The example of a policy that rewrites queries, with few steps, and in full at night."""

import importlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from types import ModuleType

import pytest
from support.paths import ROOT
from support.servers import listening
from support.tiers import only_nightly

from assay.settings import Settings

EXAMPLE = ROOT / "clients" / "examples" / "query_rewriting"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*:Warning"),
]  # libraries' own warnings


@pytest.fixture(autouse=True)
def _example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for name in ("queries", "train", "plot"):
        sys.modules.pop(name, None)


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.weights
def test_the_tokenizer_knows_all_words_and_initial_rewrites_vary() -> None:
    queries = module("queries")
    words, chance = queries.tokenizer(), random.Random(0)
    texts = [queries.rewrite(chance, queries.ORIGINALS[0]) for _ in range(200)]
    assert words.unk_token_id not in words(" ".join(texts))["input_ids"]
    kept = sum(set(queries.ORIGINALS[0].split()) <= set(text.split()) for text in texts)
    assert 100 < kept < 190


def test_the_runs_are_plotted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plot = module("plot")
    for name in ("free", "held"):
        rows = [
            {"step": step, **{key: f"{step / 4}" for key, _ in plot.PANELS}} for step in range(4)
        ]
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.json").write_text(json.dumps(rows))
    picture = tmp_path / "runs.svg"
    folders = [str(tmp_path / name) for name in ("free", "held")]
    monkeypatch.setattr("sys.argv", ["plot.py", *folders, "--out", str(picture)])
    plot.main()
    assert "<svg" in picture.read_text()


@pytest.mark.weights
@pytest.mark.parametrize("options", [[], ["--no-drift-penalty"]])
def test_the_policy_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    pytest.importorskip("trl", reason="the example needs TRL, which is no dependency of Assay")
    train = module("train")
    monkeypatch.setattr(train, "PRETRAINING", 2)
    with listening(Settings(models=("video-qpp@2",))) as url:
        monkeypatch.setattr(
            "sys.argv", ["train.py", str(tmp_path), "--url", url, "--steps", "2", *options]
        )
        train.main()
    first, second = json.loads((tmp_path / "log.json").read_text())
    assert (first["step"], second["step"]) == (1, 2)
    penalty = float(first["assay/score"]) - float(first["reward"])
    assert penalty > 0 or options


LAST_STEPS = 10
"""The steps at the end of a run over which values are averaged."""


@only_nightly
@pytest.mark.weights
def test_the_runs_end_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that the policy drifts from the original only without the drift penalty, and that the
    reward rises with it too."""
    pytest.importorskip("trl", reason="the example needs TRL, which is no dependency of Assay")
    train = module("train")
    logs = {}
    with listening(Settings(models=("video-qpp@2",))) as url:
        for name, options in (("free", ["--no-drift-penalty"]), ("held", [])):
            folder = tmp_path / name
            monkeypatch.setattr("sys.argv", ["train.py", str(folder), "--url", url, *options])
            train.main()
            logs[name] = json.loads((folder / "log.json").read_text())

    def mean(name: str, key: str, steps: slice) -> float:
        return fmean(float(row[key]) for row in logs[name][steps])

    begin, end = slice(0, 1), slice(-LAST_STEPS, None)
    for name in logs:
        assert [row["step"] for row in logs[name]] == list(range(1, 61))
        assert mean(name, "reward", end) > mean(name, "reward", begin) + 0.15
        assert mean(name, "assay/score", end) > mean(name, "assay/score", begin) + 0.15
        assert {float(row["assay/failed"]) for row in logs[name]} == {0.0}
    assert mean("free", "assay/similarity", begin) > 0.6
    assert mean("free", "assay/similarity", end) < 0.35
    assert mean("free", "assay/novelty", end) > 0.8
    assert mean("held", "assay/similarity", end) > 0.5
    assert mean("held", "assay/novelty", end) < 0.75
    assert mean("free", "assay/score", end) > mean("held", "assay/score", end)
