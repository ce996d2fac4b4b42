"""The example of a policy that answers from passages, in small, and as a whole at night."""

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
from assay_client.rewards.contracts import answer_of, recomputed

pytest.importorskip("bm25s", reason="the example retrieves with bm25s")

EXAMPLE = ROOT / "clients" / "examples" / "grounded_answers"
pytestmark = pytest.mark.filterwarnings("ignore:.*:Warning")  # what libraries warn of is theirs


@pytest.fixture(autouse=True)
def _example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield
    for name in ("coast", "train", "plot"):
        sys.modules.pop(name, None)


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_every_light_differs_and_its_words_are_all_known() -> None:
    coast = module("coast")
    known = coast.lights()
    assert len({one.passage() for one in known}) == len(known) == 24
    assert {one.name for one in known} > set(coast.HELD_OUT)
    words, chance = coast.tokenizer(), random.Random(0)
    library = coast.Library(known)
    for question in list(coast.questions(known))[::7]:
        text = coast.prompt(library.search(question.text), question.text)
        said = coast.attempt(chance, question)
        assert words.unk_token_id not in words(f"{text} {said}")["input_ids"]


def test_the_retriever_finds_the_light_that_is_asked_about() -> None:
    coast = module("coast")
    library = coast.Library(coast.lights())
    for question in list(coast.questions(coast.lights()))[::5]:
        found = library.search(question.text)
        assert len(found) == coast.PASSAGES
        assert question.light.passage() == found[0]


def test_a_first_policy_reads_answers_of_all_kinds() -> None:
    coast = module("coast")
    chance = random.Random(0)
    question = next(coast.questions(coast.lights()))
    said = [coast.attempt(chance, question) for _ in range(400)]
    answers = [one for one in map(answer_of, said) if one is not None]
    assert 260 < len(answers) < 380
    assert 60 < sum(question.answer in one for one in said) < 240


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[dict[str, Any]]:
    """The log of a run against a real server; every reward in it recomputed from its account."""
    train = module("train")
    with listening(Settings(models=("nli-small@1",))) as url:
        monkeypatch.setattr("sys.argv", ["train.py", str(tmp_path), "--url", url, *arguments])
        train.main()
    log: list[dict[str, Any]] = json.loads((tmp_path / "log.json").read_text())
    accounts = [json.loads(line) for line in (tmp_path / "accounts.jsonl").read_text().splitlines()]
    assert all(recomputed(one) == one["reward"] for one in accounts)
    assert {one["model"] for one in accounts} <= {"nli-small@1", None}
    for row in log:
        own = [one["reward"] for one in accounts if one["step"] == row["step"] - 1]
        scored = [one for one in own if one is not None]
        assert float(row["reward"]) == pytest.approx(mean(scored), abs=1e-4)
    return log


@pytest.mark.weights
def test_its_policy_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl", reason="the example needs TRL, which is no dependency of Assay")
    for name, value in (("PRETRAINING", 5), ("PROMPTS", 2), ("HELD_OUT", ("Zennor",))):
        monkeypatch.setattr(module("train"), name, value)
    log = run(tmp_path, monkeypatch, "--steps", "2")
    assert [row["step"] for row in log] == [1, 2]


@only_nightly
@pytest.mark.weights
def test_reward_rises_and_so_does_the_share_of_phi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = run(tmp_path, monkeypatch)
    for key in ("reward", "assay/phi", "assay/from_phi", "true/sentences"):
        first, last = (mean(float(row[key]) for row in part) for part in (log[:5], log[-5:]))
        assert last > first + 0.1, key


def test_its_runs_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
