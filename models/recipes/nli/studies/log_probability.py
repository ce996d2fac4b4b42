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
from recipes.code.studies.likelihood import Likelihood
from recipes.nli.calibration import Floats
from recipes.nli.data import LABELS
from recipes.nli.studies.probe_set import Group

VERBALISERS = {
    "entailment": ("entailed", "supported", "true"),
    "neutral": ("neutral", "unrelated", "unknown"),
    "contradiction": ("contradicted", "refuted", "false"),
}
"""The words for each label. Fast mode takes the first, otherwise the best of three counts."""

ABSENT = "N/A"
"""The replacement of evidence and claim when the prior is measured."""

TokenLogProbabilities = Callable[[Pack], Sequence[torch.Tensor]]
"""The log-probability of each token of each continuation of a prompt, in nats."""


def build_prompt(evidence: str, claim: str) -> str:
    """Return the question, in the chat format of SmolLM2."""
    return (
        "<|im_start|>user\n"
        f"Evidence: {evidence}\nClaim: {claim}\n"
        "Is the claim entailed by the evidence, contradicted by it, or neutral? "
        "Answer with one word: entailed, contradicted or neutral.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


class LogProbabilityScorer:
    """A causal language model that scores the words of each label as answers to the prompt."""

    def __init__(self, token_log_probabilities: TokenLogProbabilities, encode: Encode) -> None:
        self._token_log_probabilities = token_log_probabilities
        self._encode = encode
        self._words = [
            Program(word, tuple(encode(word)), is_chosen=True)
            for label in LABELS
            for word in VERBALISERS[label]
        ]

    @classmethod
    def of_backbone(cls, encode: Encode) -> "LogProbabilityScorer":
        """Load SmolLM2-135M-Instruct from its package."""
        return cls(Likelihood.of_backbone().token_likelihoods, encode)

    def means(self, groups: Sequence[Group]) -> Floats:
        """Return mean log-probabilities in nats, [groups, claims, labels, words].

        The prompt is computed once for all nine words.
        """
        pairs = [(group.evidence, claim) for group in groups for claim in group.claims]
        tracked = track(pairs, "log-probabilities", console=Console(stderr=True))
        rows = [self.means_of_pair(evidence, claim) for evidence, claim in tracked]
        return np.array(rows).reshape(len(groups), -1, *rows[0].shape)

    def means_of_pair(self, evidence: str, claim: str) -> Floats:
        """Return mean log-probabilities for one pair, [labels, words]."""
        pack = Pack(tuple(self._encode(build_prompt(evidence, claim))), tuple(self._words))
        means = [float(logarithms.mean()) for logarithms in self._token_log_probabilities(pack)]
        return np.array(means).reshape(len(LABELS), -1)

    def prior(self) -> Floats:
        """Return the means without evidence and claim, [labels, words] (Zhao et al., 2021, arXiv
        2102.09690)."""
        return self.means_of_pair(ABSENT, ABSENT)


def by_first_word(means: Floats) -> Floats:
    """Return probabilities from the first word of each label: softmax over the labels' means."""
    return _softmax(means[..., 0])


def by_best_word(means: Floats) -> Floats:
    """Return probabilities from the most likely word of each label: softmax over the labels'
    means."""
    return _softmax(means.max(axis=-1))


def _softmax(values: Floats) -> Floats:
    weights = np.exp(values - values.max(axis=-1, keepdims=True))
    probabilities: Floats = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities
