"""The scoring program of the peers without one of their own: tokenize, pad, forward, logits."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BATCH_SIZE = 32


class Scorer:
    """A checkpoint scored as cross-encoder libraries do: sorted by length, in batches.

    Args:
        folder: the checkpoint.
        batch_size: rows of one forward pass.
    """

    def __init__(self, folder: str, batch_size: int = BATCH_SIZE) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        model: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        self.model = model.eval()
        self.batch_size = batch_size

    def __call__(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Return the logit of each pair."""
        order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]) + len(responses[at]))
        scores = [0.0] * len(prompts)
        for start in range(0, len(order), self.batch_size):
            indices = order[start : start + self.batch_size]
            batch = self.forward([prompts[at] for at in indices], [responses[at] for at in indices])
            for at, score in zip(indices, batch, strict=True):
                scores[at] = score
        return scores

    def score_requests(self, requests: Sequence[Mapping[str, Any]]) -> list[list[float]]:
        """Return the logits of each request's `prompts` and `responses`, computed together."""
        prompts = [prompt for request in requests for prompt in request["prompts"]]
        responses = [response for request in requests for response in request["responses"]]
        scores = iter(self(prompts, responses))
        return [list(islice(scores, len(request["prompts"]))) for request in requests]

    def forward(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """Return the logits of one batch, padded to its longest."""
        inputs = self.tokenizer(list(prompts), list(responses), padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits: list[float] = self.model(**inputs).logits[:, 0].tolist()
        return logits
