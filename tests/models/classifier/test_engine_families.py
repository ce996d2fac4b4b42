"""Families with an engine's weights: the numbers of the same checkpoint computed here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import PlainTransformers, build_checkpoint
from support.engine_models import write_engine_model
from support.engine_servers import EngineServer, Received, vllm

from assay_models.base import Options, RewardModel
from assay_models.card import CardError
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelRepository

PROGRAM = "```python\ndef f(x):\n    return x + {}\n```"
NLI = ("contradiction", "entailment", "neutral")
FAMILIES: Mapping[str, tuple[tuple[str, ...] | None, str, list[dict[str, Any]]]] = {
    "sequence_classifier": (
        None,
        "",
        [{"prompt": "What is it?", "response": text} for text in ("one", "another one")],
    ),
    "code": (
        None,
        "",
        [{"prompt": "Add.", "response": PROGRAM.format(number)} for number in range(2)],
    ),
    "nli": (
        NLI,
        "probes = false",
        [{"premise": f"There are {n} dogs.", "hypothesis": "A dog runs."} for n in range(2)],
    ),
}


class TransformersServer(EngineServer):
    """A server that speaks vLLM's protocol, and computes rows by plain Transformers."""

    def __init__(self, plain: PlainTransformers) -> None:
        super().__init__(self.answer, labels=plain.model.config.num_labels)
        self.plain = plain

    def answer(self, server: EngineServer, request: Received) -> tuple[int, Any]:
        status, value = vllm(server, request)
        if request.path == "/classify":
            for row, entry in zip(request.body["input"], value["data"], strict=True):
                entry["probs"] = self.compute(row, activates=request.body["use_activation"])
        return status, value

    def compute(self, row: list[int], *, activates: bool) -> list[float]:
        with torch.inference_mode():
            logits = self.plain.model(torch.tensor([row])).logits[0]
        if not activates:
            return [float(logit) for logit in logits]
        activated = torch.sigmoid(logits) if len(logits) == 1 else torch.softmax(logits, 0)
        return [float(number) for number in activated]


def load(folder: Path) -> RewardModel:
    repository = ModelRepository([folder])
    entry = repository.find("tiny")
    return family_of(entry.card).load(entry.card, repository.locate(entry), Runtime())


def with_engine(folder: Path, url: str, parity: str = "off") -> None:
    card = folder / "card.toml"
    engine = f'[engine]\nprotocol = "vllm"\nurls = ["{url}"]\nmodel = "rm"\nparity = "{parity}"\n'
    card.write_text(card.read_text() + engine)


@pytest.mark.parametrize("family", [*FAMILIES])
async def test_family_with_an_engines_weights_scores_as_the_local_one(
    family: str, tmp_path: Path
) -> None:
    labels, options, items = FAMILIES[family]
    build_checkpoint("qwen3", tmp_path, labels=labels, family=family)
    card = tmp_path / "card.toml"
    card.write_text(card.read_text() + options + "\n")
    local = load(tmp_path)
    async with TransformersServer(PlainTransformers(tmp_path)).listening() as server:
        with_engine(tmp_path, server.url)
        remote: Any = load(tmp_path)
        assert (local.runs, remote.runs) == ("device", "remote")
        await remote.proof.prove()
        assert remote.proof.unproven is None
        assert remote.fingerprint != local.fingerprint
        for fields in items:
            item = family_of(ModelRepository([tmp_path]).find("tiny").card).item(**fields)
            here, there = (model.prepare([item], Options()) for model in (local, remote))
            assert [row.payload.ids for row in here.inputs] == [
                row.payload.ids for row in there.inputs
            ]
            raws: Any = local.predict(here.inputs)
            others = await remote.predict(there.inputs)
            assert others == [pytest.approx(raw, abs=1e-4) for raw in raws]
            (score,), (other,) = (
                local.finish(here, raws, Options()),
                remote.finish(there, others, Options()),
            )
            assert other.score == pytest.approx(score.score, abs=1e-3)
        await remote.proof.close()


@pytest.mark.slow
async def test_engine_with_other_weights_than_the_cards_is_refused(tmp_path: Path) -> None:
    build_checkpoint("qwen3", tmp_path / "right")
    build_checkpoint("qwen3", tmp_path / "wrong", seed=8)
    server = TransformersServer(PlainTransformers(tmp_path / "wrong"))
    async with server.listening():
        with_engine(tmp_path / "right", server.url, "auto")
        model: Any = load(tmp_path / "right")
        await model.proof.prove()
        assert "plain Transformers" in model.proof.unproven
        server.plain = PlainTransformers(tmp_path / "right")
        await model.proof.prove()
        assert model.proof.unproven is None
        await model.proof.close()


def test_family_that_is_computed_here_refuses_an_engine(tmp_path: Path) -> None:
    write_engine_model(tmp_path, url="http://127.0.0.1:9", family="video_qpp")
    with pytest.raises(CardError, match=r"remove \[engine\]"):
        load(tmp_path)


def test_family_engine_needs_an_engine(tmp_path: Path) -> None:
    folder = write_engine_model(tmp_path, url="http://127.0.0.1:9")
    card = folder / "card.toml"
    card.write_text(card.read_text().partition("[engine]")[0])
    with pytest.raises(CardError, match=r"needs a section \[engine\]"):
        load(folder)
