"""The example of a policy that answers from passages, with few steps, and in full at night."""

import importlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from types import ModuleType
from typing import Any

import pytest
from support.paths import ROOT
from support.servers import listening
from support.tiers import only_nightly

from assay.settings import Settings
from assay_client.rewards.contracts import extract_answer, recompute_reward

pytest.importorskip("bm25s", reason="the example retrieves with bm25s")

EXAMPLE = ROOT / "clients" / "examples" / "grounded_answers"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*:Warning"),
]  # libraries' own warnings


@pytest.fixture(autouse=True)
def _example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for name in ("coast", "train", "plot"):
        sys.modules.pop(name, None)


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_every_light_differs_and_the_tokenizer_knows_all_words() -> None:
    coast = module("coast")
    known = coast.lights()
    assert len({light.passage() for light in known}) == len(known) == 24
    assert {light.name for light in known} > set(coast.HELD_OUT)
    words, chance = coast.tokenizer(), random.Random(0)
    library = coast.Library(known)
    for question in list(coast.questions(known))[::7]:
        text = coast.prompt(library.search(question.text), question.text)
        attempt = coast.attempt(chance, question)
        assert words.unk_token_id not in words(f"{text} {attempt}")["input_ids"]


def test_the_retriever_finds_the_light_of_the_question() -> None:
    coast = module("coast")
    library = coast.Library(coast.lights())
    for question in list(coast.questions(coast.lights()))[::5]:
        found = library.search(question.text)
        assert len(found) == coast.PASSAGES
        assert question.light.passage() == found[0]


def test_pretraining_answers_vary() -> None:
    coast = module("coast")
    chance = random.Random(0)
    question = next(coast.questions(coast.lights()))
    attempts = [coast.attempt(chance, question) for _ in range(400)]
    answers = [answer for answer in map(extract_answer, attempts) if answer is not None]
    assert 260 < len(answers) < 380
    assert 60 < sum(question.answer in attempt for attempt in attempts) < 240


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[dict[str, Any]]:
    """Return the log of a run with a real server; check each reward by its breakdown."""
    train = module("train")
    with listening(Settings(models=("nli-small@1",))) as url:
        monkeypatch.setattr("sys.argv", ["train.py", str(tmp_path), "--url", url, *arguments])
        train.main()
    log: list[dict[str, Any]] = json.loads((tmp_path / "log.json").read_text())
    lines = (tmp_path / "breakdowns.jsonl").read_text().splitlines()
    breakdowns = [json.loads(line) for line in lines]
    assert all(recompute_reward(breakdown) == breakdown["reward"] for breakdown in breakdowns)
    assert {breakdown["model"] for breakdown in breakdowns} <= {"nli-small@1", None}
    for row in log:
        own = [entry["reward"] for entry in breakdowns if entry["step"] == row["step"] - 1]
        scored = [reward for reward in own if reward is not None]
        assert float(row["reward"]) == pytest.approx(mean(scored), abs=1e-4)
    return log


@pytest.mark.weights
def test_the_policy_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl", reason="the example needs TRL, which is no dependency of Assay")
    for name, value in (("PRETRAINING", 5), ("PROMPTS", 2), ("HELD_OUT", ("Zennor",))):
        monkeypatch.setattr(module("train"), name, value)
    log = run(tmp_path, monkeypatch, "--steps", "2")
    assert [row["step"] for row in log] == [1, 2]


@only_nightly
@pytest.mark.weights
def test_the_reward_and_the_contribution_of_phi_rise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = run(tmp_path, monkeypatch)
    for key in ("reward", "assay/phi", "assay/from_phi", "true/sentences"):
        first, last = (mean(float(row[key]) for row in part) for part in (log[:5], log[-5:]))
        assert last > first + 0.1, key


def test_the_runs_are_plotted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plot = module("plot")
    for name in ("with", "without"):
        keys = [key for _, key, _ in plot.PARTS] + [key for key, _ in plot.PANELS]
        rows = [{"step": step, **dict.fromkeys(keys, f"{step / 4}")} for step in range(4)]
        del rows[1]["assay/phi"]
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.json").write_text(json.dumps(rows))
    picture = tmp_path / "runs.svg"
    folders = [str(tmp_path / name) for name in ("with", "without")]
    monkeypatch.setattr("sys.argv", ["plot.py", *folders, "--out", str(picture)])
    plot.main()
    assert "<svg" in picture.read_text()
