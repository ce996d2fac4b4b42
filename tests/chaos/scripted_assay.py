"""The `assay` command with one more family, whose model executes the commands in its texts.

It is a program of its own, for tests that need a real process.
"""

import importlib
import threading
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal

from assay import served_model
from assay.cli import app
from assay_models.base import Input, Item, Options, Prepared, Raw, Score
from assay_models.card import ModelCard
from assay_models.items import TextItem
from assay_models.registry import FAMILIES, Family, Runtime
from assay_models.repository import ModelFiles


class DeviceExecutor(ThreadPoolExecutor):
    """The device executor of a served model, which tests can shut down under its batcher."""

    created: ClassVar[list[ThreadPoolExecutor]] = []

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.created.append(self)


class CommandModel:
    """Executes the command that a text is, if it is one, and scores the text by its checksum.

    `wait PATH` waits until the FIFO at the path is closed, `hang` waits for ever, `fail` raises,
    `unpriced` has no cost, and `shut down device` ends the device's thread. A card with the option
    `wait` waits for that FIFO while it loads.
    """

    fingerprint = "sha256:command"
    runs: ClassVar[Literal["device"]] = "device"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "CommandModel":
        if "wait" in card.options:
            Path(card.options["wait"]).read_bytes()
        return cls()

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        (item,) = items
        assert isinstance(item, TextItem)
        text = item.text or ""
        if text == "shut down device":
            for executor in DeviceExecutor.created:
                executor.shutdown(wait=False)
        return Prepared((Input(text.encode(), max(1, len(text)), text),))

    def cost(self, inputs: Sequence[Input]) -> int:
        if any(row.payload == "unpriced" for row in inputs):
            raise RuntimeError("as commanded")
        return len(inputs) * max((row.tokens for row in inputs), default=0)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        for row in inputs:
            execute(row.payload)
        return [(zlib.crc32(row.payload.encode()) / 2**16,) for row in inputs]

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        ((raw,),) = raws
        return [Score(raw, raw, channels={"reward": raw})]


def execute(text: str) -> None:
    command, _, argument = text.partition(" ")
    if command == "wait":
        Path(argument).read_bytes()
    elif command == "hang":
        threading.Event().wait()
    elif command == "fail":
        raise RuntimeError("as commanded")


def main() -> None:
    served_model.ThreadPoolExecutor = DeviceExecutor  # type: ignore[attr-defined]
    FAMILIES["command"] = Family(
        "scripted_assay", "CommandModel", item=TextItem, candidate="text", probe={"text": "probe"}
    )
    app()


if __name__ == "__main__":
    # The family imports this file by its name: the executors must be recorded in that module.
    importlib.import_module("scripted_assay").main()
