"""Frozen sentence embeddings: the last states of a BERT encoder, mean-pooled, of length 1.

The pooling is that of Sentence-BERT (Reimers and Gurevych 2019, arXiv 1908.10084).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from transformers import BertModel

from assay_models.base import DeviceOutOfMemory
from assay_models.families.loading import quietly

FILES = ("config.json", "model.safetensors", "tokenizer.json")
"""The files that decide an embedding."""

LONGEST = 512
"""Positions the encoder has, its two marker tokens included."""

_LEAST_NORM = 1e-12


@dataclass(frozen=True, slots=True)
class SentenceEmbedding:
    """A frozen encoder and its tokenizer, on one device."""

    tokenizer: Tokenizer
    encoder: Any
    device: torch.device

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", dtype: str = "float32") -> "SentenceEmbedding":
        """Read the encoder in `folder`; nothing is fetched.

        Args:
            folder: holds `FILES`.
            device: torch's name of where to compute.
            dtype: torch's name of the encoder's dtype; pooling is always in fp32.
        """
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        with quietly():
            encoder: Any = BertModel.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                local_files_only=True,
                use_safetensors=True,
            )
        encoder.requires_grad_(False)
        return cls(tokenizer, encoder.eval().to(device), torch.device(device))

    @property
    def width(self) -> int:
        """How many numbers an embedding has."""
        return int(self.encoder.config.hidden_size)

    def tokenize(self, text: str) -> Encoding:
        """Ids with both markers, and where in the text each token lies; nothing is cut."""
        return self.tokenizer.encode(text)

    def embed(self, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """The embeddings of token id rows: shape (rows, width), each of Euclidean length 1.

        Rows are padded to the longest under a mask, so that none depends on the others but for
        rounding (below 1e-6 in fp32).

        Raises:
            DeviceOutOfMemory: the batch does not fit.
        """
        ids, mask = self._padded(rows)
        try:
            with torch.inference_mode():
                states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state.float()
                weight = mask.unsqueeze(-1).float()
                mean = (states * weight).sum(1) / weight.sum(1)
                pooled = torch.nn.functional.normalize(mean, dim=1, eps=_LEAST_NORM)
                return np.asarray(pooled.cpu().numpy(), dtype=np.float32)
        except torch.OutOfMemoryError as error:
            raise DeviceOutOfMemory(f"{tuple(ids.shape)} tokens do not fit") from error

    def _padded(self, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(len(row) for row in rows)
        ids = np.zeros((len(rows), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)
