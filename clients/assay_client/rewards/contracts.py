"""Reward contracts: what a trainer's number is made of, under a name and a version.

    from assay_client.rewards.contracts import GroundedAnswer, Sample

    contract = GroundedAnswer(alpha=1.0)
    samples = [Sample(completion, references=["..."], evidence=["..."])]
    reply = client.score("nli@2", contract.items(samples), on_error="none")
    accounts = contract.accounts(samples, reply)  # each with its reward and all it came from

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

OPENING, CLOSING = "<answer>", "</answer>"

OK = "ok"
NO_ANSWER = "no_answer"
UNSCORED = "unscored"

OF_THE_POLICY = ("no_claims", "no_search", "unsupported_language")
"""Failures that a policy brings about by what it writes, or by not searching."""

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Sample:
    """What a policy wrote, and what it is held against.

    Args:
        completion: with the answer between `<answer>` and `</answer>`; the last such pair counts.
        references: right answers; the best match counts.
        evidence: the passages that the policy was shown, or one text.
    """

    completion: str
    references: Sequence[str]
    evidence: str | Sequence[str]


@dataclass(frozen=True)
class Account:
    """One reward, with all that it was made of: `recomputed` gives the same number again.

    Attributes:
        contract: name and version.
        alpha: the weight of phi.
        status: `ok`; `no_answer`, where there is no tag and nothing was asked; else why the checker
            has no phi: a code of the server, or the name of the client's error.
        reward: None where this contract gives none.
        exact: exact match, 0 or 1; `f1`: of the tokens; `form`: FmtScore; `penalty`: P_fmt.
        base: 7/12 exact + 1/4 f1 + 1/6 form.
        phi: cut to [-1, 1], or what the contract puts in its place; None where there is neither.
        substituted: whether `phi` is the contract's and not the checker's.
        flags: of the checker's result.
        model: what checked, and its `fingerprint`; None where nothing was asked.
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

    def told(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "flags": list(self.flags)}


@dataclass(frozen=True)
class GroundedAnswer:
    """`grounded-answer@1`: R = base * (1 + alpha * phi) + penalty.

    base = 7/12 EM + 1/4 F1 + 1/6 FmtScore, with EM and F1 as SQuAD has them (Rajpurkar et al.,
    2016, arXiv 1606.05250), over the answer of `l` characters. FmtScore is 0 without a tag, .5 for
    l < 20, .5 + (l - 20) / 120 for l < 80, else 1. The penalty is -.5 without a tag, -.3 for
    l < 50, else 0.

    Where the checker has no phi, `standins` says what is put in its place, by status. What is not
    named there has no reward at all. The defaults stand in for what the policy itself brings about,
    at -1, so that an answer which cannot be checked is no refuge; a failure of anybody else is
    never turned into a number.

    Args:
        alpha: the weight of phi, not negative. From above 1 on, phi can turn a right answer into a
            loss.
        standins: from a status to a phi in [-1, 1].

    Raises:
        ValueError: a number is out of range.
    """

    name: ClassVar[str] = "grounded-answer"
    version: ClassVar[int] = 1

    alpha: float = 1.0
    standins: Mapping[str, float] = field(
        default_factory=lambda: dict.fromkeys(OF_THE_POLICY, -1.0)
    )

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise ValueError("alpha must be a finite number that is not negative")
        for status, value in self.standins.items():
            if not -1 <= value <= 1 or status in (OK, NO_ANSWER):
                raise ValueError(
                    f"standins must give a phi from -1 to 1 to a failure; {status!r} does not"
                )

    @property
    def id(self) -> str:
        """Name and version."""
        return f"{self.name}@{self.version}"

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest reward there can be."""
        longest_short = 49
        least = 1 - self.alpha
        short = _base(1.0, 1.0, form_of(longest_short)) * least + penalty_of(longest_short)
        return min(penalty_of(None), short, least), 1 + self.alpha

    def items(self, samples: Iterable[Sample]) -> list[dict[str, Any]]:
        """What to ask the checker: an item for each sample that has an answer, in their order.

        Without a tag base is 0, so that phi cannot matter.
        """
        answers = ((answer_of(one.completion), one.evidence) for one in samples)
        return [
            {"response": answer, "evidence": evidence if isinstance(evidence, str) else [*evidence]}
            for answer, evidence in answers
            if answer is not None
        ]

    def accounts(
        self, samples: Sequence[Sample], reply: ScoreReply | None, reason: str = UNSCORED
    ) -> list[Account]:
        """One account for each sample.

        Args:
            samples: those that `items` was given.
            reply: the checker's, to these items; None where there is none.
            reason: the status of what was to be checked, where there is no reply.

        Raises:
            ProtocolError: a result has no phi: this model does not check claims.
            ValueError: the reply is to other items, or a sample has no reference.
        """
        asked = sum(answer_of(one.completion) is not None for one in samples)
        results: Sequence[Result | None] = [None] * asked if reply is None else reply.results
        if len(results) != asked:
            raise ValueError(f"{len(results)} results for {asked} answers: ask with items(samples)")
        given = iter(results)
        return [self._account(one, given, reply, reason) for one in samples]

    def _account(
        self,
        sample: Sample,
        given: Iterator[Result | None],
        reply: ScoreReply | None,
        reason: str,
    ) -> Account:
        answer = answer_of(sample.completion)
        exact, f1 = _matches(answer, sample.references)
        length = None if answer is None else len(answer)
        form, penalty = form_of(length), penalty_of(length)
        result = None if answer is None else next(given)
        status = NO_ANSWER if answer is None else reason if result is None else _status(result)
        phi = _phi(result) if result is not None and status == OK else self.standins.get(status)
        base = _base(exact, f1, form)
        return Account(
            contract=self.id,
            alpha=self.alpha,
            status=status,
            reward=_reward(status, base, phi, self.alpha, penalty),
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


def recomputed(told: Mapping[str, Any]) -> float | None:
    """The reward again, from what an account tells (`Account.told`, also read back from JSON).

    Raises:
        ValueError: the account is of another contract.
    """
    if told["contract"] != f"{GroundedAnswer.name}@{GroundedAnswer.version}":
        raise ValueError(f"this client does not know the contract {told['contract']!r}")
    base = _base(told["exact"], told["f1"], told["form"])
    return _reward(told["status"], base, told["phi"], told["alpha"], told["penalty"])


def answer_of(completion: str) -> str | None:
    """What is between the last closing tag and the opening one before it; None without both."""
    end = completion.rfind(CLOSING)
    start = completion.rfind(OPENING, 0, end) if end >= 0 else -1
    return completion[start + len(OPENING) : end].strip() if start >= 0 else None


def form_of(length: int | None) -> float:
    """FmtScore of an answer of so many characters, None without a tag."""
    if length is None:
        return 0.0
    if length < 20:
        return 0.5
    return 0.5 + (length - 20) / 120 if length < 80 else 1.0


def penalty_of(length: int | None) -> float:
    """P_fmt of an answer of so many characters, None without a tag."""
    if length is None:
        return -0.5
    return -0.3 if length < 50 else 0.0


def _base(exact: float, f1: float, form: float) -> float:
    return 7 / 12 * exact + 1 / 4 * f1 + 1 / 6 * form


def _reward(
    status: str, base: float, phi: float | None, alpha: float, penalty: float
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
    """Exact match and F1 with the reference that each is highest with; 0 without an answer."""
    if isinstance(references, str) or not references:
        raise ValueError("a sample needs a list of at least one reference")
    if answer is None:
        return 0.0, 0.0
    own, wanted = _words(answer), [_words(one) for one in references]
    return float(own in wanted), max(_f1(own, one) for one in wanted)


def _words(text: str) -> list[str]:
    """Lower case, without punctuation and articles, split at white space: SQuAD's own order."""
    plain = text.lower().translate(_NO_PUNCTUATION)
    return _ARTICLES.sub(" ", plain).split()


def _f1(own: Sequence[str], wanted: Sequence[str]) -> float:
    if not own or not wanted:
        return float(own == wanted)
    shared = sum((Counter(own) & Counter(wanted)).values())
    return 2 * shared / (len(own) + len(wanted))
