"""How surprising a model finds an answer, token by token, beyond what it expected to be surprised.

The surprisal of a token is -ln p of it; its expectation under the model is the entropy of the
model's own prediction. The excess of the one over the other (the deviation that locally typical
sampling is built on, arXiv 2202.00666) is near zero for text as the model would write it, however
free the choice of words was, and large where a token is out of place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from assay_models.families.classifier import onednn_linear

CHUNK = 256
"""Tokens whose predictions over the whole vocabulary are held in memory at a time."""


class SurprisalOptions(BaseModel):
    """`[options.surprisal]` of a card: the mean excess surprisal of the answer's tokens, times
    `weight`, is taken off the logit. The answer is what follows the last `opening` in the row.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weight: float = Field(allow_inf_nan=False)
    opening: str = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Surprisal:
    """What is taken off a logit.

    `opening` are the ids after which the answer begins; `predict` makes logits over the
    vocabulary, shape (n, vocabulary), of states of shape (n, width).
    """

    weight: float
    opening: tuple[int, ...]
    predict: nn.Module
    dtype: torch.dtype

    @classmethod
    def of(cls, model: Any, tokenizer: Any, options: SurprisalOptions) -> "Surprisal":
        """By a decoder whose predictions are read with its own embeddings.

        Raises:
            ValueError: it is none, or predicts with other weights, which a classifier's checkpoint
                lacks.
        """
        predicts = isinstance(getattr(model, "score", None), nn.Linear)
        if not (predicts and model.config.get_text_config().tie_word_embeddings):
            raise ValueError(
                "options.surprisal needs a decoder that predicts tokens with its own embeddings"
            )
        opening = tokenizer(options.opening, add_special_tokens=False)["input_ids"]
        embeddings = model.get_input_embeddings()
        dtype = embeddings.weight.dtype
        return cls(options.weight, tuple(opening), _prediction(embeddings), dtype)

    def answer(self, ids: Sequence[int]) -> int:
        """The index of the answer's first token; without an opening all but the first are it."""
        size = len(self.opening)
        for end in range(len(ids), size - 1, -1):
            if ids[end - 1] == self.opening[-1] and tuple(ids[end - size : end]) == self.opening:
                return end
        return 1

    def malus(self, answers: Sequence[tuple[Tensor, Sequence[int]]], by_row: bool) -> Tensor:
        """What each row's logit loses: shape (rows, 1).

        Args:
            answers: of each row the states of the tokens before its answer's, shape (n, width),
                and the n ids of its answer.
            by_row: compute each on its own, so that its bits do not depend on the others.
        """
        batches = [[one] for one in answers] if by_row else [answers]
        return self.weight * torch.stack([one for batch in batches for one in self._means(batch)])

    def _means(self, answers: Sequence[tuple[Tensor, Sequence[int]]]) -> Iterator[Tensor]:
        states = torch.cat([before for before, _ in answers])
        told = torch.tensor([one for _, ids in answers for one in ids], device=states.device)
        for excess in torch.split(self.excess(states, told), [len(ids) for _, ids in answers]):
            yield excess.sum(0, keepdim=True) / max(1, len(excess))

    def excess(self, states: Tensor, told: Tensor) -> Tensor:
        """The excess surprisal of each token.

        Args:
            states: the last states of the tokens before them, shape (n, width).
            told: their ids, shape (n,).

        Returns:
            In nats, fp32, shape (n,).
        """
        parts = zip(torch.split(states, CHUNK), torch.split(told, CHUNK), strict=True)
        return torch.cat([self._excess(*part) for part in parts])

    def _excess(self, states: Tensor, told: Tensor) -> Tensor:
        logits: Tensor = self.predict(states.to(self.dtype))
        logarithms = logits.float().log_softmax(-1)
        entropy = -torch.linalg.vecdot(logarithms.exp(), logarithms)
        excess: Tensor = -logarithms.gather(1, told[:, None])[:, 0] - entropy
        return excess


def _prediction(embeddings: nn.Embedding) -> nn.Module:
    layer = nn.Linear(embeddings.embedding_dim, embeddings.num_embeddings, bias=False)
    layer.weight = nn.Parameter(embeddings.weight.detach(), requires_grad=False)
    return onednn_linear.prepacked(layer)
