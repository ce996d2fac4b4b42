"""Small parts for tests: inputs, metrics, and scripted models with the ordinary interface."""

import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from prometheus_client import CollectorRegistry

from assay.metrics import Metrics
from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import ModelCard
from assay_models.items import TextItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles


def new_metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Return the value of a series, 0 if there is none yet."""
    return metrics.registry.get_sample_value(name, labels) or 0.0


def text_input(name: str, tokens: int = 1) -> tuple[bytes, Input]:
    """Return an input whose payload is its name, and its cache key."""
    return name.encode(), Input(name.encode(), tokens, name)


def length_of(inputs: Sequence[Input]) -> list[Raw]:
    """Predict the length of each payload."""
    return [(float(len(row.payload)),) for row in inputs]


def padded(inputs: Sequence[Input]) -> int:
    """Return the tokens of a padded batch."""
    return len(inputs) * max((row.tokens for row in inputs), default=0)


@dataclass
class Gate:
    """A `predict` that waits until the test opens it, so that the device stays busy."""

    predict: Callable[[Sequence[Input]], Sequence[Raw]] = length_of
    entered: threading.Event = field(default_factory=threading.Event)
    open: threading.Event = field(default_factory=threading.Event)
    batches: list[list[str]] = field(default_factory=list)

    def __call__(self, inputs: Sequence[Input]) -> Sequence[Raw]:
        self.batches.append([row.payload for row in inputs])
        self.entered.set()
        assert self.open.wait(30), "the test never opened the gate"
        return self.predict(inputs)


def device_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1)


@dataclass(frozen=True, slots=True)
class ScriptedModel:
    """A model that scores a text by its length, unless the text scripts a failure.

    Of a pair it scores the second text, of a prompt with a response the response. `poison` raises
    in the forward pass, `nan` gives NaN, `unpreparable` raises where no family should, `refused`
    is an ordinary item error, and so is a blank second text of a pair. The score of `ruled` is 0
    by rule.
    """

    fingerprint: str = "sha256:scripted"
    runs: ClassVar[Literal["device"]] = "device"
    sees: ClassVar[Literal["item", "group"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "ScriptedModel":
        if card.options.get("breaks"):
            raise RuntimeError("scripted")
        return cls()

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        (item,) = items
        assert isinstance(item, TextItem)
        text = item.text_pair or item.response or item.text or ""
        is_blank = item.text_pair is not None and not item.text_pair.strip()
        if text == "refused" or is_blank:
            raise ItemError("invalid_item", "scripted")
        if text == "unpreparable":
            raise KeyError(text)
        if text == "ruled":
            return Prepared(())
        return Prepared((Input(text.encode(), max(1, len(text)), text),))

    def cost(self, inputs: Sequence[Input]) -> int:
        return padded(inputs)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        if any("poison" in row.payload for row in inputs):
            raise RuntimeError("scripted")
        return [
            (float("nan") if "nan" in row.payload else float(len(row.payload)),) for row in inputs
        ]

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        if not raws:
            return [Score(0.0, None, channels={"reward": 0.0})]
        ((raw,),) = raws
        return [Score(raw, raw, channels={"reward": raw})]


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """A remote model that scores a text by its length, and fails on a text with `poison`."""

    fingerprint: str = "sha256:remote"
    runs: ClassVar[Literal["remote"]] = "remote"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "RemoteModel":
        return cls()

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        (item,) = items
        assert isinstance(item, TextItem)
        text = item.text or ""
        return Prepared((Input(text.encode(), max(1, len(text)), text),))

    def cost(self, inputs: Sequence[Input]) -> int:
        return padded(inputs)

    def predict(self, inputs: Sequence[Input]) -> Awaitable[Sequence[Raw]]:
        async def compute() -> Sequence[Raw]:
            if any("poison" in row.payload for row in inputs):
                raise ItemError("unreachable", "no reply")
            return length_of(inputs)

        return compute()

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        ((raw,),) = raws
        return [Score(raw, raw, channels={"reward": raw})]


SCRIPTED_CARD = """
name = "scripted"
version = 1
family = "scripted"
calibration = { margins = [0, 2], confidence = [0.5, 0.9], dataset = "none", n = 2, command = "" }
"""
