"""Agreement of a reward with a gold source, on responses of the current policy.

Gold is separate from the reward: it has its own source, is kept apart, and pays nothing.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import combinations
from typing import NamedTuple

from assay_monitors.intervals import Estimate, mean, spearman, wilson


class GoldPair(NamedTuple):
    """The reward's scores of two responses to one prompt.

    `preferred` is that of the response that gold prefers, `other` that of the other response.
    """

    preferred: float
    other: float


class GoldItem(NamedTuple):
    """One response, scored twice: by the reward that trains (the proxy) and by gold."""

    prompt: str
    proxy: float
    gold: float


@dataclass(frozen=True, slots=True)
class GoldPoint:
    """The measurements at one step; None where a quantity was not measured.

    Attributes:
        step: of the run.
        proxy: the mean reward; `gold` the mean of the gold source.
        accuracy: share of pairs in which the reward prefers what gold prefers; a tie is no
            preference.
        loss: Bradley-Terry, the mean of -log sigmoid(preferred - other), in nats.
        rank: Spearman's correlation of reward and gold over the responses.
        gradient_norm: as the trainer recorded it.
    """

    step: int
    _: KW_ONLY
    proxy: Estimate | None = None
    gold: Estimate | None = None
    accuracy: Estimate | None = None
    loss: Estimate | None = None
    rank: Estimate | None = None
    gradient_norm: float | None = None


def measure(step: int, items: Sequence[GoldItem], gradient_norm: float | None = None) -> GoldPoint:
    """Measure the agreement of reward and gold on responses of the current policy.

    About 200 prompts of two responses make a useful interval. The intervals take pairs for
    independent: send two responses a prompt. With more, pairs of one prompt share their responses
    and the intervals are too narrow. One response or pair has no mean: its error is unknown.
    """
    pairs = gold_pairs(items)
    proxies = [item.proxy for item in items]
    golds = [item.gold for item in items]
    return GoldPoint(
        step=step,
        proxy=mean(proxies) if len(items) > 1 else None,
        gold=mean(golds) if len(items) > 1 else None,
        accuracy=reward_accuracy(pairs) if pairs else None,
        loss=bradley_terry_loss(pairs) if len(pairs) > 1 else None,
        rank=spearman(proxies, golds),
        gradient_norm=gradient_norm,
    )


def gold_pairs(items: Iterable[GoldItem]) -> list[GoldPair]:
    """Return all pairs of responses to one prompt of which gold prefers one."""
    prompts: dict[str, list[GoldItem]] = {}
    for item in items:
        prompts.setdefault(item.prompt, []).append(item)
    return [
        GoldPair(first.proxy, second.proxy)
        if first.gold > second.gold
        else GoldPair(second.proxy, first.proxy)
        for responses in prompts.values()
        for first, second in combinations(responses, 2)
        if first.gold != second.gold
    ]


def reward_accuracy(pairs: Sequence[GoldPair]) -> Estimate:
    """Return the share of pairs in which the reward is higher for what gold prefers.

    The interval is Wilson's.
    """
    return wilson(sum(pair.preferred > pair.other for pair in pairs), len(pairs))


def bradley_terry_loss(pairs: Sequence[GoldPair]) -> Estimate:
    """Return the mean of -log sigmoid(preferred - other) in nats, of one pair or more.

    A reward at chance has log 2.
    """
    return mean([_negative_log_sigmoid(pair.preferred - pair.other) for pair in pairs])


def _negative_log_sigmoid(margin: float) -> float:
    return max(0.0, -margin) + math.log1p(math.exp(-abs(margin)))
