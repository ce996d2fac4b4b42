"""Query rewriting: reading a rewrite from a completion, the drift penalty, and preference pairs.

from assay_client.rewards.query_rewriting import Query, preference_pairs

result = preference_pairs(client, "video-qpp@2", [Query("a man cooks", rewrites)], min_margin=0.05)
rows = [pair.row() for pair in result.pairs]  # for TRL's DPOTrainer
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any

from assay_client._transport.zip import zip_strict
from assay_client.client import Client
from assay_client.errors import ProtocolError
from assay_client.types import Result

DRIFT_CHANNELS = ("similarity", "length_change", "novelty")
"""The channels that a reply has for an item with an `original`."""

_LIST_MARK = re.compile(r"(?:[-*•>]|[0-9]{1,3}[.)])\s+")
_LABEL = re.compile(
    r"\**(?:(?:the|my|your|new|better|final|improved|revised|rewritten|reformulated|expanded|"
    r"search|video)\s+)*"
    r"(?:query|rewrite|rewritten|rewriting|reformulation|reformulated|improved|version|caption|"
    r"answer|output|result)\s*\**\s*:\s*\**\s*",
    re.IGNORECASE,
)
_QUOTES = (
    ('"', '"'),
    ("'", "'"),
    ("`", "`"),
    ("\u201c", "\u201d"),
    ("\u2018", "\u2019"),
    ("\u00ab", "\u00bb"),
    ("**", "**"),
)


def clean(completion: str) -> str:
    """Return the rewrite that a completion holds; empty if there is none.

    It is the last line that is not blank, with each run of white space as one blank. Then the
    following are removed from its start, as long as one of them is there: a list mark (`-`, `*`,
    `•`, `>`, `1.`, `1)`) before a blank; a label with a colon (`query`, `rewrite`, `reformulation`,
    `answer`, `output`, `result`, `caption`, `version`, also after words such as `rewritten` or
    `final`); a quotation mark without a partner; and the pair of quotation marks, backquotes or
    `**` around the whole.
    """
    lines = [line for line in completion.splitlines() if line.strip()]
    text, before = " ".join(lines[-1].split()) if lines else "", None
    while text != before:
        before = text
        for pattern in (_LIST_MARK, _LABEL):
            match = pattern.match(text)
            text = text[match.end() :] if match else text
        text = _unquoted(text).strip()
    return text


def _unquoted(text: str) -> str:
    for opening, closing in _QUOTES:
        inner = text[len(opening) :]
        if not text.startswith(opening):
            continue
        if closing not in inner:
            return inner
        if inner.endswith(closing) and inner.index(closing) == len(inner) - len(closing):
            return inner[: -len(closing)]
    return text


@dataclass(frozen=True)
class DriftPenalty:
    """The penalty for a rewrite that drifts from its original.

    The penalty is the sum of `similarity` times what the cosine is below `min_similarity`,
    `length` times what the logarithm of the ratio of words is beyond `free_length` either way, and
    `novelty` times what the share of new content words is above `free_novelty`. A weight of 0
    switches a part off. The defaults are starting values and were not tuned: check the means that
    are logged, and the policy's output.

    Raises:
        ValueError: a field is negative or no finite number.
    """

    similarity: float = 1.0
    length: float = 0.1
    novelty: float = 0.2
    min_similarity: float = 0.6
    free_length: float = 0.7
    free_novelty: float = 0.5

    def __post_init__(self) -> None:
        for field in fields_of(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} must be a finite number that is not negative")

    def compute(self, channels: Mapping[str, float | None]) -> float:
        """Return the penalty of a score with these channels; 0 if no part has a weight.

        Raises:
            ProtocolError: the channel of a part that has a weight is missing.
        """
        penalty = 0.0
        if self.similarity:
            similarity = _channel(channels, "similarity")
            penalty += self.similarity * max(0.0, self.min_similarity - similarity)
        if self.length:
            change = abs(_channel(channels, "length_change"))
            penalty += self.length * max(0.0, change - self.free_length)
        if self.novelty:
            novelty = _channel(channels, "novelty")
            penalty += self.novelty * max(0.0, novelty - self.free_novelty)
        return penalty

    def reward(self, result: Result) -> float | None:
        """Return the score less the penalty; None if there is no score.

        A number that the server substituted for a missing score is returned unchanged.

        Raises:
            ProtocolError: as `compute`.
        """
        if result.score is None or "substituted" in result.flags:
            return result.score
        return result.score - self.compute(result.channels)


def _channel(channels: Mapping[str, float | None], name: str) -> float:
    value = channels.get(name)
    if value is None:
        raise ProtocolError(
            f"the reply has no channel {name!r}: this model does not hold a query to its original. "
            "Ask video-qpp@2, or give that part of the drift penalty the weight 0"
        )
    return value


@dataclass(frozen=True)
class Query:
    """A query and its rewrites. `prompt` is the text or the messages from which the policy wrote
    them; the default is the original itself.

    Raises:
        ValueError: the candidates are a single text.
    """

    original: str
    candidates: Sequence[str]
    prompt: Any = None

    def __post_init__(self) -> None:
        if isinstance(self.candidates, str):
            raise ValueError("candidates must be a list of rewrites, not a single text")


@dataclass(frozen=True)
class Pair:
    """Two rewrites for one prompt. The reward of `chosen` is higher by `margin`."""

    prompt: Any
    chosen: str
    rejected: str
    margin: float

    def row(self) -> dict[str, Any]:
        """Return a row of a preference data set: texts, or messages if the prompt is messages."""
        if isinstance(self.prompt, str):
            chosen: Any = self.chosen
            rejected: Any = self.rejected
        else:
            chosen, rejected = (
                [{"role": "assistant", "content": text}] for text in (self.chosen, self.rejected)
            )
        return {
            "prompt": self.prompt,
            "chosen": chosen,
            "rejected": rejected,
            "margin": self.margin,
        }


@dataclass(frozen=True)
class Pairs:
    """The pairs, in the order of their queries.

    Attributes:
        left_out: the number of queries without a pair, by reason: `too_few` for fewer than two
            different candidates with a score, `small_margin` for candidates that are too close.
        failed: the number of candidates without a score, by the server's reason.
    """

    pairs: tuple[Pair, ...]
    left_out: Mapping[str, int]
    failed: Mapping[str, int]


def preference_pairs(
    client: Client,
    model: str,
    queries: Sequence[Query],
    *,
    min_margin: float,
    drift_penalty: DriftPenalty | None = None,
    with_original: bool = False,
    options: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    **shared_fields: Any,
) -> Pairs:
    """Pair the best and the worst rewrite of each query, if they are far enough apart.

    Args:
        client: a client of Assay.
        model: `name@version`.
        queries: their candidates are read by `clean`; empty ones and duplicates are ignored.
        min_margin: of the rewards; a pair that is closer is left out, equal ones always are.
        drift_penalty: `DriftPenalty()` unless given.
        with_original: whether the original is a candidate too.
        options: the server's.
        timeout: seconds for the call in all, instead of the client's.
        **shared_fields: of all items, such as `collection`.

    Raises:
        ValueError: the margin is negative or no number, or a single query is given.
        AssayError: the request failed, or the model does not support `original`.
    """
    if isinstance(queries, Query):
        raise ValueError("queries must be a list, [query] for a single one")
    if not min_margin >= 0:
        raise ValueError("min_margin must be a number that is not negative")
    penalty = DriftPenalty() if drift_penalty is None else drift_penalty
    candidates = [_candidates(query, with_original) for query in queries]
    items = [
        {**shared_fields, "query": text, "original": query.original}
        for query, texts in zip_strict(queries, candidates)
        for text in texts
    ]
    results: Sequence[Result] = ()
    if items:
        reply = client.score(model, items, options=options, on_error="none", timeout=timeout)
        results = reply.results
    rewards = iter([penalty.reward(result) for result in results])
    outcomes = [
        _pair(query, list(_scored(texts, rewards)), min_margin)
        for query, texts in zip_strict(queries, candidates)
    ]
    return Pairs(
        pairs=tuple(outcome for outcome in outcomes if isinstance(outcome, Pair)),
        left_out=Counter(outcome for outcome in outcomes if isinstance(outcome, str)),
        failed=Counter(result.error.code for result in results if result.error is not None),
    )


def _candidates(query: Query, with_original: bool) -> list[str]:
    texts = [clean(text) for text in query.candidates]
    if with_original:
        texts.append(" ".join(query.original.split()))
    return list(dict.fromkeys(text for text in texts if text))


def _scored(texts: Sequence[str], rewards: Iterator[float | None]) -> Iterator[tuple[float, str]]:
    for text in texts:
        reward = next(rewards)
        if reward is not None:
            yield reward, text


def _pair(query: Query, scored: Sequence[tuple[float, str]], min_margin: float) -> Pair | str:
    """Return the pair, or the reason why there is none."""
    if len(scored) < 2:
        return "too_few"
    (best, chosen), (worst, rejected) = (
        pick(scored, key=lambda entry: entry[0]) for pick in (max, min)
    )
    margin = best - worst
    if margin <= 0 or margin < min_margin:
        return "small_margin"
    prompt = query.original if query.prompt is None else query.prompt
    return Pair(prompt, chosen, rejected, margin)
