"""Rewriting queries: what a completion says, what drift costs, and pairs to learn from.

from assay_client.rewards.query_rewriting import Query, preference_pairs

found = preference_pairs(client, "video-qpp@2", [Query("a man cooks", rewrites)], least_margin=0.05)
rows = [pair.row() for pair in found.pairs]  # for TRL's DPOTrainer
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any

from assay_client._transport.zip import zipped
from assay_client.client import Client
from assay_client.errors import ProtocolError
from assay_client.types import Result

GUARDED = ("similarity", "length_change", "novelty")
"""The channels that a reply has of an item with an `original`."""

_MARK = re.compile(r"(?:[-*•>]|[0-9]{1,3}[.)])\s+")
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
    """The rewrite that a completion holds; empty where there is none.

    It is the last line that is not blank, its runs of white space made one blank. Then, as often as
    one of them is there, these are taken away at its start: the mark of a list (`-`, `*`, `•`, `>`,
    `1.`, `1)`) before a blank; a label with a colon (`query`, `rewrite`, `reformulation`, `answer`,
    `output`, `result`, `caption`, `version`, also after words such as `rewritten` or `final`); a
    quotation mark whose partner is nowhere; and the pair of quotation marks, backquotes or `**`
    around the whole.
    """
    lines = [line for line in completion.splitlines() if line.strip()]
    text, before = " ".join(lines[-1].split()) if lines else "", None
    while text != before:
        before = text
        for pattern in (_MARK, _LABEL):
            found = pattern.match(text)
            text = text[found.end() :] if found else text
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
class Guards:
    """What it costs a rewrite to leave its original.

    The penalty is the sum of `similarity` times what the cosine is below `least_similarity`,
    `length` times what the logarithm of the ratio of words is beyond `free_length` either way, and
    `novelty` times what the share of new content words is above `free_novelty`. A weight of 0
    switches a guard off. The defaults are a beginning, no measurement: look at the means that are
    logged, and at what the policy writes.

    Raises:
        ValueError: one of them is negative or no finite number.
    """

    similarity: float = 1.0
    length: float = 0.1
    novelty: float = 0.2
    least_similarity: float = 0.6
    free_length: float = 0.7
    free_novelty: float = 0.5

    def __post_init__(self) -> None:
        for one in fields_of(self):
            value = getattr(self, one.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{one.name} must be a finite number that is not negative")

    def penalty(self, channels: Mapping[str, float | None]) -> float:
        """What is taken from a score whose channels these are; 0 where no guard has a weight.

        Raises:
            ProtocolError: a guard that has a weight finds no channel.
        """
        taken = 0.0
        if self.similarity:
            near = _channel(channels, "similarity")
            taken += self.similarity * max(0.0, self.least_similarity - near)
        if self.length:
            longer = abs(_channel(channels, "length_change"))
            taken += self.length * max(0.0, longer - self.free_length)
        if self.novelty:
            new = _channel(channels, "novelty")
            taken += self.novelty * max(0.0, new - self.free_novelty)
        return taken

    def reward(self, result: Result) -> float | None:
        """The score less the penalty; None where there is no score. A number that the server was
        told to put in the place of a missing score stays as it is.

        Raises:
            ProtocolError: as `penalty`.
        """
        if result.score is None or "substituted" in result.flags:
            return result.score
        return result.score - self.penalty(result.channels)


def _channel(channels: Mapping[str, float | None], name: str) -> float:
    value = channels.get(name)
    if value is None:
        raise ProtocolError(
            f"the reply has no channel {name!r}: this model does not hold a query to its original. "
            "Ask video-qpp@2, or give that guard the weight 0"
        )
    return value


@dataclass(frozen=True)
class Query:
    """A query and its rewrites. `prompt` is what the policy was given to write them, a text or
    messages; without one it is the original itself."""

    original: str
    candidates: Sequence[str]
    prompt: Any = None


@dataclass(frozen=True)
class Pair:
    """Two rewrites for one prompt, of which `chosen` has the higher reward, by `margin`."""

    prompt: Any
    chosen: str
    rejected: str
    margin: float

    def row(self) -> dict[str, Any]:
        """The pair as a row of a preference data set: texts, or messages where the prompt is."""
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
        left_out: how many queries have no pair: `too_few` for fewer than two different candidates
            with a score, `small_margin` for those that are too close.
        failed: how many candidates have no score, by the server's reason.
    """

    pairs: tuple[Pair, ...]
    left_out: Mapping[str, int]
    failed: Mapping[str, int]


def preference_pairs(
    client: Client,
    model: str,
    queries: Sequence[Query],
    *,
    least_margin: float,
    guards: Guards | None = None,
    with_original: bool = False,
    options: Mapping[str, Any] | None = None,
    timeout: float | None = None,
    **shared_fields: Any,
) -> Pairs:
    """One pair for each query: its best and its worst rewrite, where they are far enough apart.

    Args:
        client: asks the server.
        model: `name@version`.
        queries: their candidates are read by `clean`; what is empty or there twice is passed over.
        least_margin: of the rewards; a pair that is closer is left out, equal ones always are.
        guards: what drift costs; `Guards()` unless given.
        with_original: whether the original is a candidate too.
        options: the server's.
        timeout: seconds for the call in all, instead of the client's.
        **shared_fields: of all items, such as `collection`.

    Raises:
        ValueError: the margin is negative or no number.
        AssayError: the server cannot be asked, or its model knows no `original`.
    """
    if not least_margin >= 0:
        raise ValueError("least_margin must be a number that is not negative")
    weighed = Guards() if guards is None else guards
    candidates = [_candidates(query, with_original) for query in queries]
    items = [
        {**shared_fields, "query": text, "original": query.original}
        for query, texts in zipped(queries, candidates)
        for text in texts
    ]
    results: Sequence[Result] = ()
    if items:
        reply = client.score(model, items, options=options, on_error="none", timeout=timeout)
        results = reply.results
    rewards = iter([weighed.reward(one) for one in results])
    outcomes = [
        _pair(query, list(_scored(texts, rewards)), least_margin)
        for query, texts in zipped(queries, candidates)
    ]
    return Pairs(
        tuple(one for one in outcomes if isinstance(one, Pair)),
        Counter(one for one in outcomes if isinstance(one, str)),
        Counter(one.error.code for one in results if one.error is not None),
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


def _pair(query: Query, scored: Sequence[tuple[float, str]], least_margin: float) -> Pair | str:
    if len(scored) < 2:
        return "too_few"
    best, worst = (pick(scored, key=lambda one: one[0]) for pick in (max, min))
    margin = best[0] - worst[0]
    if margin <= 0 or margin < least_margin:
        return "small_margin"
    prompt = query.original if query.prompt is None else query.prompt
    return Pair(prompt, best[1], worst[1], margin)
