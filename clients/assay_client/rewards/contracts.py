"""Reward contracts: formulas for a trainer's reward, each with a name and a version.

    from assay_client.rewards.contracts import GroundedAnswer, Sample

    contract = GroundedAnswer(alpha=1.0)
    samples = [Sample(completion, references=["..."], evidence=["..."])]
    reply = client.score("nli@2", contract.items(samples), on_error="none")
    breakdowns = contract.breakdowns(samples, reply)  # each with its reward and all its parts

The formula is that of "What makes a medical checker trainable?" (arXiv 2605.25988). A contract of
one name and version never changes its numbers; another formula is another version.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

from assay_client.errors import ProtocolError
from assay_client.types import Result, ScoreReply

OPENING_TAG, CLOSING_TAG = "<answer>", "</answer>"

OK = "ok"
NO_ANSWER = "no_answer"
UNSCORED = "unscored"

POLICY_FAILURES = ("no_claims", "no_search", "unsupported_language")
"""Failures that a policy causes by its output, or by not searching."""

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Sample:
    """A policy's output, with the references and the evidence to compare it with.

    Args:
        completion: with the answer between `<answer>` and `</answer>`; the last such pair counts.
        references: right answers; the best match counts.
        evidence: the passages that the policy was shown, or one text.
    """

    completion: str
    references: Sequence[str]
    evidence: str | Sequence[str]


@dataclass(frozen=True)
class RewardBreakdown:
    """A reward with all its parts: `recompute_reward` returns the same number again.

    Attributes:
        contract: name and version.
        alpha: the weight of phi.
        status: `ok`; `no_answer`, if there is no tag and the checker was not asked; else the reason
            why the checker has no phi: a code of the server, or the name of the client's error.
        reward: None if this contract gives none.
        exact: exact match, 0 or 1; `f1`: of the tokens; `form`: FmtScore; `penalty`: P_fmt.
        base: 7/12 exact + 1/4 f1 + 1/6 form.
        phi: clipped to [-1, 1], or the contract's fallback; None if there is neither.
        substituted: whether `phi` is the contract's fallback and not the checker's.
        flags: of the checker's result.
        model: the checker, and its `fingerprint`; None if it was not asked.
    """

    contract: str
    alpha: float
    status: str
    reward: float | None
    exact: float
    f1: float
    form: float
    base: float
    penalty: float
    phi: float | None
    substituted: bool = False
    flags: tuple[str, ...] = ()
    model: str | None = None
    fingerprint: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the breakdown as a JSON object."""
        return {**asdict(self), "flags": list(self.flags)}


@dataclass(frozen=True)
class GroundedAnswer:
    """The contract `grounded-answer@1`: R = base * (1 + alpha * phi) + penalty.

    base = 7/12 EM + 1/4 F1 + 1/6 FmtScore, with EM and F1 as SQuAD has them (Rajpurkar et al.,
    2016, arXiv 1606.05250), over the answer of `l` characters. FmtScore is 0 without a tag, .5 for
    l < 20, .5 + (l - 20) / 120 for l < 80, else 1. The penalty is -.5 without a tag, -.3 for
    l < 50, else 0.

    If the checker has no phi, `fallbacks` gives its replacement by status. A sample with any other
    status has no reward at all. The defaults replace the phi of failures that the policy itself
    causes by -1, so that an answer which cannot be checked is not rewarded. No other failure is
    turned into a number.

    Args:
        alpha: the weight of phi, not negative. Above 1, phi can turn a right answer into a loss.
        fallbacks: from a status to a phi in [-1, 1].

    Raises:
        ValueError: a number is out of range.
    """

    name: ClassVar[str] = "grounded-answer"
    version: ClassVar[int] = 1

    alpha: float = 1.0
    fallbacks: Mapping[str, float] = field(
        default_factory=lambda: dict.fromkeys(POLICY_FAILURES, -1.0)
    )

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError("alpha must be a finite number that is not negative")
        for status, value in self.fallbacks.items():
            if not -1 <= value <= 1 or status in (OK, NO_ANSWER):
                raise ValueError(
                    f"fallbacks must give a phi from -1 to 1 to a failure; {status!r} does not"
                )

    @property
    def id(self) -> str:
        """Name and version."""
        return f"{self.name}@{self.version}"

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest possible reward."""
        longest_short = 49
        factor = 1 - self.alpha
        base = _base(1.0, 1.0, format_score(longest_short))
        short = base * factor + format_penalty(longest_short)
        return min(format_penalty(None), short, factor), 1 + self.alpha

    def items(self, samples: Iterable[Sample]) -> list[dict[str, Any]]:
        """Build the checker's items: one for each sample that has an answer, in their order.

        Without a tag base is 0, so that phi cannot matter.
        """
        answers = ((extract_answer(sample.completion), sample.evidence) for sample in samples)
        return [
            {"response": answer, "evidence": evidence if isinstance(evidence, str) else [*evidence]}
            for answer, evidence in answers
            if answer is not None
        ]

    def breakdowns(
        self, samples: Sequence[Sample], reply: ScoreReply | None, reason: str = UNSCORED
    ) -> list[RewardBreakdown]:
        """Compute the reward of each sample.

        Args:
            samples: those that `items` was given.
            reply: the checker's, to these items; None if there is none.
            reason: the status of the samples with an answer, if there is no reply.

        Raises:
            ProtocolError: a result has no phi: this model does not check claims.
            ValueError: the reply is to other items, or a sample has no reference.
        """
        asked = sum(extract_answer(sample.completion) is not None for sample in samples)
        results: Sequence[Result | None] = [None] * asked if reply is None else reply.results
        if len(results) != asked:
            raise ValueError(f"{len(results)} results for {asked} answers: ask with items(samples)")
        remaining = iter(results)
        return [self._breakdown(sample, remaining, reply, reason) for sample in samples]

    def _breakdown(
        self,
        sample: Sample,
        results: Iterator[Result | None],
        reply: ScoreReply | None,
        reason: str,
    ) -> RewardBreakdown:
        answer = extract_answer(sample.completion)
        exact, f1 = _matches(answer, sample.references)
        length = None if answer is None else len(answer)
        form, penalty = format_score(length), format_penalty(length)
        result = None if answer is None else next(results)
        status = NO_ANSWER if answer is None else reason if result is None else _status(result)
        phi = _phi(result) if result is not None and status == OK else self.fallbacks.get(status)
        base = _base(exact, f1, form)
        return RewardBreakdown(
            contract=self.id,
            alpha=self.alpha,
            status=status,
            reward=_reward(status, base=base, phi=phi, alpha=self.alpha, penalty=penalty),
            exact=exact,
            f1=f1,
            form=form,
            base=base,
            penalty=penalty,
            phi=phi,
            substituted=phi is not None and status != OK,
            flags=() if result is None else result.flags,
            model=None if result is None or reply is None else reply.model,
            fingerprint=None if result is None or reply is None else reply.fingerprint,
        )


def recompute_reward(breakdown: Mapping[str, Any]) -> float | None:
    """Compute the reward again, from `RewardBreakdown.to_dict` (also read back from JSON).

    Raises:
        ValueError: the breakdown is of another contract.
    """
    contract = breakdown["contract"]
    if contract != f"{GroundedAnswer.name}@{GroundedAnswer.version}":
        raise ValueError(f"this client does not know the contract {contract!r}")
    return _reward(
        breakdown["status"],
        base=_base(breakdown["exact"], breakdown["f1"], breakdown["form"]),
        phi=breakdown["phi"],
        alpha=breakdown["alpha"],
        penalty=breakdown["penalty"],
    )


def extract_answer(completion: str) -> str | None:
    """Return the text between the last closing tag and the opening one before it; None if either
    is missing."""
    end = completion.rfind(CLOSING_TAG)
    start = completion.rfind(OPENING_TAG, 0, end) if end >= 0 else -1
    return completion[start + len(OPENING_TAG) : end].strip() if start >= 0 else None


def format_score(length: int | None) -> float:
    """Return FmtScore of an answer with `length` characters, None without a tag."""
    if length is None:
        return 0.0
    if length < 20:
        return 0.5
    return 0.5 + (length - 20) / 120 if length < 80 else 1.0


def format_penalty(length: int | None) -> float:
    """Return P_fmt of an answer with `length` characters, None without a tag."""
    if length is None:
        return -0.5
    return -0.3 if length < 50 else 0.0


def _base(exact: float, f1: float, form: float) -> float:
    return 7 / 12 * exact + 1 / 4 * f1 + 1 / 6 * form


def _reward(
    status: str, *, base: float, phi: float | None, alpha: float, penalty: float
) -> float | None:
    if status == NO_ANSWER:
        return penalty
    return None if phi is None else base * (1 + alpha * phi) + penalty


def _status(result: Result) -> str:
    if result.error is not None:
        return result.error.code
    return OK if result.score is not None else UNSCORED


def _phi(result: Result) -> float:
    value = result.channels.get("phi")
    if value is None:
        raise ProtocolError("the reply has no channel 'phi': ask a model that checks claims (nli)")
    return min(1.0, max(-1.0, value))


def _matches(answer: str | None, references: Sequence[str]) -> tuple[float, float]:
    """Return exact match and F1, each with its best reference; 0 without an answer."""
    if isinstance(references, str) or not references:
        raise ValueError("a sample needs a list of at least one reference")
    if answer is None:
        return 0.0, 0.0
    own, expected = _words(answer), [_words(reference) for reference in references]
    return float(own in expected), max(_f1(own, words) for words in expected)


def _words(text: str) -> list[str]:
    """Normalise as SQuAD does, and in its order: lower case, no punctuation, no articles, split at
    white space."""
    plain = text.lower().translate(_NO_PUNCTUATION)
    return _ARTICLES.sub(" ", plain).split()


def _f1(own: Sequence[str], expected: Sequence[str]) -> float:
    if not own or not expected:
        return float(own == expected)
    shared = sum((Counter(own) & Counter(expected)).values())
    return 2 * shared / (len(own) + len(expected))
