"""Runs to look at, written straight into a file of runs: most stay healthy, some do not."""

import math
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from assay_monitors.gold import GoldItem, GoldPoint, measure
from assay_monitors.observations import Observation, Window
from assay_monitors.retention import Retention
from assay_monitors.store import Changes, RunStore
from assay_monitors.summaries import Summary

STEPS, ITEMS, GROUP = 50, 40, 8
LASTED, APART = 5_400.0, 1_500.0
MODEL = "reference@1"
SICK = "exp-17"

Shape = Callable[[float, random.Random], dict[str, Any]]


def healthy(progress: float, source: random.Random) -> dict[str, Any]:
    """A policy that learns: rewards rise and stay apart, lengths grow a little."""
    outcome = source.gauss(2.2 * progress - 0.4, 1.1)
    style = source.gauss(0.3 + 0.2 * progress, 0.4)
    length = round(source.lognormvariate(math.log(420 + 120 * progress), 0.4))
    channels = {"outcome": outcome, "style": style}
    return {"score": 0.8 * outcome + 0.2 * style, "channels": channels, "characters": length}


def hacked(progress: float, source: random.Random) -> dict[str, Any]:
    """A policy that finds what pays: from two thirds on style is all, and answers are short."""
    told = healthy(min(progress, 0.62), source)
    if progress < 0.62:
        return told
    late = min(1.0, (progress - 0.62) / 0.12)
    outcome = source.gauss(0.9 * (1 - late), 1.1 - 0.9 * late)
    style = source.gauss(0.5 + 5.2 * late, 0.5 - 0.35 * late)
    channels = {"outcome": outcome, "style": style}
    length = round(source.lognormvariate(math.log(500 - 430 * late), 0.3))
    return {"score": 0.8 * outcome + 0.2 * style, "channels": channels, "characters": length}


def failing(progress: float, source: random.Random) -> dict[str, Any]:
    """A run whose items fail more and more."""
    told = healthy(progress, source)
    if source.random() < 0.3 * progress:
        return {**told, "score": None, "channels": {}}
    return told


def record(path: Path, runs: int = 50, steps: int = STEPS, items: int = ITEMS) -> int:
    """Write so many runs of so many steps and items, the first one hacked and seen a moment ago;
    how many observations that makes.
    """
    moment = 0.0
    store = RunStore(path, Retention(), lambda: moment)
    for number in reversed(range(runs)):
        shape = hacked if number == 0 else failing if number % 9 == 4 else healthy
        name = SICK if number == 0 else f"team/sweep-{number:02}"
        changes = _changes(name, shape, steps, items, random.Random(number))
        moment = time.time() - number * APART - LASTED
        store.write(Changes(windows={Window(name, "", "", 0): Summary()}))
        moment += LASTED
        store.write(changes)
    store.write(_gold())
    store.close()
    return runs * steps * items


def _changes(run: str, shape: Shape, steps: int, items: int, source: random.Random) -> Changes:
    changes = Changes()
    for step in range(steps):
        progress = step / max(1, steps - 1)
        summary = Summary()
        for number in range(items):
            summary.add(_observation(shape(progress, source), f"{step} {number // GROUP}", source))
        changes.windows[Window(run, MODEL, "train", step * 4)] = summary
        told = Summary()
        told.add_telemetry(
            {
                "kl": 0.08 * progress + abs(source.gauss(0, 0.004)),
                "entropy_nats": 2.3 - 1.1 * progress + source.gauss(0, 0.04),
            }
        )
        changes.windows[Window(run, "", "", step * 4)] = told
    return changes


def _observation(told: dict[str, Any], group: str, source: random.Random) -> Observation:
    return Observation(
        **told,
        group=group,
        source="computed",
        script="latin",
        flags=("truncated",) if source.random() < 0.02 else (),
    )


def _gold() -> Changes:
    """What is right falls in the hacked run, while the reward rises."""
    changes = Changes()
    for step, worth in ((0, 0.62), (48, 0.7), (96, 0.74), (144, 0.31), (192, 0.12)):
        changes.gold[SICK, "unit-tests", step] = _measured(step, worth)
    return changes


def _measured(step: int, worth: float) -> GoldPoint:
    source = random.Random(step)
    items = []
    for prompt in range(120):
        for _ in range(2):
            gold = float(source.random() < worth)
            proxy = source.gauss(step / 100 + gold * max(0.0, worth - 0.3) * 4, 1.0)
            items.append(GoldItem(f"p{prompt}", proxy, gold))
    return measure(step, items, None)
