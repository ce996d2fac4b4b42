"""What a peer without a model program of its own is given: tokenize, pad, forward, logits."""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

BATCH_SIZE = 32


class Scorer:
    """A checkpoint scored the way cross-encoder libraries do it: sorted by length, in batches.

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
        """The logit of each pair."""
        order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]) + len(responses[at]))
        scores = [0.0] * len(prompts)
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            batch = self.forward([prompts[at] for at in chosen], [responses[at] for at in chosen])
            for at, score in zip(chosen, batch, strict=True):
                scores[at] = score
        return scores

    def score_requests(self, requests: Sequence[Mapping[str, Any]]) -> list[list[float]]:
        """The logits of each request's `prompts` and `responses`, computed together."""
        prompts = [prompt for one in requests for prompt in one["prompts"]]
        responses = [response for one in requests for response in one["responses"]]
        scores = iter(self(prompts, responses))
        return [list(islice(scores, len(one["prompts"]))) for one in requests]

    def forward(self, prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        """The logits of one batch, padded to its longest."""
        inputs = self.tokenizer(list(prompts), list(responses), padding=True, return_tensors="pt")
        with torch.inference_mode():
            logits: list[float] = self.model(**inputs).logits[:, 0].tolist()
        return logits
