"""Frozen sentence embeddings: the last states of a BERT encoder, mean-pooled, of length 1.

The pooling is that of Sentence-BERT (Reimers and Gurevych 2019, arXiv 1908.10084).
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn
from transformers import BertModel

from assay_models.base import DeviceOutOfMemory, Input
from assay_models.families.classifier.batch_layout import BatchLayout, Body
from assay_models.families.classifier.parity import Trial, choose_layout, numeric_environment
from assay_models.families.classifier.transformers_compat import (
    read_without_mapping,
    silence_transformers,
)

FILES = ("config.json", "model.safetensors", "tokenizer.json")
"""The files that decide an embedding."""

MAX_POSITIONS = 512
"""The positions of the encoder, its two special tokens included."""

_MIN_NORM = 1e-12
_PROBES = (
    "a dog",
    "on a beach",
    "two people who talk",
    "a",
    "the sea at night, seen from far away",
)


@dataclass(frozen=True, slots=True)
class SentenceEmbedding:
    """A frozen encoder and its tokenizer, on one device.

    `environment` names what decides the bits of an embedding besides the files.
    """

    tokenizer: Tokenizer
    width: int
    layout: BatchLayout
    environment: tuple[str, ...]

    @classmethod
    def load(
        cls,
        folder: Path,
        device: str = "cpu",
        dtype: str = "float32",
        deterministic: bool = False,
    ) -> "SentenceEmbedding":
        """Read the encoder in `folder`; nothing is fetched.

        Args:
            folder: holds `FILES`.
            device: torch's name of the device.
            dtype: torch's name of the encoder's dtype; pooling is always in fp32.
            deterministic: whether an embedding must be bit-equal in every batch.

        Raises:
            ParityError: it cannot be, or the encoder's numbers depend on the padding.
        """
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        encoder = _load_encoder(folder, dtype)
        body = Body(
            _Pooled(encoder.to(device)),
            torch.device(device),
            head_input="mean",
            pad_id=0,
            ignored_id=None,
            max_tokens=MAX_POSITIONS,
            first_position=0,
            has_type_ids=True,
        )
        rows = [_row(tokenizer.encode(" ".join([text] * 5)).ids) for text in _PROBES]
        trial = Trial(rows, 1e-3 if dtype == "float32" else 0.05)
        layout = choose_layout(body, _unit, trial, deterministic=deterministic)
        environment = (layout.name, *numeric_environment(body.device))
        return cls(tokenizer, int(encoder.config.hidden_size), layout, environment)

    def tokenize(self, text: str) -> Encoding:
        """Return the ids with both special tokens, and the offsets of each; nothing is cut."""
        return self.tokenizer.encode(text)

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of tokens that one forward pass of these computes."""
        return self.layout.cost(inputs)

    def embed(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Compute the embeddings of token id rows: shape (rows, width), of Euclidean length 1.

        An embedding depends on the others only by rounding (below 1e-6 in fp32).

        Raises:
            DeviceOutOfMemory: the batch does not fit.
        """
        try:
            with torch.inference_mode():
                embeddings = self.layout.logits([_row(row) for row in rows])
        except torch.OutOfMemoryError as error:
            raise DeviceOutOfMemory(f"{sum(map(len, rows))} tokens do not fit") from error
        return np.asarray(embeddings.cpu().numpy(), dtype=np.float32)


def _load_encoder(folder: Path, dtype: str) -> Any:
    with silence_transformers(), read_without_mapping():
        encoder: Any = BertModel.from_pretrained(
            folder, dtype=getattr(torch, dtype), local_files_only=True, use_safetensors=True
        )
    return encoder.requires_grad_(False).eval()


@dataclass(frozen=True, slots=True)
class _TokenRow:
    ids: "array[int]"
    type_ids: "array[int]"


class _Pooled(nn.Module):
    """The encoder with its pooling, called like a classifier whose logits are the embedding."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.base_model = encoder

    @property
    def config(self) -> Any:
        return self.base_model.config

    def set_attn_implementation(self, name: str) -> None:
        self.base_model.set_attn_implementation(name)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor
    ) -> SimpleNamespace:
        states = self.base_model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state.float()
        weight = attention_mask.unsqueeze(-1).float()
        return SimpleNamespace(logits=_unit((states * weight).sum(1) / weight.sum(1)))


def _unit(means: Tensor) -> Tensor:
    return nn.functional.normalize(means.float(), dim=1, eps=_MIN_NORM)


def _row(ids: Sequence[int]) -> Input:
    row = _TokenRow(array("i", ids), array("i", bytes(4 * len(ids))))
    return Input(b"", len(ids), row)
