"""Changed tensors beside the card replace those of the checkpoint, or the card is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.checkpoints import TEXTS, approximately, build_checkpoint, load_classifier, logits_of
from support.weight_files import CHANGED, save_changed
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from assay_models.card import CardError

pytestmark = pytest.mark.weights


@pytest.mark.parametrize("with_head", [True, False])
def test_changed_tensors_replace_those_of_the_checkpoint(tmp_path: Path, with_head: bool) -> None:
    folder = build_checkpoint("bert", tmp_path, with_head=with_head, options=CHANGED)
    state = save_changed(folder)
    theirs = AutoModelForSequenceClassification.from_pretrained(folder / "weights", num_labels=1)
    kept = theirs.bert.encoder.layer[0].output.dense.weight.clone()
    theirs.load_state_dict({name: part.float() for name, part in state.items()}, strict=False)
    classifier = load_classifier(folder)
    ours = classifier.model.base_model.encoder.layer[0].output.dense.weight.to_dense()
    assert torch.equal(ours, kept)
    for row, text in zip(logits_of(classifier), TEXTS, strict=True):
        with torch.no_grad():
            logits = theirs.eval()(**classifier.tokenizer(text, return_tensors="pt")).logits
        assert row == approximately(logits[0].tolist())


def test_changed_tensors_without_the_head_that_the_base_lacks_are_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("bert", tmp_path, with_head=False, options=CHANGED)
    state = save_changed(folder)
    state.pop("classifier.bias")
    save_file(state, folder / "changed.safetensors")
    with pytest.raises(CardError, match=r"classifier\.bias for .* it would be random"):
        load_classifier(folder)


@pytest.mark.parametrize(
    "own",
    [
        {"bert.encoder.layer.9.output.dense.bias": torch.ones(32)},
        {"bert.encoder.layer.1.output.dense.bias": torch.ones(31)},
    ],
)
def test_changed_tensors_that_do_not_fit_are_refused(
    tmp_path: Path, own: dict[str, Tensor]
) -> None:
    folder = build_checkpoint("bert", tmp_path, options=CHANGED)
    save_changed(folder, **own)
    with pytest.raises(CardError, match=r"changed\.safetensors.*has no place"):
        load_classifier(folder)


@pytest.mark.parametrize("content", [None, b"not tensors"])
def test_changed_tensors_that_cannot_be_read_are_refused(
    tmp_path: Path, content: bytes | None
) -> None:
    folder = build_checkpoint("bert", tmp_path, options=CHANGED)
    if content is not None:
        (folder / "changed.safetensors").write_bytes(content)
    with pytest.raises(CardError, match=r"changed\.safetensors' cannot be used"):
        load_classifier(folder)


def test_changed_tensors_decide_the_fingerprint(tmp_path: Path) -> None:
    folder = build_checkpoint("bert", tmp_path, options=CHANGED)
    state = save_changed(folder)
    before = load_classifier(folder).fingerprint_parts
    state["classifier.bias"] += 1
    save_file(state, folder / "changed.safetensors")
    assert load_classifier(folder).fingerprint_parts != before
