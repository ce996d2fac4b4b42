"""Group summaries of a reply, and the ranking of one prompt's candidates."""

import math
from collections.abc import Sequence
from itertools import pairwise

from assay.types import GroupSummary, ItemResult, RankedCandidate
from assay_models.card import Calibration


def summarise(results: Sequence[ItemResult], resolution: float) -> list[GroupSummary]:
    """Return one summary for each named group, in order of appearance.

    A group has zero variance when its scores lie within `resolution` of each other: GRPO would
    divide noise by noise.
    """
    members: dict[str, list[ItemResult]] = {}
    for result in results:
        if result.group is not None:
            members.setdefault(result.group, []).append(result)
    return [_summary(name, group, resolution) for name, group in members.items()]


def rank(scores: Sequence[float | None]) -> list[int | None]:
    """Return the rank of each score, 1 is best; equal scores share a rank, None has none."""
    known = [score for score in scores if score is not None]
    return [
        None if score is None else 1 + sum(other > score for other in known) for score in scores
    ]


def ranking(
    results: Sequence[ItemResult], calibration: Calibration | None = None
) -> list[RankedCandidate]:
    """Return the candidates, best first; those without a score come last and have no margin."""
    scores = [result.score if result.status == "ok" else None for result in results]
    floor = [-math.inf if score is None else score for score in scores]
    order = sorted(range(len(scores)), key=floor.__getitem__, reverse=True)
    ordered = [scores[index] for index in order]
    raws = [results[index].raw for index in order]
    margins, distances = _steps(ordered), _steps(raws)
    known = [
        None if calibration is None or distance is None else calibration.confidence_at(distance)
        for distance in distances
    ]
    return [RankedCandidate(*place) for place in zip(order, ordered, margins, known, strict=True)]


def ties(places: Sequence[RankedCandidate], margin: float) -> list[list[int]]:
    """Return runs of neighbouring ranks at most `margin` apart, as candidate indices."""
    runs: list[list[int]] = []
    for place, following in pairwise(places):
        if place.margin is None or place.margin > margin:
            continue
        if not runs or runs[-1][-1] != place.index:
            runs.append([place.index])
        runs[-1].append(following.index)
    return runs


def _steps(values: Sequence[float | None]) -> list[float | None]:
    """Return the difference from each value to the next; None where one of them is missing."""
    return [
        None if value is None or following is None else value - following
        for value, following in zip(values, [*values[1:], None], strict=True)
    ]


def _summary(name: str, group: Sequence[ItemResult], resolution: float) -> GroupSummary:
    scores = [result.score if result.status == "ok" else None for result in group]
    known = [score for score in scores if score is not None]
    mean = math.fsum(known) / len(known) if known else None
    std = None
    if mean is not None:
        std = math.sqrt(math.fsum((score - mean) ** 2 for score in known) / len(known))
    return GroupSummary(
        group=name,
        n=len(group),
        scored=len(known),
        mean=mean,
        std=std,
        ranks=rank(scores),
        zero_variance=bool(known) and max(known) - min(known) <= resolution,
    )
