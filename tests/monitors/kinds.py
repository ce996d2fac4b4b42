"""Runs that fail from their first step, and healthy ones, each in its own way."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from assay_monitors.observations import Observation
from assay_monitors.summaries import Point, Summary

Fields = dict[str, Any]
Item = Callable[[random.Random, int, float], Fields]
"""An item's fields, by a source of chance, the step, and its group's own number from 0 to 1."""
Telemetry = Callable[[random.Random, int], Mapping[str, float]]
Sizes = Callable[[random.Random, int], int]


def no_telemetry(source: random.Random, step: int) -> Mapping[str, float]:
    return {}


@dataclass(frozen=True)
class Kind:
    """A kind of run: its items, their groups' size (1: no groups), and its telemetry.

    `items` is the fewest items a step with which a failing run is red within three steps.
    """

    item: Item
    items: int = 8
    group: int = 1
    telemetry: Telemetry = no_telemetry


def points_of(kind: Kind, seed: int, steps: int, sizes: Sizes) -> list[Point]:
    """Return the series of a run of this kind, with the sizes of its steps."""
    source = random.Random(seed)
    points = []
    for step in range(steps):
        summary = Summary()
        for number in range(sizes(source, step)):
            if number % kind.group == 0:
                prompt = source.random()
            fields = {"source": "computed", **kind.item(source, step, prompt)}
            if kind.group > 1:
                fields["group"] = f"{step} {number // kind.group}"
            summary.add(Observation(**fields))
        summary.add_telemetry(kind.telemetry(source, step))
        points.append(Point(step, summary))
    return points


def text(source: random.Random) -> Fields:
    return {"characters": round(source.lognormvariate(6, 0.4)), "script": "latin"}


def noisy(source: random.Random, step: int, prompt: float) -> Fields:
    return {"score": source.gauss(prompt, 1.0), **text(source)}


def binary(share: float) -> Item:
    """Return items of which a share succeeds, whatever their prompt."""
    return lambda source, step, prompt: {"score": float(source.random() < share), **text(source)}


def solvable(prompts: float, share: float) -> Item:
    """Return items that succeed with a share, in a share of the prompts; the others never do."""
    return lambda source, step, prompt: {
        "score": float(prompt < prompts and source.random() < share),
        **text(source),
    }


def constant(score: float) -> Item:
    return lambda source, step, prompt: {"score": score, **text(source)}


def failing(share: float, **fields: Any) -> Item:
    """Return noisy items of which a share has no score."""

    def item(source: random.Random, step: int, prompt: float) -> Fields:
        failed = {"score": None, "source": None, **fields} if source.random() < share else {}
        return {**noisy(source, step, prompt), **failed}

    return item


def having(share: float, **fields: Any) -> Item:
    """Return noisy items of which a share has these fields."""
    return lambda source, step, prompt: {
        **noisy(source, step, prompt),
        **(fields if source.random() < share else {}),
    }


def labelled(**shares: float) -> Item:
    """Return noisy items with a verdict each, drawn with these shares."""

    def item(source: random.Random, step: int, prompt: float) -> Fields:
        (label,) = source.choices(list(shares), list(shares.values()))
        return {**noisy(source, step, prompt), "labels": {label: 1}}

    return item


def saturated(source: random.Random, step: int, prompt: float) -> Fields:
    return {"score": 1.0, "channels": {"right": 1.0, "form": 1.0}, **text(source)}


def per_prompt(source: random.Random, step: int, prompt: float) -> Fields:
    return {"score": prompt, "channels": {"reward": prompt}, **text(source)}


def always(**values: float) -> Telemetry:
    return lambda source, step: values


def exploding(source: random.Random, step: int) -> Mapping[str, float]:
    return {"kl": 400.0 * 3.0**step, "entropy_nats": source.uniform(0.5, 1.0)}


FAILING = {
    "every item fails": Kind(failing(1.0)),
    "every item of a group fails": Kind(failing(1.0), group=8),
    "every score is not finite": Kind(failing(1.0, flags=("error:non_finite_score",))),
    "every score is a substitute": Kind(failing(1.0, flags=("substituted", "error:timeout"))),
    "nine of ten items fail": Kind(failing(0.9)),
    "half of the items fail": Kind(failing(0.5), items=40),
    "a third of the items fails": Kind(failing(0.35), items=96),
    "the reward is zero": Kind(constant(0.0), items=81),
    "the reward is the maximum": Kind(saturated, items=81),
    "the reward is an odd constant": Kind(constant(-0.37), items=81),
    "the reward is zero in every group": Kind(constant(0.0), items=148, group=4),
    "the reward is the prompt's": Kind(per_prompt, items=296, group=8),
    "the reward is the prompt's, in pairs": Kind(per_prompt, items=74, group=2),
    "one label only": Kind(labelled(neutral=1.0), items=86),
    "one label nearly always": Kind(labelled(neutral=0.995, entailment=0.005), items=128),
    "every verdict is unsure": Kind(labelled(low_confidence=1.0), items=86),
    "no response has a program": Kind(
        having(1.0, invalid=True, flags=("invalid_code",), source="rule"), items=37
    ),
    "every response is empty": Kind(having(1.0, characters=0, script="none")),
    "every input is cut": Kind(having(1.0, flags=("truncated",))),
    "most inputs are cut": Kind(having(0.8, flags=("truncated",)), items=32),
    "the policy has no entropy": Kind(noisy, telemetry=always(entropy_nats=0.0)),
    "the divergence explodes": Kind(noisy, telemetry=exploding),
    "every response reaches the limit of length": Kind(noisy, telemetry=always(clipped_share=1.0)),
}


def rising(source: random.Random, step: int, prompt: float) -> Fields:
    right = source.random() < min(0.9, 0.1 + step / 300 + 0.5 * (prompt - 0.5))
    return {
        "score": 0.9 * right + 0.1 * (source.random() < 0.8),
        "channels": {"outcome": float(right)},
        **text(source),
    }


def heavy_tailed(source: random.Random, step: int, prompt: float) -> Fields:
    return {"score": source.gauss(0, 1) / max(0.01, abs(source.gauss(0, 1))), **text(source)}


def learning_the_format(source: random.Random, step: int, prompt: float) -> Fields:
    return having(max(0.05, 0.7 - step / 100), invalid=True)(source, step, prompt)


def failing_once(source: random.Random, step: int, prompt: float) -> Fields:
    return failing(0.1 if step == 45 else 0.0)(source, step, prompt)


def usual_telemetry(source: random.Random, step: int) -> Mapping[str, float]:
    return {
        "entropy_nats": max(0.1, 1.2 - step / 200) + source.gauss(0, 0.02),
        "kl": 0.001 * step + abs(source.gauss(0, 0.002)),
        "clipped_share": source.uniform(0.1, 0.4),
    }


def summed_divergence(source: random.Random, step: int) -> Mapping[str, float]:
    return {"kl": min(40.0, 0.5 * step) + source.uniform(0, 3)}


HEALTHY = {
    "one of twenty succeeds": Kind(binary(0.05)),
    "one of twenty succeeds, in groups of 4": Kind(binary(0.05), group=4),
    "one of twenty succeeds, in groups of 8": Kind(binary(0.05), group=8),
    "a tenth of the prompts can be solved": Kind(solvable(0.1, 0.5), group=8),
    "one of a hundred fails": Kind(binary(0.95)),
    "noise": Kind(noisy),
    "noise in groups": Kind(noisy, group=8),
    "heavy tails": Kind(heavy_tailed),
    "slowly rising": Kind(rising, group=8),
    "slowly rising, without groups": Kind(rising),
    "three of ten groups are alike": Kind(solvable(0.7, 0.5), group=8),
    "six of ten groups are alike": Kind(solvable(0.4, 0.5), group=16),
    "two of a hundred items fail": Kind(failing(0.02)),
    "two of a hundred items fail, in groups": Kind(failing(0.02), group=8),
    "five of a hundred items fail": Kind(failing(0.05)),
    "a tenth of a step's items fail once": Kind(failing_once),
    "five of a hundred inputs are cut": Kind(having(0.05, flags=("truncated",))),
    "three of a hundred responses are empty": Kind(having(0.03, characters=0)),
    "a policy that learns the format": Kind(learning_the_format),
    "a frequent verdict": Kind(labelled(neutral=0.85, entailment=0.1, contradiction=0.05)),
    "some verdicts are unsure": Kind(labelled(entailment=0.6, neutral=0.3, low_confidence=0.1)),
    "usual telemetry": Kind(rising, group=8, telemetry=usual_telemetry),
    "divergence as a sum": Kind(noisy, telemetry=summed_divergence),
}
