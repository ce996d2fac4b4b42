"""Weights in a GGUF file: the same numbers as Transformers reads from it."""

from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from gguf import GGUFWriter
from support.checkpoints import build_tokenizer, load_classifier, save_adapter, write_card
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from assay_models.card import CardError

pytestmark = pytest.mark.weights

FILE = "tiny.gguf"
WIDTH, INNER, HEADS, LAYERS = 32, 48, 4, 3


def write_gguf(path: Path) -> None:
    """Write a random Llama of three layers with the vocabulary of the tests' tokenizer."""
    tokenizer = build_tokenizer("llama")
    vocabulary = tokenizer.get_vocab()
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types(
        [3 if token.startswith("<") and len(token) > 2 else 1 for token in tokens]
    )
    writer.add_token_merges(["t h", "i n", "e r"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    random = np.random.default_rng(5)
    for name, shape in _shapes(len(tokens)).items():
        values = np.ones(shape) if "norm" in name else random.normal(0, 0.3, shape)
        writer.add_tensor(name, values.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _shapes(words: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (words, WIDTH),
        "output_norm.weight": (WIDTH,),
        "output.weight": (words, WIDTH),
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            shapes[f"{block}.{part}.weight"] = (WIDTH, WIDTH)
        for part in ("ffn_gate", "ffn_up"):
            shapes[f"{block}.{part}.weight"] = (INNER, WIDTH)
        shapes[f"{block}.ffn_down.weight"] = (WIDTH, INNER)
        shapes[f"{block}.attn_norm.weight"] = (WIDTH,)
        shapes[f"{block}.ffn_norm.weight"] = (WIDTH,)
    return shapes


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
