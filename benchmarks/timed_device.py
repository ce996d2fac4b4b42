"""A family whose device takes a stated time for each forward pass, and a server of it.

It stands for a GPU: the pass takes no processor time, so that everything else of the server can be
compared with a simulation on any machine.

    python -m benchmarks.timed_device PORT FOLDER
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from assay.cli import app
from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import ModelCard
from assay_models.items import TextItem
from assay_models.registry import FAMILIES, Family, Runtime
from assay_models.repository import ModelFiles
from benchmarks.routing_trace import Arrival, shared_prefix_cost

MODEL = "timed"
CARD = """name = "timed"
version = 1
family = "timed"
options = {{ speed = {speed}, overhead = {overhead} }}

[limits]
max_batch_tokens = {tokens}
max_batch_size = {size}
"""


@dataclass(frozen=True, slots=True)
class TimedModel:
    """A model whose forward pass sleeps: `overhead` seconds, and one for each `speed` tokens."""

    speed: float
    overhead: float
    fingerprint: str = "sha256:timed"
    runs: ClassVar[Literal["device"]] = "device"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "TimedModel":
        """Read the times from the card."""
        return cls(float(str(card.options["speed"])), float(str(card.options["overhead"])))

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Read the numbers that `item_of` wrote."""
        (item,) = items
        if not isinstance(item, TextItem) or item.text is None:
            raise ItemError("invalid_item", "give `text`")
        prompt, text, prompt_tokens, tokens = map(int, item.text.split())
        return Prepared((Arrival(0.0, prompt, text, prompt_tokens, tokens).to_input(),))

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the tokens of a forward pass."""
        return shared_prefix_cost(inputs)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        """Return the tokens of each input after the time that all of them take."""
        time.sleep(self.overhead + self.cost(inputs) / self.speed)
        return [(float(row.tokens),) for row in inputs]

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Return the raw as the score."""
        ((raw,),) = raws
        return [Score(raw, raw, channels={"reward": raw})]


def item_of(arrival: Arrival) -> dict[str, str]:
    """Return the item of a request."""
    numbers = (arrival.prompt, arrival.text, arrival.prompt_tokens, arrival.tokens)
    return {"text": " ".join(map(str, numbers))}


def write_card(folder: Path, *, speed: float, overhead: float, tokens: int, size: int) -> None:
    """Write the card of a device into a repository's folder."""
    place = folder / MODEL / "1"
    place.mkdir(parents=True)
    text = CARD.format(speed=speed, overhead=overhead, tokens=tokens, size=size)
    (place / "card.toml").write_text(text)


def main() -> None:
    """Serve the model; the environment has the settings."""
    probe = item_of(Arrival(0.0, 0, 0, 1, 2))
    FAMILIES[MODEL] = Family(
        "benchmarks.timed_device", "TimedModel", item=TextItem, candidate="text", probe=probe
    )
    app(["serve", "--port", sys.argv[1]])


if __name__ == "__main__":
    main()
