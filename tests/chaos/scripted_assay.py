"""The `assay` command with one more family, whose model does what its texts say. A program of its
own, for tests that need a real process.
"""

import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

from assay.cli import app
from assay_models.base import Input, Item, Options, Prepared, Raw, Score
from assay_models.card import ModelCard
from assay_models.items import TextItem
from assay_models.registry import FAMILIES, Family, Runtime
from assay_models.repository import ModelFiles


class ObedientModel:
    """Scores a text by its checksum, after it has obeyed it.

    `wait PATH` waits at a FIFO until somebody comes and goes, `hang` for ever, `fail` raises,
    `unpriced` has no cost, and `take device` takes the device's thread away. A card with the option
    `wait` waits there while it loads.
    """

    fingerprint = "sha256:obedient"
    runs: ClassVar[Literal["device"]] = "device"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "ObedientModel":
        if "wait" in card.options:
            Path(card.options["wait"]).read_bytes()
        return cls()

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        (item,) = items
        assert isinstance(item, TextItem)
        text = item.text or ""
        if text == "take device":
            take_devices()
        return Prepared((Input(text.encode(), max(1, len(text)), text),))

    def cost(self, inputs: Sequence[Input]) -> int:
        if any(one.payload == "unpriced" for one in inputs):
            raise RuntimeError("as told")
        return len(inputs) * max((one.tokens for one in inputs), default=0)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        for one in inputs:
            obey(one.payload)
        return [(zlib.crc32(one.payload.encode()) / 2**16,) for one in inputs]

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        ((raw,),) = raws
        return [Score(raw, raw, {"reward": raw})]


def obey(text: str) -> None:
    order, _, argument = text.partition(" ")
    if order == "wait":
        Path(argument).read_bytes()
    elif order == "hang":
        threading.Event().wait()
    elif order == "fail":
        raise RuntimeError("as told")


def take_devices() -> None:
    """Shut every device's executor down under its batcher."""
    for thread in threading.enumerate():
        if thread.name.startswith("device"):
            executor, *_ = vars(thread)["_args"]
            executor().shutdown(wait=False)


if __name__ == "__main__":
    FAMILIES["obedient"] = Family(
        "scripted_assay", "ObedientModel", TextItem, "text", {"text": "probe"}
    )
    app()
