"""The excess surprisal of an answer: the surprisal of its tokens beyond what the model expects.

The surprisal of a token is -ln p of it; its expectation under the model is the entropy of the
model's own prediction. The excess of the first over the second (the deviation that locally typical
sampling is built on, arXiv 2202.00666) is near zero for text as the model would write it, however
free the choice of words was, and large where a token is out of place.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from assay_models.families.classifier import onednn_linear
from assay_models.families.classifier.options import SurprisalOptions

CHUNK_TOKENS = 256
"""The tokens whose predictions over the whole vocabulary are held in memory at a time."""


@dataclass(frozen=True, slots=True)
class Surprisal:
    """The penalty on a logit for the surprisal of the answer.

    `opening` are the ids after which the answer begins. `predict` makes logits over the vocabulary,
    shape (n, vocabulary), of states of shape (n, width).
    """

    weight: float
    opening: tuple[int, ...]
    predict: nn.Module
    dtype: torch.dtype

    @classmethod
    def from_decoder(cls, model: Any, tokenizer: Any, options: SurprisalOptions) -> "Surprisal":
        """Read the predictions of a decoder with its own embeddings.

        Raises:
            ValueError: the model is no decoder, or predicts with other weights, which a
                classifier's checkpoint lacks.
        """
        predicts = isinstance(getattr(model, "score", None), nn.Linear)
        if not (predicts and model.config.get_text_config().tie_word_embeddings):
            raise ValueError(
                "options.surprisal needs a decoder that predicts tokens with its own embeddings"
            )
        opening = tokenizer(options.opening, add_special_tokens=False)["input_ids"]
        embeddings = model.get_input_embeddings()
        dtype = embeddings.weight.dtype
        return cls(options.weight, tuple(opening), prediction_layer(embeddings), dtype)

    def answer_start(self, ids: Sequence[int]) -> int:
        """Return the index of the answer's first token.

        Without an opening it is 1: all tokens but the first are the answer.
        """
        size = len(self.opening)
        for end in range(len(ids), size - 1, -1):
            if ids[end - 1] == self.opening[-1] and tuple(ids[end - size : end]) == self.opening:
                return end
        return 1

    def penalty(
        self, answers: Sequence[tuple[Tensor, Sequence[int]]], *, is_row_wise: bool
    ) -> Tensor:
        """Return what is subtracted from each row's logit: shape (rows, 1).

        Args:
            answers: for each row the states of the tokens before its answer's, shape (n, width),
                and the n ids of its answer.
            is_row_wise: compute each row on its own, so that its bits do not depend on the others.
        """
        batches = [[answer] for answer in answers] if is_row_wise else [answers]
        means = [mean for batch in batches for mean in self._means(batch)]
        return self.weight * torch.stack(means)

    def _means(self, answers: Sequence[tuple[Tensor, Sequence[int]]]) -> Iterator[Tensor]:
        states = torch.cat([before for before, _ in answers])
        token_ids = torch.tensor(
            [token_id for _, ids in answers for token_id in ids], device=states.device
        )
        lengths = [len(ids) for _, ids in answers]
        for excess in torch.split(self.excess(states, token_ids), lengths):
            yield excess.sum(0, keepdim=True) / max(1, len(excess))

    def excess(self, states: Tensor, token_ids: Tensor) -> Tensor:
        """Return the excess surprisal of each token.

        Args:
            states: the last states of the tokens before them, shape (n, width).
            token_ids: their ids, shape (n,).

        Returns:
            In nats, fp32, shape (n,).
        """
        parts = zip(
            torch.split(states, CHUNK_TOKENS), torch.split(token_ids, CHUNK_TOKENS), strict=True
        )
        return torch.cat([self._excess(*part) for part in parts])

    def _excess(self, states: Tensor, token_ids: Tensor) -> Tensor:
        logits: Tensor = self.predict(states.to(self.dtype))
        logarithms = logits.float().log_softmax(-1)
        entropy = -torch.linalg.vecdot(logarithms.exp(), logarithms)
        excess: Tensor = -logarithms.gather(1, token_ids[:, None])[:, 0] - entropy
        return excess


def prediction_layer(embeddings: nn.Embedding) -> nn.Module:
    """Build the layer that predicts tokens with these embeddings."""
    layer = nn.Linear(embeddings.embedding_dim, embeddings.num_embeddings, bias=False)
    layer.weight = nn.Parameter(embeddings.weight.detach(), requires_grad=False)
    return onednn_linear.prepacked(layer)
