"""The protocol of another Assay against a real server."""

import pytest
from support.servers import listening

from assay.selection import open_repository
from assay.settings import Settings
from assay_models.base import ItemError, Options
from assay_models.card import ModelCard
from assay_models.engines.client import open_engine
from assay_models.engines.errors import EngineError
from assay_models.items import TextItem
from assay_models.registry import FAMILIES, Runtime
from assay_models.repository import ModelRepository


def card_of(url: str, model: str = "reference@1") -> ModelCard:
    engine = {"protocol": "assay", "urls": (url,), "model": model}
    return ModelCard.model_validate(
        {"name": "remote", "version": 1, "family": "reference", "engine": engine}
    )


def raw_of(repository: ModelRepository, item: TextItem) -> tuple[float, ...]:
    entry = repository.find("reference")
    model = FAMILIES["reference"].load(entry.card, repository.locate(entry), Runtime())
    (raw,) = model.predict(model.prepare([item], Options()).inputs)  # type: ignore[misc]
    return tuple(raw)


async def test_raws_of_a_real_assay_are_those_of_its_model() -> None:
    settings = Settings(models=("reference",), runs="off")
    repository = open_repository(settings)
    with listening(settings) as url:
        engine = open_engine(card_of(url))
        identity = await engine.identity()
        assert identity.model == "reference@1"
        assert identity.fingerprint.startswith("sha256:")
        results = await engine.classify_texts(["four", ""])
        pair = await engine.classify_texts([("2+2?", "4")], fields=("prompt", "response"))
        assert results[0] == raw_of(repository, TextItem(text="four"))
        assert pair == [raw_of(repository, TextItem(prompt="2+2?", response="4"))]
        long = "word " * 5_000
        results = await engine.classify_texts(["four", long, "five"])
        assert isinstance(results[1], ItemError)
        assert results[1].code == "input_too_long"
        assert results[2] == raw_of(repository, TextItem(text="five"))
        await engine.close()


async def test_model_that_a_real_assay_does_not_serve_is_refused() -> None:
    with listening(Settings(models=("reference",), runs="off")) as url:
        engine = open_engine(card_of(url, "other@1"))
        with pytest.raises(EngineError, match=r"engine\.model") as raised:
            await engine.classify_texts(["four"])
        assert raised.value.code == "engine_refused"
        await engine.close()
