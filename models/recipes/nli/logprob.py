"""A checker that reads its verdict off a language model's log-probabilities.

As in "What makes a medical checker trainable?" (arXiv 2605.25988): one prompt asks for a verdict;
each label is worth the mean log-probability of a token of its word, given the prompt.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

from recipes.code.data import Encode, Pack, Program
from recipes.code.likelihood import Likelihood
from recipes.nli.bank import Group
from recipes.nli.calibration import Floats
from recipes.nli.data import LABELS

VERBALISERS = {
    "entailment": ("entailed", "supported", "true"),
    "neutral": ("neutral", "unrelated", "unknown"),
    "contradiction": ("contradicted", "refuted", "false"),
}
"""The words for each label. Fast mode takes the first, otherwise the best of three counts."""

ABSENT = "N/A"
"""What stands for evidence and claim where the model is asked about nothing at all."""

Tokens = Callable[[Pack], Sequence[torch.Tensor]]
"""The log-probability of each token of each continuation of a prompt, in nats."""


def prompt_of(evidence: str, claim: str) -> str:
    """The question, in the chat format of SmolLM2."""
    return (
        "<|im_start|>user\n"
        f"Evidence: {evidence}\nClaim: {claim}\n"
        "Is the claim entailed by the evidence, contradicted by it, or neutral? "
        "Answer with one word: entailed, contradicted or neutral.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


class LogProbability:
    """A causal language model that is asked, and whose words are weighed."""

    def __init__(self, tokens: Tokens, encode: Encode) -> None:
        self._tokens = tokens
        self._encode = encode
        self._words = [
            Program(word, tuple(encode(word)), good=True)
            for label in LABELS
            for word in VERBALISERS[label]
        ]

    @classmethod
    def of_backbone(cls, encode: Encode) -> "LogProbability":
        """By SmolLM2-135M-Instruct, as its package has it."""
        return cls(Likelihood.of_backbone().tokens, encode)

    def means(self, bank: Sequence[Group]) -> Floats:
        """Mean log-probabilities in nats, [groups, claims, labels, words]; the prompt is computed
        once for all nine words."""
        asked = [(group.evidence, claim) for group in bank for claim in group.claims]
        shown = track(asked, "log-probabilities", console=Console(stderr=True))
        rows = [self.of_pair(evidence, claim) for evidence, claim in shown]
        return np.array(rows).reshape(len(bank), -1, *rows[0].shape)

    def of_pair(self, evidence: str, claim: str) -> Floats:
        """Mean log-probabilities for one pair, [labels, words]."""
        pack = Pack(tuple(self._encode(prompt_of(evidence, claim))), tuple(self._words))
        means = [float(one.mean()) for one in self._tokens(pack)]
        return np.array(means).reshape(len(LABELS), -1)

    def prior(self) -> Floats:
        """The same about nothing at all, [labels, words] (Zhao et al., 2021, arXiv 2102.09690)."""
        return self.of_pair(ABSENT, ABSENT)


def fast(means: Floats) -> Floats:
    """Probabilities from the first word of each label: softmax over the labels' means."""
    return _softmax(means[..., 0])


def best_of_three(means: Floats) -> Floats:
    """Probabilities from the likeliest word of each label: softmax over the labels' means."""
    return _softmax(means.max(axis=-1))


def _softmax(values: Floats) -> Floats:
    weights = np.exp(values - values.max(axis=-1, keepdims=True))
    probabilities: Floats = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities
