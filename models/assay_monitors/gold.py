"""How well a reward agrees with a gold source, on what the current policy writes.

Gold is separate from the reward: it has its own source, is kept apart, and pays nothing.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

from assay_monitors.intervals import Estimate, mean, spearman, wilson


class GoldPair(NamedTuple):
    """The reward's scores of two responses to one prompt: of the one that gold prefers, and of the
    other.
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
    """What was measured at one step; None is what was not.

    Attributes:
        step: of the run.
        proxy: the mean reward; `gold` the mean of the gold source.
        accuracy: share of pairs in which the reward prefers what gold prefers; a tie is no
            preference.
        loss: Bradley-Terry, the mean of -log sigmoid(preferred - other), in nats.
        rank: Spearman's correlation of reward and gold over the responses.
        gradient_norm: as the trainer tells it.
    """

    step: int
    proxy: Estimate | None = None
    gold: Estimate | None = None
    accuracy: Estimate | None = None
    loss: Estimate | None = None
    rank: Estimate | None = None
    gradient_norm: float | None = None


def measure(step: int, items: Sequence[GoldItem], gradient_norm: float | None = None) -> GoldPoint:
    """What responses of the current policy tell; about 200 prompts of two make a useful interval.

    The intervals take pairs for independent: send two responses a prompt. With more, pairs of one
    prompt share their responses and the intervals are too narrow.
    """
    pairs = pairs_of(items)
    proxies = [item.proxy for item in items]
    golds = [item.gold for item in items]
    return GoldPoint(
        step=step,
        proxy=mean(proxies) if items else None,
        gold=mean(golds) if items else None,
        accuracy=reward_accuracy(pairs) if pairs else None,
        loss=bradley_terry_loss(pairs) if pairs else None,
        rank=spearman(proxies, golds),
        gradient_norm=gradient_norm,
    )


def pairs_of(items: Iterable[GoldItem]) -> list[GoldPair]:
    """All pairs of responses to one prompt of which gold prefers one."""
    prompts: dict[str, list[GoldItem]] = {}
    for item in items:
        prompts.setdefault(item.prompt, []).append(item)
    return [
        GoldPair(one.proxy, other.proxy)
        if one.gold > other.gold
        else GoldPair(other.proxy, one.proxy)
        for answers in prompts.values()
        for one, other in combinations(answers, 2)
        if one.gold != other.gold
    ]


def reward_accuracy(pairs: Sequence[GoldPair]) -> Estimate:
    """The share of pairs in which the reward is higher for what gold prefers, with Wilson's
    interval.
    """
    return wilson(sum(pair.preferred > pair.other for pair in pairs), len(pairs))


def bradley_terry_loss(pairs: Sequence[GoldPair]) -> Estimate:
    """The mean of -log sigmoid(preferred - other) in nats, of one pair or more; log 2 is chance."""
    return mean([_surprise(pair.preferred - pair.other) for pair in pairs])


def _surprise(margin: float) -> float:
    return max(0.0, -margin) + math.log1p(math.exp(-abs(margin)))
