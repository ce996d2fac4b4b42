"""A query with its `original`: three more channels, and the same score."""

import asyncio
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.query_scoring import prepare, score

from assay.offline.local import running_service
from assay.scoring.service import ScoreCall
from assay.settings import Settings
from assay_models.base import Input, ItemError, Options
from assay_models.families.qpp.rewrites import length_change, novelty
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelRepository, embedded_root

pytestmark = pytest.mark.weights

ORIGINAL = "a man cooks"
REWRITES = (
    "a man in a white apron cooks pasta in a small kitchen",
    "a man cooks",
    "an orchestra plays for the queen of a far country",
    "cooking",
)
DRIFT_CHANNELS = ("similarity", "length_change", "novelty")


def load(runtime: Runtime) -> Any:
    repository = ModelRepository([embedded_root()])
    entry = repository.find("video-qpp@2")
    return family_of(entry.card).load(entry.card, repository.locate(entry), runtime)


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("collection", ["msrvtt", "vatex", "coco"])
def test_the_score_does_not_depend_on_the_original(model: Any, collection: str, raw: bool) -> None:
    for query in REWRITES:
        options = Options(raw=raw)
        with_original, without = (
            score(model, query, options, collection=collection, **fields)
            for fields in ({"original": ORIGINAL}, {})
        )
        assert with_original.score == pytest.approx(without.score, abs=2e-6)
        assert with_original.raw == pytest.approx(without.raw, abs=2e-6)
        assert (with_original.flags, with_original.details) == (without.flags, without.details)
        assert set(with_original.channels) - set(without.channels) == set(DRIFT_CHANNELS)
        assert set(without.channels) == {"rr", "r10"}


def test_a_query_without_an_original_keeps_no_embedding(model: Any) -> None:
    (row,) = prepare(model, ORIGINAL, collection="vatex").inputs
    assert row.key.startswith(b"vatex\0")
    assert len(model.predict([row])[0]) == 5


def test_the_channels_equal_cosine_length_change_and_novelty(model: Any) -> None:
    tokenizer = model.encoder.tokenizer
    original = model.encoder.embed([tokenizer.encode(ORIGINAL).ids])[0].astype(np.float64)
    for query in REWRITES:
        channels = score(model, query, original=ORIGINAL).channels
        own = model.encoder.embed([tokenizer.encode(query).ids])[0].astype(np.float64)
        cosine = own @ original / np.linalg.norm(own) / np.linalg.norm(original)
        assert channels["similarity"] == pytest.approx(cosine, abs=1e-5)
        assert channels["length_change"] == length_change(query, ORIGINAL)
        assert channels["novelty"] == novelty(query, ORIGINAL)


def test_a_rewrite_with_the_same_meaning_is_more_similar_than_another(model: Any) -> None:
    detailed, same, unrelated, shorter = (
        score(model, query, original=ORIGINAL).channels for query in REWRITES
    )
    assert same["similarity"] == pytest.approx(1, abs=1e-5)
    assert (same["length_change"], same["novelty"]) == (0, 0)
    assert same["similarity"] > detailed["similarity"] > unrelated["similarity"]
    assert unrelated["novelty"] == 1.0
    assert shorter["length_change"] == pytest.approx(-math.log(3))


def test_a_negation_lowers_similarity_less_than_detail_does(model: Any) -> None:
    negated, detailed = (
        score(model, query, original=ORIGINAL).channels["similarity"]
        for query in ("a man does not cook", REWRITES[0])
    )
    assert negated > detailed


def test_all_rewrites_of_one_query_share_the_originals_key(model: Any) -> None:
    prepared = [
        prepare(model, query, original=original, collection=collection)
        for query in REWRITES
        for original in (ORIGINAL, f"  {ORIGINAL} ")
        for collection in ("msrvtt", "coco")
    ]
    assert all(len(item.inputs) == 2 for item in prepared)
    assert len({item.inputs[1].key for item in prepared}) == 1
    assert len({item.inputs[0].key for item in prepared}) == 2 * len(REWRITES)


def test_rows_with_and_without_an_embedding_have_different_keys(model: Any) -> None:
    variants: list[dict[str, Any]] = [{"original": ORIGINAL}, {}]
    keys = [
        row.key
        for collection in ("msrvtt", "vatex", "coco")
        for fields in variants
        for row in prepare(model, ORIGINAL, collection=collection, **fields).inputs
    ]
    assert len(set(keys)) == 7


def rows_of(model: Any) -> list[Input]:
    return [
        row
        for collection in ("msrvtt", "coco")
        for number, query in enumerate(REWRITES)
        for row in prepare(
            model,
            query,
            collection=collection,
            original=REWRITES[number - 1] if number % 3 else None,
        ).inputs
    ]


def test_raws_are_the_same_alone_in_any_batch_and_in_any_order(model: Any) -> None:
    rows = rows_of(model)
    alone = [model.predict([row])[0] for row in rows]
    together, backwards = model.predict(rows), model.predict(rows[::-1])[::-1]
    for single, batched, reordered in zip(alone, together, backwards, strict=True):
        assert batched == pytest.approx(single, abs=1e-5)
        assert reordered == pytest.approx(single, abs=1e-5)


def test_a_deterministic_model_is_bit_equal_in_any_batch() -> None:
    model = load(Runtime(deterministic=True))
    rows = rows_of(model)
    assert model.predict(rows) == [model.predict([row])[0] for row in rows]


def test_results_are_the_same_alone_in_a_batch_and_from_the_cache() -> None:
    items: list[dict[str, Any]] = [
        {"query": query, "collection": "vatex", "original": ORIGINAL} for query in REWRITES
    ]
    items.append({"query": REWRITES[0], "collection": "vatex"})

    async def score_all() -> Any:
        settings = Settings(models=("video-qpp@2",), deterministic=True)
        async with running_service(settings) as service:
            assert await service.find("video-qpp").loaded()
            batch = await service.score(ScoreCall("video-qpp", items))
            again = [await service.score(ScoreCall("video-qpp", [item])) for item in items]
        async with running_service(settings) as service:
            assert await service.find("video-qpp").loaded()
            alone = [await service.score(ScoreCall("video-qpp", [item])) for item in items]
        return batch, again, alone

    batch, again, alone = asyncio.run(score_all())
    assert batch.usage.failed == 0
    assert [reply.usage.cached for reply in again] == [1] * len(items)
    assert alone[0].usage.computed == 1
    for index, result in enumerate(batch.results):
        for other in (again[index].results[0], alone[index].results[0]):
            assert (other.score, other.channels) == (result.score, result.channels)
    assert batch.results[0].score == batch.results[-1].score
    assert set(batch.results[-1].channels) == {"rr", "r10"}


@pytest.mark.parametrize("original", ["", " \n", "\u200b", "???", "123"])
def test_an_empty_original_is_an_item_error_that_names_it(model: Any, original: str) -> None:
    with pytest.raises(ItemError, match="`original`") as caught:
        prepare(model, "a kite", original=original)
    assert caught.value.code == "empty_query"


def test_an_original_over_the_limit_is_refused_or_truncated_like_the_query(model: Any) -> None:
    long = "zebra " * 400
    with pytest.raises(ItemError, match="`original`") as caught:
        prepare(model, "a kite", original=long)
    assert caught.value.code == "input_too_long"
    assert "zebra" not in caught.value.detail
    prepared = prepare(model, "a kite flies", Options(truncation="right"), original=long)
    assert prepared.inputs[1].tokens == 256
    assert "truncated" in prepared.flags
    assert prepared.details["truncated_tokens_of_original"] > 0
    assert "truncated_tokens" not in prepared.details


@settings(max_examples=30, deadline=None)
@given(query=st.text(max_size=120), original=st.text(max_size=120))
def test_any_pair_of_texts_has_channels_in_range_or_is_an_item_error(
    model: Any, query: str, original: str
) -> None:
    try:
        channels = score(model, query, original=original).channels
    except ItemError as refusal:
        if refusal.code != "empty_query":
            raise
        return
    assert set(channels) == {"rr", "r10", *DRIFT_CHANNELS}
    assert -1 <= channels["similarity"] <= 1
    assert 0 <= channels["novelty"] <= 1
    assert math.isfinite(channels["length_change"])
