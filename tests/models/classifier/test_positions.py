"""The longest text of a checkpoint, by its positions and its rotary embeddings."""

from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import (
    PlainTransformers,
    approximately,
    build_checkpoint,
    load_classifier,
    logits_of,
)

from assay_models.card import CardError

pytestmark = pytest.mark.weights

THETA = {"rope_theta": 10_000.0}
ROTARY: dict[str, tuple[dict[str, Any], int]] = {
    "yarn": (
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, **THETA},
        1024,
    ),
    "yarn whose config counts the factor": (
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 256, **THETA},
        512,
    ),
    "linear": ({"rope_type": "linear", "factor": 2.0, **THETA}, 1024),
    "llama3": (
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
            **THETA,
        },
        512,
    ),
    "dynamic": ({"rope_type": "dynamic", "factor": 4.0, **THETA}, 512),
    "longrope": (
        {
            "rope_type": "longrope",
            "factor": 4.0,
            "short_factor": [1.0] * 4,
            "long_factor": [2.0] * 4,
            "original_max_position_embeddings": 128,
            **THETA,
        },
        128,
    ),
    "default": ({"rope_type": "default", **THETA}, 512),
}


@pytest.mark.parametrize("case", ROTARY)
def test_the_limit_is_what_the_rotary_embeddings_reach(tmp_path: Path, case: str) -> None:
    rotary, limit = ROTARY[case]
    config = {"rope_parameters": rotary, "max_position_embeddings": 512}
    folder = build_checkpoint("llama", tmp_path, config=config, max_tokens=limit)
    assert load_classifier(folder)
    build_checkpoint("llama", tmp_path, config=config, max_tokens=limit + 1)
    with pytest.raises(CardError, match=f"is {limit + 1}, the checkpoint has {limit} positions"):
        load_classifier(folder)


def test_a_text_beyond_the_original_positions_scores_as_in_transformers(tmp_path: Path) -> None:
    rotary, limit = ROTARY["yarn"]
    config = {"rope_parameters": rotary, "max_position_embeddings": 256}
    folder = build_checkpoint("llama", tmp_path, config=config, max_tokens=limit)
    texts = ("a short one", "words of a longer text, " * 30)
    classifier, plain = load_classifier(folder), PlainTransformers(folder)
    assert classifier.encode_text(texts[1], None, "error").input().tokens > 256
    for row, text in zip(logits_of(classifier, texts), texts, strict=True):
        assert row == approximately(plain.text(text))


@pytest.mark.parametrize("case", ["dynamic", "longrope"])
def test_the_refusal_says_that_a_batch_would_decide(tmp_path: Path, case: str) -> None:
    rotary, limit = ROTARY[case]
    config = {"rope_parameters": rotary, "max_position_embeddings": 512}
    folder = build_checkpoint("llama", tmp_path, config=config, max_tokens=limit + 1)
    with pytest.raises(CardError, match=rf"longest text decides the others' \({case}\)"):
        load_classifier(folder)
