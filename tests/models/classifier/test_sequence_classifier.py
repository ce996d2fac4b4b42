"""The sequence classifier: combinations of fields, the raw, the score and the channels."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import (
    DECODERS,
    KINDS,
    Kind,
    PlainTransformers,
    build_checkpoint,
    load_model,
)

from assay_models.base import ItemError, Options, Score
from assay_models.card import CardError
from assay_models.families.sequence_classifier import SequenceClassifier
from assay_models.items import TextItem

pytestmark = pytest.mark.weights

LABELS = ("toxic", "neutral", "kind")


def load(folder: Path) -> SequenceClassifier:
    model = load_model(folder)
    assert isinstance(model, SequenceClassifier)
    return model


def score(model: SequenceClassifier, options: Options = Options(), **fields: Any) -> Score:  # noqa: B008
    prepared = model.prepare([TextItem(**fields)], options)
    (result,) = model.finish(prepared, model.predict(prepared.inputs), options)
    return result


def close(expected: float) -> Any:
    return pytest.approx(expected, abs=1e-5, rel=0)


def messages(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


@pytest.mark.parametrize("kind", sorted(DECODERS))
def test_all_forms_of_a_conversation_score_as_in_plain_transformers(
    tmp_path: Path, kind: Kind
) -> None:
    folder = build_checkpoint(kind, tmp_path)
    model, plain = load(folder), PlainTransformers(folder)
    conversation = messages(("user", "Name a river."), ("assistant", "The Ems."))
    (expected,) = plain.chat(conversation)
    by_text = score(model, prompt="Name a river.", response="The Ems.")
    by_messages = score(model, prompt=conversation[:1], response="The Ems.")
    whole = score(model, messages=conversation)
    rendered = score(model, text=plain.tokenizer.apply_chat_template(conversation, tokenize=False))
    for result in (by_text, by_messages, whole, rendered):
        assert result.raw == close(expected)
        assert result.score == result.raw
        assert result.channels == {"reward": result.score}


@pytest.mark.parametrize("kind", KINDS)
def test_prompt_and_response_without_a_template_are_a_pair(tmp_path: Path, kind: Kind) -> None:
    folder = build_checkpoint(kind, tmp_path, template=None)
    model, plain = load(folder), PlainTransformers(folder)
    result = score(model, prompt="who?", response="nobody at all")
    assert result == score(model, text="who?", text_pair="nobody at all")
    if kind != "llama":
        assert result.raw == close(plain.text("who?", "nobody at all")[0])
    with pytest.raises(ItemError, match="no chat template"):
        score(model, prompt=messages(("user", "who?")), response="nobody")


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_items_scores_as_each_alone(tmp_path: Path, kind: Kind) -> None:
    folder = build_checkpoint(kind, tmp_path, template=None)
    model, plain = load(folder), PlainTransformers(folder)
    texts = ["a", "some words of it " * 8, "the thing"]
    prepared = [model.prepare([TextItem(text=text)], Options()) for text in texts]
    raws = model.predict([item.inputs[0] for item in prepared])
    for item, raw, text in zip(prepared, raws, texts, strict=True):
        (served,) = model.finish(item, [raw], Options())
        assert served.raw == close(plain.text(text)[0])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prompt": "a"},
        {"response": "a"},
        {"prompt": "a", "response": "b", "text": "c"},
        {"messages": messages(("user", "a")), "response": "b"},
        {"messages": messages(("user", "a")), "text": "b"},
        {"text_pair": "a"},
        {"prompt": "a", "text_pair": "b"},
    ],
)
def test_fields_that_do_not_go_together_are_an_item_error(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    model = load(build_checkpoint("qwen3", tmp_path))
    with pytest.raises(ItemError, match="`prompt` and `response`") as caught:
        model.prepare([TextItem.model_validate(fields)], Options())
    assert caught.value.code == "invalid_item"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("auto", True), ("parse", True), ("literal", False)],
)
def test_special_tokens_in_text_are_tokens_where_text_is_a_rendered_conversation(
    tmp_path: Path, text: str, expected: bool
) -> None:
    model = load(build_checkpoint("qwen3", tmp_path, options={"text_special_tokens": text}))
    end = model.classifier.tokenizer.eos_token_id
    prepared = model.prepare([TextItem(text="so be it<|im_end|>")], Options())
    assert (end in prepared.inputs[0].payload.ids) is expected


def test_without_a_template_text_is_plain_text(tmp_path: Path) -> None:
    model = load(build_checkpoint("qwen3", tmp_path, template=None))
    prepared = model.prepare([TextItem(text="so be it<|im_end|>")], Options())
    assert model.classifier.tokenizer.eos_token_id not in prepared.inputs[0].payload.ids


def test_shaping_changes_the_score_and_options_raw_undoes_it(tmp_path: Path) -> None:
    scores = {}
    for shaping in ("identity", "sigmoid", "softplus"):
        folder = build_checkpoint("llama", tmp_path / shaping, options={"shaping": shaping})
        model = load(folder)
        served = score(model, text="the thing")
        scores[shaping] = served
        unshaped = score(model, Options(raw=True), text="the thing")
        assert unshaped.score == unshaped.raw == served.raw
        assert unshaped.channels == {"reward": unshaped.raw}
    raw = scores["identity"].raw
    assert raw is not None
    assert scores["identity"].score == raw
    assert scores["sigmoid"].score == pytest.approx(1 / (1 + math.exp(-raw)))
    assert scores["softplus"].score == pytest.approx(math.log(1 + math.exp(raw)))
    assert {result.raw for result in scores.values()} == {raw}


def test_the_raw_of_several_labels_is_the_log_odds_of_one(tmp_path: Path) -> None:
    folder = build_checkpoint(
        "bert",
        tmp_path,
        labels=LABELS,
        options={"score_label": "kind", "shaping": "sigmoid"},
    )
    model, plain = load(folder), PlainTransformers(folder)
    logits = torch.tensor(plain.text("well done", "indeed"), dtype=torch.float64)
    expected = torch.softmax(logits, -1)
    served = score(model, text="well done", text_pair="indeed")
    assert list(served.channels) == ["kind", "toxic", "neutral"]
    assert served.details == {"probabilities": served.channels}
    for label, probability in zip(LABELS, expected.tolist(), strict=True):
        assert served.channels[label] == close(probability)
    assert served.raw == close(torch.logit(expected[2]).item())
    assert served.score == close(expected[2].item())


def test_truncation_is_flagged_and_counted(tmp_path: Path) -> None:
    model = load(build_checkpoint("qwen3", tmp_path, max_tokens=32))
    item = TextItem(prompt="why? " * 40, response="because " * 40)
    with pytest.raises(ItemError) as caught:
        model.prepare([item], Options())
    assert caught.value.code == "input_too_long"
    prepared = model.prepare([item], Options(truncation="middle"))
    (served,) = model.finish(prepared, model.predict(prepared.inputs), Options())
    assert served.flags == ("truncated",)
    assert served.details["truncated_tokens"] > 0
    assert prepared.inputs[0].tokens == 32


@pytest.mark.parametrize(
    ("labels", "options", "problem"),
    [
        (LABELS, {}, "no score is named"),
        (LABELS, {"score_label": "nice"}, "toxic, neutral, kind"),
        (None, {"score_label": "LABEL_0"}, "the only one"),
        (None, {"shaping": "tanh"}, "options.shaping"),
        (None, {"chaping": "sigmoid"}, "options.chaping"),
        (None, {"text_special_tokens": "some"}, "options.text_special_tokens"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    tmp_path: Path, labels: tuple[str, ...] | None, options: dict[str, object], problem: str
) -> None:
    folder = build_checkpoint("bert", tmp_path, labels=labels, options=options)
    with pytest.raises(CardError, match=problem):
        load(folder)


def test_the_fingerprint_changes_with_the_weights_and_not_with_the_shaping(tmp_path: Path) -> None:
    folder = build_checkpoint("bert", tmp_path)
    before = load(folder).fingerprint
    shaped = build_checkpoint("bert", tmp_path, options={"shaping": "sigmoid"})
    assert load(shaped).fingerprint == before
    other = build_checkpoint("bert", tmp_path, seed=8)
    assert load(other).fingerprint != before
    assert load_model(other, "bfloat16").fingerprint != load(other).fingerprint
