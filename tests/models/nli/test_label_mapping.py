"""Label mapping: any order of three labels, two labels, one logit, and the probe pairs."""

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.checkpoints import PlainTransformers, build_checkpoint, load_model
from transformers import AutoTokenizer, BertForSequenceClassification

from assay_models.base import Options, RewardModel, Score
from assay_models.card import CardError
from assay_models.families.nli.label_mapping import PROBES
from assay_models.items import NliItem
from assay_models.shaping import sigmoid

LABELS = ("entailment", "neutral", "contradiction")
PAIR = ("The ferry leaves at nine.", "The ferry leaves at ten.")
ITEMS: tuple[dict[str, Any], ...] = (
    {"premise": PAIR[0], "hypothesis": PAIR[1]},
    {
        "evidence": ["The harbour is closed in winter.", "No ship may enter it until April."],
        "response": "The harbour is closed all winter. Ships may enter it in January.",
    },
)
HEADS = ("classifier.weight", "classifier.bias")


def score(model: RewardModel, fields: dict[str, Any]) -> Score:
    prepared = model.prepare([NliItem.model_validate(fields)], Options())
    raws = model.predict(prepared.inputs)
    assert isinstance(raws, Sequence)
    return model.finish(prepared, raws, Options())[0]


def with_head(source: Path, target: Path, order: Sequence[int], **options: object) -> Path:
    """Build the same checkpoint with its logits, and their names, in another order."""
    names = [LABELS[index] for index in order]
    build_checkpoint("bert", target, labels=names, family="nli", options=options)
    weights = load_file(source / "weights" / "model.safetensors")
    for name in HEADS:
        weights[name] = weights[name][list(order)].contiguous()
    save_file(weights, target / "weights" / "model.safetensors", {"format": "pt"})
    return target


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    return build_checkpoint("bert", folder, labels=LABELS, family="nli", options={"probes": False})


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_same_weights_score_the_same_in_any_order_of_labels(
    source: Path, tmp_path: Path, order: Sequence[int]
) -> None:
    first = load_model(source)
    other = load_model(with_head(source, tmp_path, order, probes=False))
    for fields in ITEMS:
        expected, result = score(first, fields), score(other, fields)
        assert result.score == pytest.approx(expected.score, abs=1e-5)
        assert result.channels == pytest.approx(expected.channels, abs=1e-6)
        labels = [claim["label"] for claim in result.details.get("claims", [result.details])]
        assert labels == [
            claim["label"] for claim in expected.details.get("claims", [expected.details])
        ]


@pytest.mark.parametrize("names", [("not_entailment", "entailment"), ("entailed", "NOT ENTAILED")])
def test_two_labels_have_a_support_channel_and_no_contradiction(
    tmp_path: Path, names: Sequence[str]
) -> None:
    build_checkpoint("bert", tmp_path, labels=names, family="nli", options={"probes": False})
    model = load_model(tmp_path)
    pair = score(model, ITEMS[0])
    logits = PlainTransformers(tmp_path).text(*PAIR)
    index = 0 if names[0].startswith("entail") else 1
    assert pair.raw == pytest.approx(logits[index] - logits[1 - index], abs=1e-5)
    assert set(pair.channels) == {"entailment", "not_entailment"}
    whole = score(model, ITEMS[1])
    assert "contradiction" not in whole.channels
    assert whole.channels["support"] + whole.channels["not_entailment"] == pytest.approx(1)
    assert all("worst_contradicted" not in claim for claim in whole.details["claims"])
    assert 0 <= whole.score <= 1


def test_one_logit_is_the_log_odds_of_entailment(tmp_path: Path) -> None:
    options = {"probes": False, "labels": ["entailment"], "temperature": 2.0}
    build_checkpoint("bert", tmp_path, family="nli", options=options)
    pair = score(load_model(tmp_path), ITEMS[0])
    (logit,) = PlainTransformers(tmp_path).text(*PAIR)
    assert pair.raw == pytest.approx(logit, abs=1e-5)
    assert pair.score == pytest.approx(logit / 2, abs=1e-5)
    assert pair.channels["entailment"] == pytest.approx(sigmoid(logit / 2), abs=1e-6)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_refusal_of_unnamed_labels_says_what_to_write(tmp_path: Path, count: int) -> None:
    build_checkpoint("bert", tmp_path, num_labels=count, family="nli")
    with pytest.raises(CardError) as error:
        load_model(tmp_path)
    message = str(error.value)
    assert "LABEL_0" in message
    assert 'options.labels, as ["entailment", "neutral", "contradiction"]' in message
    assert '["entailment"] for one logit' in message


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint that is fitted to the probes."""
    folder = tmp_path_factory.mktemp("fitted")
    build_checkpoint("bert", folder, labels=LABELS, family="nli")
    model: Any = BertForSequenceClassification.from_pretrained(folder / "weights")
    tokenizer = AutoTokenizer.from_pretrained(folder / "weights")
    premises, hypotheses, labels = zip(*PROBES, strict=True)
    rows = tokenizer(list(premises), list(hypotheses), padding=True, return_tensors="pt")
    targets = torch.tensor([LABELS.index(label) for label in labels])
    # Only the head is fitted, on the states of the random body.
    with torch.no_grad():
        pooled = model.eval().bert(**rows).pooler_output
    head = torch.linalg.lstsq(
        torch.cat([pooled, torch.ones(len(targets), 1)], 1),
        20.0 * torch.nn.functional.one_hot(targets, 3).float(),
        driver="gelsd",
    ).solution
    with torch.no_grad():
        model.classifier.weight.copy_(head[:-1].T)
        model.classifier.bias.copy_(head[-1])
    model.save_pretrained(folder / "weights")
    return folder


def test_a_checkpoint_that_classifies_the_probes_right_loads(fitted: Path) -> None:
    assert load_model(fitted).fingerprint.startswith("sha256:")


@pytest.mark.parametrize("order", [order for order in permutations(LABELS) if order != LABELS])
def test_a_wrong_order_of_labels_is_refused_with_the_right_one(
    fitted: Path, tmp_path: Path, order: Sequence[str]
) -> None:
    """Load weights whose config or card has the names in another order."""
    build_checkpoint("bert", tmp_path, labels=order, family="nli")
    weights = load_file(fitted / "weights" / "model.safetensors")
    save_file(weights, tmp_path / "weights" / "model.safetensors", {"format": "pt"})
    with pytest.raises(CardError, match="right would be entailment, neutral, contradiction"):
        load_model(tmp_path)


def test_the_probes_are_skipped_for_a_checkpoint_that_reads_no_english(
    fitted: Path, tmp_path: Path
) -> None:
    options = {"languages": ["de"]}
    build_checkpoint("bert", tmp_path, labels=LABELS[::-1], family="nli", options=options)
    weights = load_file(fitted / "weights" / "model.safetensors")
    save_file(weights, tmp_path / "weights" / "model.safetensors", {"format": "pt"})
    assert load_model(tmp_path).fingerprint != load_model(fitted).fingerprint


def test_an_unknown_language_code_is_a_card_error(tmp_path: Path) -> None:
    options = {"languages": ["en", "klingon"]}
    build_checkpoint("bert", tmp_path, labels=LABELS, family="nli", options=options)
    with pytest.raises(CardError, match=r"options\.languages: klingon"):
        load_model(tmp_path)


def test_a_card_with_another_order_than_the_config_is_refused(tmp_path: Path) -> None:
    options = {"probes": False, "labels": list(LABELS)}
    build_checkpoint("bert", tmp_path, labels=LABELS[::-1], family="nli", options=options)
    with pytest.raises(CardError, match="the checkpoint's config contradiction, neutral"):
        load_model(tmp_path)
