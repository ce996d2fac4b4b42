"""Observations for tests: random ones for properties, and seeded series that resemble runs."""

import math
import random
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from assay_monitors.observations import Observation
from assay_monitors.summaries import Point, Summary

numbers = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(-5, 5),
    st.sampled_from([0.0, -0.0, 1.0, 1e-300]),
)
names = st.sampled_from([*"abcdefghijklm"])
lengths = st.none() | st.integers(0, 10**7)

observations = st.builds(
    Observation,
    score=st.none() | numbers,
    channels=st.dictionaries(names, st.none() | numbers, max_size=12),
    labels=st.dictionaries(names, st.integers(1, 5), max_size=4),
    flags=st.lists(st.sampled_from(["truncated", "odd"]), unique=True),
    group=st.none() | st.integers(0, 300).map(str),
    source=st.none() | st.sampled_from(["computed", "cache"]),
    invalid=st.booleans(),
    characters=lengths,
    tokens=lengths,
    script=st.none() | st.sampled_from(["latin", "han"]),
    calls=st.none() | st.integers(0, 100),
)


Fields = dict[str, Any]
Telemetry = dict[str, float]
ChangeItem = Callable[[int, Fields, random.Random], None]
ChangeTelemetry = Callable[[int, Telemetry], None]


def keep_item(step: int, fields: Fields, source: random.Random) -> None:
    """Leave the items of a healthy run as they are."""


def keep_telemetry(step: int, telemetry: Telemetry) -> None:
    """Leave the telemetry of a healthy run as it is."""


def run(
    seed: int,
    steps: range = range(0, 200, 5),
    *,
    items: int = 96,
    change_item: ChangeItem = keep_item,
    change_telemetry: ChangeTelemetry = keep_telemetry,
) -> list[Point]:
    """Return a run that learns, with its items and telemetry changed by the given functions."""
    source = random.Random(seed)
    points = []
    for step in steps:
        progress = step / max(1, steps[-1])
        summary = Summary()
        for number in range(items):
            if number % 8 == 0:
                ability = 2 * progress - 0.5 + source.gauss(0, 1.2)
            fields = _item(source, progress, ability)
            fields["group"] = f"{step} {number // 8}"
            change_item(step, fields, source)
            summary.add(Observation(**fields))
        telemetry = _telemetry(source, progress)
        change_telemetry(step, telemetry)
        summary.add_telemetry(telemetry)
        points.append(Point(step, summary))
    return points


def _item(source: random.Random, progress: float, ability: float) -> Fields:
    right = source.random() < 1 / (1 + math.exp(-ability))
    form = source.random() < 0.8 + 0.15 * progress
    shares = (0.3 + 0.25 * progress, 0.5 - 0.15 * progress, 0.2 - 0.1 * progress)
    label = source.choices(("entailment", "neutral", "contradiction"), shares)[0]
    failed = source.random() < 0.002
    characters = source.lognormvariate(math.log(394 + 80 * progress + 20 * right), 0.35)
    return {
        "score": None if failed else 0.85 * right + 0.15 * form,
        "channels": {} if failed else {"outcome": float(right), "form": float(form)},
        "labels": {label: 1},
        "flags": ["truncated"] if source.random() < 0.02 else [],
        "source": "computed",
        "invalid": source.random() < 0.1 - 0.07 * progress,
        "characters": round(characters),
        "script": "latin" if source.random() < 0.99 else "none",
        "calls": source.choices((0, 1, 2, 3), (0.15, 0.35, 0.3, 0.2))[0],
    }


def _telemetry(source: random.Random, progress: float) -> Telemetry:
    return {
        "entropy_nats": 2.4 - 1.4 * progress + source.gauss(0, 0.05),
        "kl": 0.08 * progress + abs(source.gauss(0, 0.002)),
        "response_tokens_mean": 900 + 150 * progress + source.gauss(0, 20),
        "majority_share": 0.45 + 0.3 * progress + source.gauss(0, 0.02),
        "clusters_mean": 4 - 2 * progress + source.gauss(0, 0.1),
    }
