"""Other architectures of the hub: the numbers of plain Transformers, or a refusal at start."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoints import (
    Kind,
    Pad,
    PlainTransformers,
    build_checkpoint,
    build_tokenizer,
    load_classifier,
    widen_weights,
)
from transformers import AutoConfig, AutoModelForSequenceClassification

from assay_models.card import CardError

pytestmark = pytest.mark.weights

ENCODERS = ("roberta", "xlm-roberta", "distilbert", "electra", "deberta", "mpnet")
DECODERS = ("gpt2", "gpt_neox", "opt", "mistral", "gemma2", "gemma3_text", "qwen2", "phi3", "glm4")
DEPENDENT = ("fnet", "convbert", "nystromformer")
TEXTS = ("a", "the river bends to the north " * 6, "def f(x):\n    return x")
WIDTH: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 520,
    "num_labels": 1,
}
GROUPED = {"num_key_value_heads": 2, "head_dim": 8}
OWN: dict[str, dict[str, Any]] = {
    "electra": {"embedding_size": 32},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    **dict.fromkeys(("mistral", "gemma2", "gemma3_text", "qwen2", "phi3", "glm4"), GROUPED),
}


def build(kind: str, folder: Path, pad: Pad = "own") -> Path:
    like: Kind = "llama" if kind in DECODERS else "bert"
    build_checkpoint(like, folder, pad=pad)
    tokenizer = build_tokenizer(like, pad=pad)
    config = AutoConfig.for_model(
        kind,
        **WIDTH,
        **OWN.get(kind, {}),
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(13)
    model = AutoModelForSequenceClassification.from_config(config)
    widen_weights(model)
    model.save_pretrained(folder / "weights")
    return folder


CASES = [
    *((kind, "own") for kind in ENCODERS + DECODERS),
    *((kind, "eos") for kind in DECODERS),
]


@pytest.mark.parametrize(("kind", "pad"), CASES)
def test_logits_equal_those_of_plain_transformers_alone_and_in_a_batch(
    tmp_path: Path, kind: str, pad: Pad
) -> None:
    folder = build(kind, tmp_path, pad)
    classifier, plain = load_classifier(folder), PlainTransformers(folder)
    inputs = [classifier.encode_text(text, None, "error").input() for text in TEXTS]
    together = classifier.logits(inputs)
    alone = [classifier.logits([row])[0] for row in inputs]
    for batched, single, text in zip(together, alone, TEXTS, strict=True):
        expected = pytest.approx(plain.text(text), abs=1e-5, rel=0)
        assert list(batched) == expected
        assert list(single) == expected


@pytest.mark.parametrize("kind", DEPENDENT)
def test_an_architecture_whose_scores_change_with_padding_is_refused(
    tmp_path: Path, kind: str
) -> None:
    with pytest.raises(CardError, match="change with padding"):
        load_classifier(build(kind, tmp_path))


def test_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("bert", tmp_path)
    config = AutoConfig.for_model("bart", d_model=32, vocab_size=100, num_labels=1)
    config.save_pretrained(folder / "weights")
    with pytest.raises(CardError, match="encoder-decoder"):
        load_classifier(folder)
