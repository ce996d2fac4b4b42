"""An NLI checkpoint whose verdict depends on two marks only, to test the code around it.

`<` anywhere in a sequence makes it entailed, `|` contradicted, neither of them neutral; of both the
mark that is written more often wins. It is an ordinary BERT with one layer, saved the ordinary way:
attention is uniform, so that the first position holds the mean of all tokens.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, BertForSequenceClassification

from support.checkpoints import build_checkpoint

SUPPORTS, DENIES = "<", "|"
FILLER = (
    "The library keeps maps that nobody has read.",
    "Farmers in the valley grow apples and pears.",
    "The museum shows coins of the old kings.",
    "Engineers measured the level of the river.",
)
_MIXING, _READING, _READ_AT = 1_000.0, 0.05, 60_000.0


def build_marked(
    folder: Path, *, max_tokens: int = 256, options: Mapping[str, object] | None = None
) -> Path:
    """Build the checkpoint and its card in `folder`, and return the folder.

    The card switches the probes off, because the model reads no English.
    """
    build_checkpoint(
        "bert",
        folder,
        labels=("entailment", "neutral", "contradiction"),
        family="nli",
        max_tokens=max_tokens,
        options={"probes": False, **(options or {})},
        config={"num_hidden_layers": 1},
    )
    model = BertForSequenceClassification.from_pretrained(folder / "weights")
    vocabulary = _vocabulary(folder)
    with torch.no_grad():
        _write(model, vocabulary[SUPPORTS], vocabulary[DENIES])
    model.save_pretrained(folder / "weights")
    return folder


def prose(sentences: int) -> str:
    """Return that many sentences, none of which mentions ships."""
    return " ".join(FILLER[number % len(FILLER)] for number in range(sentences))


def _write(model: Any, supports: int, denies: int) -> None:
    width = model.config.hidden_size
    for name, parameter in model.named_parameters():
        parameter.fill_(1.0 if "LayerNorm.weight" in name else 0.0)
    plain, for_support, for_denial = _directions(width)
    words = model.bert.embeddings.word_embeddings.weight
    words.copy_(plain.expand_as(words))
    words[supports], words[denies] = for_support, for_denial
    layer = model.bert.encoder.layer[0]
    layer.attention.self.value.weight.copy_(torch.eye(width))
    layer.attention.output.dense.weight.copy_(_MIXING * torch.eye(width))
    model.bert.pooler.dense.weight.copy_(_READING * torch.eye(width))
    model.classifier.weight[0].copy_(_READ_AT / width * for_support)
    model.classifier.weight[2].copy_(_READ_AT / width * for_denial)
    model.classifier.bias[1] = 4.0


def _directions(width: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return three orthogonal directions, each with mean 0 and variance 1."""
    signs = torch.tensor([1.0, -1.0])
    halves = signs.repeat_interleave(width // 2)
    return halves, signs.repeat(width // 2), signs.repeat_interleave(2).repeat(width // 4)


def _vocabulary(folder: Path) -> dict[str, int]:
    vocabulary: dict[str, int] = AutoTokenizer.from_pretrained(folder / "weights").get_vocab()
    return vocabulary
