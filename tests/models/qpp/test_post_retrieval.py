"""The family `retrieval_qpp`: predictors of retrieved lists, flags, item errors and serving."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.servers import Served

from assay.settings import Settings
from assay_models.base import ItemError, Options, Score
from assay_models.card import CardError, ModelCard
from assay_models.families.qpp.post_retrieval import NAMES, NEEDS, RetrievalQppModel
from assay_models.items import RetrievalQppItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, ModelRepository, embedded_root

ENTRY = ModelRepository([embedded_root()]).find("retrieval-qpp@1")
SCORE_PREDICTORS = {"score_deviation", "wig", "nqc", "smv", "sigma_max", "sigma_half", "top_gap"}


def load(**options: Any) -> RetrievalQppModel:
    card = ENTRY.card.model_copy(update={"options": {**ENTRY.card.options, **options}})
    return RetrievalQppModel.load(card, ModelFiles(ENTRY.folder, None), Runtime())


MODEL = load()


def listed(*scores: float, embeddings: Any = None) -> list[dict[str, Any]]:
    if embeddings is None:
        return [{"score": score} for score in scores]
    return [
        {"score": score, "embedding": list(vector)}
        for score, vector in zip(scores, embeddings, strict=True)
    ]


def score(results: Any, model: RetrievalQppModel = MODEL, **fields: Any) -> Score:
    item = RetrievalQppItem.model_validate({"query": "a red kite", "results": results, **fields})
    prepared = model.prepare([item], Options())
    (served,) = model.finish(prepared, model.predict(prepared.inputs), Options())
    return served


def failure(results: Any, model: RetrievalQppModel = MODEL, **fields: Any) -> ItemError:
    with pytest.raises(ItemError) as caught:
        score(results, model, **fields)
    return caught.value


def test_the_example_of_the_card_has_its_score_and_the_table_of_its_page() -> None:
    item = RetrievalQppItem.model_validate(ENTRY.card.example.item if ENTRY.card.example else {})
    prepared = MODEL.prepare([item], Options())
    (served,) = MODEL.finish(prepared, MODEL.predict(prepared.inputs), Options())
    assert ENTRY.card.example is not None
    assert served.score == pytest.approx(ENTRY.card.example.score, abs=1e-12)
    page = (ENTRY.folder / "README.md").read_text()
    for name in NAMES:
        expected = "left out" if name in SCORE_PREDICTORS else ""
        if name in served.channels:
            expected = f"{served.channels[name]:.4f}"
        row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
        assert row.split("|")[2].strip() == expected, name
    assert served.details["undefined"] == ["smv"]


def test_the_family_does_not_import_torch() -> None:
    family = "assay_models.families.qpp.post_retrieval"
    code = f"import sys, {family}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_predictor_is_a_channel_and_the_score_is_the_named_one() -> None:
    vectors = [[1.0, 0.0, 0.1], [1.0, 0.2, 0.0], [0.1, 1.0, 0.3], [0.0, 1.0, 0.5]]
    served = score(
        listed(4.0, 3.0, 2.0, 1.0, embeddings=vectors),
        query_embedding=[1.0, 0.5, 0.0],
        corpus_score=0.5,
    )
    assert tuple(served.channels) == NAMES
    assert set(NEEDS) == set(NAMES)
    assert served.score == served.raw == served.channels["score_deviation"]
    assert served.details == {"results": 4, "depth": 4, "words": 3, "undefined": []}
    assert served.flags == ("short_list",)
    assert served.channels["wig"] == pytest.approx((2.5 - 0.5) / math.sqrt(3))
    other = score(listed(4.0, 3.0, 2.0, 1.0), load(score="nqc"), corpus_score=0.5)
    assert other.score == other.channels["nqc"] == pytest.approx(math.sqrt(1.25) / 0.5)


def test_depth_limits_the_predictors_of_the_best_results_only() -> None:
    results = listed(9.0, 8.0, 1.0, 0.5)
    served = score(results, depth=2, corpus_score=1.0)
    assert served.channels["score_deviation"] == 0.5
    assert served.channels["wig"] == pytest.approx((8.5 - 1) / math.sqrt(3))
    assert served.channels["sigma_max"] == pytest.approx(np.std([9, 8, 1, 0.5]))
    assert served.flags == ()
    assert score(results, load(depth=2), corpus_score=1.0).channels == served.channels
    assert score(results, depth=1000).flags == ("corpus_from_list", "short_list")


def test_a_missing_corpus_score_is_the_mean_of_the_list_and_flagged() -> None:
    served = score(listed(6.0, 2.0, 1.0), depth=3)
    assert served.flags == ("corpus_from_list",)
    explicit = score(listed(6.0, 2.0, 1.0), depth=3, corpus_score=3.0)
    assert explicit.flags == ()
    assert served.channels == pytest.approx(explicit.channels)


def test_a_list_of_one_result_has_only_some_predictors() -> None:
    served = score(listed(3.0, embeddings=[[1.0, 2.0]]), query_embedding=[1.0, 2.0])
    assert served.channels == {
        "score_deviation": 0,
        "wig": 0,
        "nqc": 0,
        "smv": 0,
        "sigma_max": 0,
        "sigma_half": 0,
        "query_fit": pytest.approx(1.0),
    }
    assert served.details["undefined"] == ["top_gap", "coherence", "autocorrelation", "clarity"]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.permutations(range(5)))
def test_the_order_of_equal_scores_changes_no_predictor(order: list[int]) -> None:
    vectors = np.random.default_rng(4).normal(size=(5, 3)).tolist()
    plain = score(listed(*[2.0] * 5))
    assert score([listed(*[2.0] * 5)[index] for index in order]).channels == plain.channels
    results = listed(*[2.0] * 5, embeddings=vectors)
    shuffled = score([results[index] for index in order])
    assert shuffled.channels == pytest.approx(score(results).channels)


def test_predictors_undefined_for_negative_scores_are_left_out() -> None:
    served = score(listed(-1.0, -2.0), corpus_score=-3.0)
    assert served.details["undefined"] == ["smv", "sigma_half"]
    assert served.channels["nqc"] == pytest.approx(0.5 / 3)


def test_an_undefined_score_is_an_item_error_that_names_the_missing_input() -> None:
    error = failure(listed(1.0, 0.0), load(score="smv"))
    assert (error.code, "scores above 0" in error.detail) == ("undefined_predictor", True)
    error = failure(listed(1.0, -1.0), load(score="nqc"))
    assert "a score of the corpus that is not 0" in error.detail
    error = failure(listed(2.0, 1.0), load(score="clarity"))
    assert "an embedding of each result" in error.detail


@pytest.mark.parametrize(
    ("results", "fields", "message"),
    [
        (listed(1.0, 2.0), {}, "number 2 scores higher"),
        (listed(2.0, 1.0, 1.5), {}, "number 3 scores higher"),
        (
            [*listed(2.0, embeddings=[[1.0]]), *listed(1.0)],
            {},
            "1 of the 2 results within the depth",
        ),
        (listed(2.0, 1.0, embeddings=[[1.0], [1.0, 0.0]]), {}, "of different lengths"),
        (listed(2.0, 1.0, embeddings=[[1.0, 0.0], [0.0, 0.0]]), {}, "nothing but zeros"),
        (listed(2.0, 1.0), {"query_embedding": [1.0]}, "of no use without the results'"),
        (listed(2.0, embeddings=[[1.0, 0.0]]), {"query_embedding": [1.0]}, "must have 2 numbers"),
        (listed(2.0, embeddings=[[1.0, 0.0]]), {"query_embedding": [0.0, 0.0]}, "not all 0"),
    ],
)
def test_an_invalid_list_is_an_item_error_with_a_remedy(
    results: Any, fields: dict[str, Any], message: str
) -> None:
    error = failure(results, **fields)
    assert error.code == "invalid_item"
    assert message in error.detail


def test_embeddings_beyond_the_depth_are_not_needed() -> None:
    results = [*listed(3.0, 2.0, embeddings=[[1.0, 0.0], [1.0, 1.0]]), *listed(1.0)]
    assert score(results, depth=2).channels["coherence"] == pytest.approx(math.sqrt(0.5))


@pytest.mark.parametrize(
    "fields",
    [
        {"results": listed(float("nan"))},
        {"results": listed(float("inf"))},
        {"results": listed(1.0, embeddings=[[float("nan")]])},
        {"results": listed(1.0, embeddings=[[]])},
        {"results": listed(1.0), "corpus_score": float("-inf")},
        {"results": listed(1.0), "depth": 0},
        {"results": listed(1.0), "depth": 1001},
        {"results": listed(*[1.0] * 1001)},
        {"results": listed(1.0), "query_embedding": [float("inf")]},
        {"results": [{"score": 1.0, "id": "v"}]},
        {},
    ],
)
def test_missing_infinite_or_too_many_numbers_are_a_validation_error(
    fields: dict[str, Any],
) -> None:
    with pytest.raises(ValidationError):
        RetrievalQppItem.model_validate({"query": "a kite", **fields})


def test_hidden_characters_of_a_query_make_no_words() -> None:
    plain, hidden = (
        score(listed(3.0, 2.0), query=query) for query in ("a red kite", "a r\u200bed k\u2060ite")
    )
    assert hidden.channels == plain.channels
    assert {*hidden.flags} - {*plain.flags} == {"hidden_characters"}


def test_a_query_without_a_word_and_a_list_over_the_limit_are_item_errors() -> None:
    assert failure(listed(1.0), query=" ?! ").code == "empty_query"
    assert failure(listed(1.0), query="\u200b\u2800").code == "empty_query"
    assert failure(listed()).code == "undefined_predictor"
    small = RetrievalQppModel(MODEL.fingerprint, 3, MODEL.options)
    assert score(listed(3.0, 2.0, 1.0), small).score > 0
    error = failure(listed(3.0, 2.0, 1.0, embeddings=[[1.0]] * 3), small)
    assert (error.code, "4 tokens, the limit is 3" in error.detail) == ("input_too_long", True)
    assert ENTRY.card.limits.max_tokens == MODEL.max_tokens


def test_overflowing_numbers_are_not_finite_in_the_raw() -> None:
    item = RetrievalQppItem.model_validate({"query": "a", "results": listed(1e308, -1e308)})
    prepared = MODEL.prepare([item], Options())
    (raw,) = MODEL.predict(prepared.inputs)
    assert not all(map(math.isfinite, raw))
    shallow = RetrievalQppItem.model_validate(
        {"query": "a", "results": listed(1e308, -1e308), "depth": 1, "corpus_score": 1.0}
    )
    (raw,) = MODEL.predict(MODEL.prepare([shallow], Options()).inputs)
    assert not math.isfinite(raw[5])  # sigma_max reads the whole list


def test_raws_do_not_depend_on_the_batch_and_equal_keys_have_equal_raws() -> None:
    chance = np.random.default_rng(1)
    items = []
    for size in (1, 2, 7, 120):
        scores = np.sort(chance.normal(size=size))[::-1].tolist()
        for fields in ({}, {"corpus_score": 0.1}, {"depth": 3}, {"query": "two words"}):
            body = {"query": "a kite", "results": listed(*scores), **fields}
            items.append(RetrievalQppItem.model_validate(body))
    inputs = [row for item in items for row in MODEL.prepare([item], Options()).inputs]
    alone = [MODEL.predict([row])[0] for row in inputs]
    assert MODEL.predict(inputs) == alone
    assert MODEL.predict(inputs[::-1]) == alone[::-1]
    by_key: dict[bytes, Any] = {}
    for row, raw in zip(inputs, alone, strict=True):
        assert by_key.setdefault(row.key, raw) == raw


def test_the_fingerprint_changes_with_options_and_invalid_options_are_refused() -> None:
    assert load().fingerprint == MODEL.fingerprint
    others = {load(depth=50).fingerprint, load(score="wig").fingerprint}
    assert len(others | {MODEL.fingerprint}) == 3
    wrong: list[dict[str, Any]] = [{"depth": 0}, {"score": "bm25"}, {"temperature": 0}, {"k": 5}]
    for options in wrong:
        with pytest.raises(CardError):
            load(**options)
    assert isinstance(ENTRY.card, ModelCard)
    assert ENTRY.card.quality == ()


async def test_the_model_is_served_with_item_errors_and_cached_results(served: Served) -> None:
    body = {
        "model": "retrieval-qpp",
        "items": [
            {"id": "a", "query": "a red kite over a beach", "results": listed(4.0, 2.0, 2.0, 0.0)},
            {"id": "b", "query": "a kite", "results": listed(1.0, 2.0)},
            {"id": "c", "query": "a kite", "results": listed(1e308, -1e308)},
        ],
    }
    async with served(Settings(models=("retrieval-qpp",))) as client:
        reply = (await client.post("/v1/score", json=body)).json()
        again = (await client.post("/v1/score", json=body)).json()
        card = (await client.get("/v1/models/retrieval-qpp")).json()
        incomplete = {"model": "retrieval-qpp", "items": [{"query": "a kite"}]}
        refused = await client.post("/v1/score", json=incomplete)
    first, *failed = reply["results"]
    assert first["score"] == pytest.approx(math.sqrt(2))
    assert first["flags"] == ["corpus_from_list", "short_list"]
    assert first["details"]["undefined"] == ["smv"]
    codes = [result["error"]["code"] for result in failed]
    assert codes == ["invalid_item", "non_finite_score"]
    assert (refused.status_code, "results" in refused.json()["detail"]) == (422, True)
    assert again["results"][0]["source"] == "cache"
    assert again["results"][0]["channels"] == first["channels"]
    assert card["quality"] == []


Finite = st.floats(allow_nan=False, allow_infinity=False)
Vectors = st.lists(Finite, min_size=2, max_size=2)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(Finite, Vectors), min_size=1, max_size=6),
    st.none() | Finite,
    st.none() | Vectors,
    st.none() | st.integers(1, 8),
)
def test_any_list_is_scored_or_an_item_error(
    pairs: list[tuple[float, list[float]]],
    corpus: float | None,
    query: list[float] | None,
    depth: int | None,
) -> None:
    pairs = sorted(pairs, reverse=True)
    results = listed(*[value for value, _ in pairs], embeddings=[vector for _, vector in pairs])
    fields: dict[str, Any] = {"corpus_score": corpus, "query_embedding": query, "depth": depth}
    try:
        served = score(results, **fields)
    except ItemError:
        return
    for name in ("coherence", "autocorrelation", "query_fit"):
        assert -1 - 1e-9 <= served.channels.get(name, 0.0) <= 1 + 1e-9
    for name in ("score_deviation", "sigma_max", "sigma_half", "top_gap", "clarity"):
        value = served.channels.get(name, 0.0)
        assert value >= 0 or math.isnan(value)
