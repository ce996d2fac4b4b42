"""Weights in a GGUF file: the same numbers as Transformers reads from it."""

from pathlib import Path

import gguf
import pytest
import torch
from support.checkpoints import load_classifier, save_adapter, write_card
from support.weight_files import FILE, write_gguf
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from assay_models.card import CardError

pytestmark = pytest.mark.weights


def test_a_gguf_body_under_an_adapters_head_scores_as_in_transformers(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    write_gguf(weights / FILE)
    plain = AutoModelForSequenceClassification.from_pretrained(
        weights, gguf_file=FILE, num_labels=1, dtype=torch.float32
    )
    options: dict[str, object] = {"gguf_file": FILE, "num_labels": 1}
    write_card(tmp_path, options=options)
    with pytest.raises(CardError, match=r"score\.weight for"):
        load_classifier(tmp_path)
    write_card(tmp_path, options={**options, "adapter": "adapter"})
    adapted = save_adapter(tmp_path, base=plain)
    classifier = load_classifier(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(weights, gguf_file=FILE)
    text = "the thing in the ring"
    ids = classifier.encode_text(text, None, "error").ids
    assert list(ids) == tokenizer(text)["input_ids"]
    with torch.no_grad():
        expected = adapted(input_ids=torch.tensor([ids])).logits[0].tolist()
    row = classifier.logits([classifier.encode_text(text, None, "error").input()])[0]
    assert list(row) == pytest.approx(expected, abs=1e-5, rel=0)


def test_the_file_is_read_once_and_the_library_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    write_gguf(weights / FILE)
    plain = AutoModelForSequenceClassification.from_pretrained(
        weights, gguf_file=FILE, num_labels=1, dtype=torch.float32
    )
    save_adapter(tmp_path, base=plain)
    write_card(tmp_path, options={"gguf_file": FILE, "num_labels": 1, "adapter": "adapter"})
    read = []

    class Reader(gguf.GGUFReader):
        def __init__(self, path: str) -> None:
            read.append(path)
            super().__init__(path)

    monkeypatch.setattr(gguf, "GGUFReader", Reader)
    load_classifier(tmp_path)
    assert read == [str(weights / FILE)]
    assert gguf.GGUFReader is Reader
