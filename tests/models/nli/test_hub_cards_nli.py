"""The cards of published checkers, each with small random weights of its own architecture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import PlainTransformers, build_checkpoint, widen_weights
from transformers import DebertaConfig, DebertaForSequenceClassification

from assay_models.base import Options
from assay_models.card import CardError, ModelCard
from assay_models.families.nli.model import NliModel
from assay_models.items import NliItem
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelRepository, embedded_root
from assay_models.shaping import probabilities

REPOSITORY = ModelRepository([embedded_root()])
PAIR = ("The ferry leaves at nine.", "The ferry leaves at ten.")
# The architecture, and the names in the config of the published checkpoint, in its order.
PUBLISHED: dict[str, tuple[str, Sequence[str]]] = {
    "deberta-v3-base-mnli-fever-anli@1": ("deberta-v2", ("entailment", "neutral", "contradiction")),
    "deberta-large-mnli@1": ("deberta", ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")),
    "biolinkbert-mednli@1": ("bert", ("entailment", "neutral", "contradiction")),
}


def build(folder: Path, architecture: str, labels: Sequence[str]) -> None:
    kind: Any = "deberta" if architecture == "deberta-v2" else "bert"
    build_checkpoint(kind, folder, labels=labels, family="nli")
    if architecture != "deberta":
        return
    # The first DeBERTa has no builder of its own; its tokenizer is like any other here.
    config = DebertaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        num_hidden_layers=2,
        max_position_embeddings=512,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_biased_input=False,
        type_vocab_size=0,
        id2label=dict(enumerate(labels)),
    )
    config.vocab_size = PlainTransformers(folder).tokenizer.vocab_size
    model = DebertaForSequenceClassification(config)
    widen_weights(model)
    model.save_pretrained(folder / "weights")


def load(card: ModelCard, folder: Path) -> NliModel:
    entry = ModelRepository([folder]).find("tiny")
    options = {**card.options, "probes": False}
    here = card.model_copy(update={"weights": entry.card.weights, "options": options})
    model = family_of(here).load(here, REPOSITORY.locate(entry), Runtime())
    assert isinstance(model, NliModel)
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_labels_are_read_in_the_order_of_the_published_config(name: str, tmp_path: Path) -> None:
    architecture, labels = PUBLISHED[name]
    build(tmp_path, architecture, labels)
    model = load(REPOSITORY.find(name).card, tmp_path)
    prepared = model.prepare([NliItem(premise=PAIR[0], hypothesis=PAIR[1])], Options())
    (score,) = model.finish(prepared, model.predict(prepared.inputs), Options())
    plain = PlainTransformers(tmp_path)
    assert plain.model.config.model_type == architecture
    expected = probabilities(plain.text(*PAIR))
    named = {label.lower(): value for label, value in zip(labels, expected, strict=True)}
    assert score.channels == pytest.approx(named, abs=1e-5)
    assert max(named.values()) - min(named.values()) > 0.02


@pytest.mark.parametrize("name", PUBLISHED)
def test_weights_of_another_order_are_refused(name: str, tmp_path: Path) -> None:
    architecture, labels = PUBLISHED[name]
    build(tmp_path, architecture, [labels[1], labels[0], labels[2]])
    with pytest.raises(CardError, match="find out which of them is right"):
        load(REPOSITORY.find(name).card, tmp_path)
