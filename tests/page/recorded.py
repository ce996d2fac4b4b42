"""Example runs, written directly into a file of runs: most are healthy, some are not."""

import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from assay_monitors.changes import Changes
from assay_monitors.gold import GoldItem, GoldPoint, measure
from assay_monitors.observations import Observation, Window
from assay_monitors.retention import Retention
from assay_monitors.store import RunStore
from assay_monitors.summaries import Summary

STEPS, ITEMS, GROUP = 50, 40, 8
DURATION_SECONDS, INTERVAL_SECONDS = 5_400.0, 1_500.0
MODEL = "reference@1"
HACKED_RUN = "exp-17"

MakeItem = Callable[[float, random.Random], dict[str, Any]]


def healthy(progress: float, source: random.Random) -> dict[str, Any]:
    """Return an item of a policy that learns: rewards rise and vary, lengths grow a little."""
    outcome = source.gauss(2.2 * progress - 0.4, 1.1)
    style = source.gauss(0.3 + 0.2 * progress, 0.4)
    length = round(source.lognormvariate(math.log(420 + 120 * progress), 0.4))
    channels = {"outcome": outcome, "style": style}
    return {"score": 0.8 * outcome + 0.2 * style, "channels": channels, "characters": length}


def hacked(progress: float, source: random.Random) -> dict[str, Any]:
    """Return an item of a policy that is hacked at two thirds: style pays, answers are short."""
    item = healthy(min(progress, 0.62), source)
    if progress < 0.62:
        return item
    late = min(1.0, (progress - 0.62) / 0.12)
    outcome = source.gauss(0.9 * (1 - late), 1.1 - 0.9 * late)
    style = source.gauss(0.5 + 5.2 * late, 0.5 - 0.35 * late)
    channels = {"outcome": outcome, "style": style}
    length = round(source.lognormvariate(math.log(500 - 430 * late), 0.3))
    return {"score": 0.8 * outcome + 0.2 * style, "channels": channels, "characters": length}


def failing(progress: float, source: random.Random) -> dict[str, Any]:
    """Return an item of a run whose items fail more and more."""
    item = healthy(progress, source)
    if source.random() < 0.3 * progress:
        return {**item, "score": None, "channels": {}}
    return item


def record(path: Path, runs: int = 50, steps: int = STEPS, items: int = ITEMS) -> int:
    """Write runs, the first of them hacked and seen a moment ago.

    Returns:
        The number of observations.
    """
    now = 0.0
    store = RunStore(path, Retention(), lambda: now)
    for number in reversed(range(runs)):
        make_item = hacked if number == 0 else failing if number % 9 == 4 else healthy
        name = HACKED_RUN if number == 0 else f"team/sweep-{number:02}"
        changes = _changes(name, make_item, steps=steps, items=items, source=random.Random(number))
        now = time.time() - number * INTERVAL_SECONDS - DURATION_SECONDS
        store.write(Changes(windows={Window(name, "", "", 0): Summary()}))
        now += DURATION_SECONDS
        store.write(changes)
    store.write(_gold())
    store.close()
    return runs * steps * items


def _changes(
    run: str, make_item: MakeItem, *, steps: int, items: int, source: random.Random
) -> Changes:
    changes = Changes()
    for step in range(steps):
        progress = step / max(1, steps - 1)
        summary = Summary()
        for number in range(items):
            summary.add(
                _observation(make_item(progress, source), f"{step} {number // GROUP}", source)
            )
        changes.windows[Window(run, MODEL, "train", step * 4)] = summary
        telemetry = Summary()
        telemetry.add_telemetry(
            {
                "kl": 0.08 * progress + abs(source.gauss(0, 0.004)),
                "entropy_nats": 2.3 - 1.1 * progress + source.gauss(0, 0.04),
            }
        )
        changes.windows[Window(run, "", "", step * 4)] = telemetry
    return changes


def _observation(item: dict[str, Any], group: str, source: random.Random) -> Observation:
    return Observation(
        **item,
        group=group,
        source="computed",
        script="latin",
        flags=("truncated",) if source.random() < 0.02 else (),
    )


def _gold() -> Changes:
    """Return gold that falls in the hacked run while the reward rises."""
    changes = Changes()
    for step, accuracy in ((0, 0.62), (48, 0.7), (96, 0.74), (144, 0.31), (192, 0.12)):
        changes.gold[HACKED_RUN, "unit-tests", step] = _gold_point(step, accuracy)
    return changes


def _gold_point(step: int, accuracy: float) -> GoldPoint:
    source = random.Random(step)
    items = []
    for prompt in range(120):
        for _ in range(2):
            gold = float(source.random() < accuracy)
            proxy = source.gauss(step / 100 + gold * max(0.0, accuracy - 0.3) * 4, 1.0)
            items.append(GoldItem(f"p{prompt}", proxy, gold))
    return measure(step, items, None)
