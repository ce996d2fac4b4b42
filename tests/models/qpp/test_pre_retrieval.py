"""The family `video_qpp` with its real weights: numbers, batches, keys, flags and refusals."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.query_scoring import prepare, score

from assay_models.base import DeviceOutOfMemory, Input, ItemError, Options
from assay_models.items import RetrievedResult, VideoQppItem
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelFiles

pytestmark = pytest.mark.weights

QUERIES = (
    "a kite",
    "two divers film a turtle above a reef while a third one holds the light",
    "someone talks",
    "A clown on stilts hands a red balloon to a girl, and the crowd behind them claps.",
    "an old tram climbs a steep street in the rain",
)


def test_the_example_of_the_card_has_its_score(model: Any, entry: Any) -> None:
    example = entry.card.example
    item = VideoQppItem.model_validate(example.item)
    prepared = model.prepare([item], Options())
    (served,) = model.finish(prepared, model.predict(prepared.inputs), Options())
    assert served.score == pytest.approx(example.score, abs=example.tolerance)


def test_queries_of_unequal_length_are_packed_and_not_padded(model: Any) -> None:
    texts = ("a fox", "a red fox and a red hen on the roof of a house that nobody owns")
    inputs = [row for text in texts for row in prepare(model, text).inputs]
    assert model.cost(inputs) == sum(row.tokens for row in inputs)
    alone = [model.predict([row])[0] for row in inputs]
    for single, batched in zip(alone, model.predict(inputs), strict=True):
        assert batched == pytest.approx(single, abs=1e-5)


def test_the_raw_equals_that_of_plain_transformers_and_the_stored_weights(
    model: Any, files: ModelFiles
) -> None:
    import torch
    from safetensors.numpy import load_file
    from transformers import AutoModel, AutoTokenizer

    assert files.weights is not None
    tokenizer = AutoTokenizer.from_pretrained(files.weights, local_files_only=True)
    encoder = AutoModel.from_pretrained(files.weights, local_files_only=True).eval()
    tokens = tokenizer("a red fox and a red hen", return_tensors="pt", padding=False)
    with torch.no_grad():
        states = encoder(**tokens).last_hidden_state[0].double().numpy()
    embedding = states.mean(axis=0) / np.linalg.norm(states.mean(axis=0))
    head = {
        name.removeprefix("vatex."): tensor.astype(np.float64)
        for name, tensor in load_file(files.folder / "heads.safetensors").items()
        if name.startswith("vatex.")
    }
    numbers = np.clip([7, 5, 23, 1 / 7, 0], head["low"], head["high"])
    from zlib import crc32

    grams = {"a": 2, "red": 2, "fox": 1, "and": 1, "hen": 1, "a red": 2, "red fox": 1}
    grams |= {"fox and": 1, "and a": 1, "red hen": 1}
    bins = [crc32(gram.encode()) % 2**15 for gram in grams]
    assert len(set(bins)) == len(bins)
    weights = (1 + np.log(list(grams.values()))) * head["idf"][bins]
    gram_outputs = head["ngrams_constant"] + (
        weights / np.linalg.norm(weights) @ head["ngrams"][bins]
    )
    projected = embedding @ head["projection"]
    lengths = np.linalg.norm(head["queries"], axis=1)
    cosines = head["queries"] @ projected / lengths / np.linalg.norm(projected)
    ranked = np.sort(cosines)[::-1]
    bands = [ranked[start:stop].mean() for start, stop in ((0, 1), (1, 4), (4, 16), (16, 50))]
    kernels = [np.exp(sharpness * (cosines - 1)) for sharpness in (8, 16, 32)]
    shrinkages = (0, 0, 1e-5 * len(cosines))
    neighbours = [
        number
        for kernel, shrinkage in zip(kernels, shrinkages, strict=True)
        for number in (
            np.log(kernel.mean() + 1e-12),
            *(kernel @ head["labels"] / (kernel.sum() + shrinkage)),
        )
    ]
    inputs = np.concatenate([embedding, numbers, bands, neighbours, gram_outputs])
    standard = np.clip((inputs - head["mean"]) / head["deviation"], -5, 5)
    units = standard @ head["hidden"] + head["bias"]
    expected = head["constant"] + units / (1 + np.exp(-units)) @ head["out"]
    (raws,) = model.predict(prepare(model, "a red fox and a red hen", collection="vatex").inputs)
    assert raws == pytest.approx([*expected, ranked[:4].mean()], abs=1e-5)


def test_raws_are_the_same_alone_in_any_batch_and_in_any_order(model: Any) -> None:
    rows: list[Input] = []
    for query in (*QUERIES, " ".join(QUERIES)):
        for collection in ("msrvtt", "vatex", "coco"):
            rows.extend(prepare(model, query, collection=collection).inputs)
    alone = [model.predict([row])[0] for row in rows]
    together = model.predict(rows)
    backwards = model.predict(rows[::-1])[::-1]
    for single, batched, reordered in zip(alone, together, backwards, strict=True):
        assert batched == pytest.approx(single, abs=1e-5)
        assert reordered == pytest.approx(single, abs=1e-5)
    assert len({tuple(round(raw, 4) for raw in raws) for raws in alone}) == len(rows)
    assert model.predict([]) == []


def test_a_raw_has_two_outputs_per_system_and_the_nearest_cosine(model: Any) -> None:
    sizes = {
        name: len(model.predict(prepare(model, QUERIES[1], collection=name).inputs)[0])
        for name in ("msrvtt", "vatex", "coco")
    }
    assert sizes == {"msrvtt": 5, "vatex": 5, "coco": 3}


def test_without_a_system_the_raw_is_the_mean_of_both(model: Any) -> None:
    gram, vast, both = (
        score(model, QUERIES[1], collection="vatex", system=system)
        for system in ("gram", "vast", None)
    )
    assert gram.raw is not None
    assert vast.raw is not None
    assert gram.raw != vast.raw
    assert both.raw == pytest.approx((gram.raw + vast.raw) / 2)


def test_the_systems_of_one_query_share_a_key(model: Any) -> None:
    keys = {
        prepare(model, QUERIES[0], collection="vatex", system=system).inputs[0].key
        for system in ("gram", "vast", None)
    }
    assert len(keys) == 1


def test_collections_and_texts_have_different_keys(model: Any) -> None:
    prepared = [
        prepare(model, query, collection=collection)
        for query in ("a kite", "a kite.", "A kite", "a kites")
        for collection in ("msrvtt", "vatex", "coco")
    ]
    assert len({item.inputs[0].key for item in prepared}) == len(prepared)


def test_white_space_changes_neither_key_nor_raw(model: Any) -> None:
    plain, spaced = (prepare(model, text) for text in ("a kite flies", "  a\tkite \n flies "))
    assert plain.inputs[0].key == spaced.inputs[0].key
    assert model.predict(plain.inputs) == model.predict(spaced.inputs)


def test_the_default_collection_is_msrvtt_and_flagged(model: Any) -> None:
    unnamed, named = score(model, QUERIES[3]), score(model, QUERIES[3], collection="msrvtt")
    assert unnamed.score == named.score
    assert unnamed.flags == ("default_collection",)
    assert named.flags == ()
    assert named.details["words"] == 17


@pytest.mark.parametrize("collection", ["msrvtt", "vatex", "coco"])
@pytest.mark.parametrize("query", ["\u8fd9\u662f\u4e00\u4e2a\u6d4b\u8bd5", "SELECT x FROM y"])
def test_a_query_unlike_all_training_queries_is_out_of_domain(
    model: Any, query: str, collection: str
) -> None:
    strange, usual = (
        score(model, text, collection=collection) for text in (query, "a man is riding a horse")
    )
    assert "out_of_domain" in strange.flags
    assert "out_of_domain" not in usual.flags
    assert strange.details["nearest"] < usual.details["nearest"]


def test_a_deterministic_model_is_bit_equal_in_any_batch(entry: Any, files: ModelFiles) -> None:
    model: Any = family_of(entry.card).load(entry.card, files, Runtime(deterministic=True))
    rows = [
        row
        for query in QUERIES
        for collection in ("msrvtt", "vatex")
        for row in prepare(model, query, collection=collection).inputs
    ]
    assert model.predict(rows) == [model.predict([row])[0] for row in rows]


@pytest.mark.parametrize(("query", "short"), [("kite", True), ("a kite", True), ("a b c", False)])
def test_very_short_queries_are_flagged(model: Any, query: str, short: bool) -> None:
    assert ("very_short" in score(model, query, collection="coco").flags) is short


@pytest.mark.parametrize(
    "query", ["a dog run\u200bs on\u2060 the beach", "\uff41 dog runs on the\u00a0bea\u00adch"]
)
def test_a_query_with_hidden_characters_scores_like_the_one_that_is_seen(
    model: Any, query: str
) -> None:
    plain = prepare(model, "a dog runs on the beach", collection="msrvtt")
    hidden = prepare(model, query, collection="msrvtt")
    assert [row.key for row in hidden.inputs] == [row.key for row in plain.inputs]
    assert hidden.flags == ("hidden_characters",)


@pytest.mark.parametrize(
    ("query", "flag"),
    [
        ("un homme joue de la guitare", "not_english"),
        ("\u043c\u0443\u0436\u0447\u0438\u043d\u0430 \u043f\u043e\u0451\u0442", "foreign_script"),
        ("asdkjh qweoiu zxcmn", "unknown_words"),
    ],
)
def test_a_query_that_the_model_cannot_read_is_flagged(model: Any, query: str, flag: str) -> None:
    assert flag in score(model, query, collection="vatex").flags
    assert flag in score(model, "a man sings", original=query, collection="vatex").flags


def test_channels_are_clipped_and_the_raw_is_not(model: Any) -> None:
    prepared = prepare(model, QUERIES[1], collection="msrvtt")
    raws = [(1.5, 0.6, 1.1, 0.8, 0.7)]
    (served,) = model.finish(prepared, raws, Options())
    assert served.channels == pytest.approx({"rr": 1.0, "r10": 0.7})
    assert served.score == pytest.approx(0.85)
    assert served.raw == pytest.approx(1.0)
    (served,) = model.finish(prepared, raws, Options(raw=True))
    assert served.score == served.raw == pytest.approx(1.0)


def test_each_system_has_its_own_outputs(model: Any) -> None:
    raws = [(0.1, 0.2, 0.3, 0.4, 0.7)]
    for system, expected in (("gram", (0.1, 0.2)), ("vast", (0.3, 0.4))):
        prepared = prepare(model, QUERIES[1], collection="vatex", system=system)
        (served,) = model.finish(prepared, raws, Options())
        assert (served.channels["rr"], served.channels["r10"]) == expected


def test_nan_is_not_served_as_zero(model: Any) -> None:
    prepared = prepare(model, QUERIES[1], collection="coco")
    (served,) = model.finish(prepared, [(math.nan, 0.2, 0.7)], Options())
    assert math.isnan(served.score)
    assert math.isnan(served.channels["rr"])


@pytest.mark.parametrize(
    "query",
    ["", " ", "\n\t ", "\x00", "\u200b", "???", "12345 67890 !!!", "\U0001f600 \u2764"],
)
def test_an_empty_query_is_an_item_error(model: Any, query: str) -> None:
    with pytest.raises(ItemError) as caught:
        prepare(model, query)
    assert caught.value.code == "empty_query"


def test_coco_has_no_single_system(model: Any) -> None:
    with pytest.raises(ItemError) as caught:
        prepare(model, QUERIES[0], collection="coco", system="gram")
    assert caught.value.code == "invalid_item"


@pytest.mark.parametrize("results", [(), (RetrievedResult(score=0.3),)])
def test_retrieved_results_are_unsupported(model: Any, results: Any) -> None:
    with pytest.raises(ItemError) as caught:
        prepare(model, QUERIES[0], results=results)
    assert caught.value.code == "unsupported"


def test_a_query_over_the_limit_is_refused_and_not_quoted(model: Any) -> None:
    with pytest.raises(ItemError) as caught:
        prepare(model, "zebra " * 400)
    assert caught.value.code == "input_too_long"
    assert "zebra" not in caught.value.detail


@pytest.mark.parametrize(
    ("truncation", "first", "last"), [("right", 1, 254), ("left", 147, 400), ("middle", 1, 400)]
)
def test_a_truncated_query_keeps_the_chosen_side(
    model: Any, truncation: Any, first: int, last: int
) -> None:
    numerals = [chr(0x4E00 + count) for count in range(1, 401)]
    options = Options(truncation=truncation)
    prepared = prepare(model, " ".join(numerals), options, collection="vatex")
    (row,) = prepared.inputs
    kept = row.key.rpartition(b"\0")[2].decode().split()
    assert row.tokens == len(row.payload.ids) == 256
    assert prepared.flags == ("truncated", "foreign_script")
    assert prepared.details == {"words": 254, "truncated_tokens": 146}
    assert kept[-1] == numerals[last - 1]
    assert kept[0] == numerals[first - 1]
    assert all(math.isfinite(value) for value in model.predict([row])[0])


@settings(max_examples=40, deadline=None)
@given(
    query=st.text(max_size=400),
    collection=st.sampled_from([None, "msrvtt", "vatex", "coco"]),
    system=st.sampled_from([None, "gram", "vast"]),
    truncation=st.sampled_from(["error", "left", "right", "middle"]),
)
def test_any_text_is_scored_or_an_item_error(
    model: Any, query: str, collection: Any, system: Any, truncation: Any
) -> None:
    try:
        served = score(
            model, query, Options(truncation=truncation), collection=collection, system=system
        )
    except ItemError as refusal:
        if refusal.code not in {"empty_query", "input_too_long", "invalid_item"}:
            raise
        return
    assert 0 <= served.score <= 1
    assert served.raw is not None
    assert math.isfinite(served.raw)
    assert all(0 <= value <= 1 for value in served.channels.values())


def test_a_detailed_query_scores_above_a_general_one_on_msrvtt(model: Any) -> None:
    detailed = score(model, QUERIES[1], collection="msrvtt").score
    general = score(model, "a person is doing something", collection="msrvtt").score
    assert detailed > general + 0.1


def test_a_batch_that_does_not_fit_raises_device_out_of_memory(model: Any) -> None:
    import dataclasses

    import torch

    class Full:
        def logits(self, inputs: object) -> None:
            raise torch.OutOfMemoryError("full")

    encoder = dataclasses.replace(model.encoder, layout=Full())
    crowded = dataclasses.replace(model, encoder=encoder)
    with pytest.raises(DeviceOutOfMemory):
        crowded.predict(prepare(model, QUERIES[0]).inputs)


def test_the_fingerprint_changes_with_the_heads(
    model: Any, entry: Any, files: ModelFiles, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(files.folder / "heads.safetensors")
    tensors["coco.constant"] = tensors["coco.constant"] + 1
    save_file(tensors, tmp_path / "heads.safetensors")
    other: Any = family_of(entry.card).load(
        entry.card, ModelFiles(tmp_path, files.weights), Runtime()
    )
    assert other.fingerprint != model.fingerprint
    before = score(model, QUERIES[0], collection="coco").raw
    assert before is not None
    assert score(other, QUERIES[0], collection="coco").raw == pytest.approx(before + 1)
