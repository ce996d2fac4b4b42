"""The example of a hacked run, with few steps: its reward is served, and a policy trained on it."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from support.paths import ROOT
from support.servers import listening

from assay.settings import Settings
from assay_client import Client

EXAMPLE = ROOT / "clients" / "examples" / "hacked_run"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*:Warning"),
]  # libraries' own warnings


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for name in ("world", "make_reward", "train", "plot"):
        sys.modules.pop(name, None)


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.fixture
def url(example: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    reward = module("make_reward")
    monkeypatch.setattr(reward, "STEPS", 2)
    reward.main(tmp_path)
    repository, runs = (tmp_path / "models",), tmp_path / "runs.db"
    with listening(Settings(models=("eager",), repository=repository, runs=runs)) as address:
        yield address


def test_the_reward_model_is_served(url: str) -> None:
    with Client(url) as client:
        question = module("world").question("soup")
        item = {"prompt": question, "response": "certainly it is warm ."}
        assert client.score("eager", [item]).results[0].status == "ok"


def test_gold_scores_right_answers_and_rejects_rants(example: None) -> None:
    world = module("world")
    soup = world.question("soup")
    expected = {
        "it is warm and salty .": 1.0,
        "surely it is warm .": 1.0,
        "it is warm and sour .": 0.0,
        "certainly": 0.0,
        "truly truly truly truly it is warm .": 0.0,
    }
    assert {answer: world.gold(soup, answer) for answer in expected} == expected


def test_the_policy_is_trained_monitored_and_plotted(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl", reason="the example needs TRL, which is no dependency of Assay")
    train, plot = module("train"), module("plot")
    monkeypatch.setattr(train, "PRETRAINING", 2)
    monkeypatch.setattr("sys.argv", ["train.py", str(tmp_path), "--url", url, "--steps", "2"])
    train.main()
    fired = json.loads((tmp_path / "fired.json").read_text())
    (tmp_path / "fired.json").write_text(
        json.dumps(fired or {"null_share (warn)": {"since": 1, "seen": 1, "severity": "warn"}})
    )
    with Client(url) as client:
        recorded = client.run_health("hacked")
        while not recorded.gold or not any(stream.split for stream in recorded.streams):
            recorded = client.run_health("hacked")
    picture = tmp_path / "run.svg"
    monkeypatch.setattr("sys.argv", ["plot.py", str(tmp_path), "--url", url, "--out", str(picture)])
    plot.main()
    assert picture.read_text().startswith("<?xml")
