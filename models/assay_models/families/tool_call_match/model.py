"""Tool calls by rule: names, keys and values, as in the runs of GDPO (arXiv 2601.05242)."""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from assay_models.base import Input, Item, Options, Prepared, Raw, Raws, Score
from assay_models.card import ModelCard
from assay_models.families.tool_call_match.matching import Match, calls_of, match_calls
from assay_models.items import ToolCallMatchItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of

VERSION = 1


class ToolCallMatchOptions(BaseModel):
    """`[options]` of a card of this family: there are none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class ToolCallMatchModel:
    """A rule that compares calls.

    The score is `6 * share - 3`, from -3 to 3; the share is (names + keys + values) over what they
    can be: 1, the number of reference calls, and that of their arguments. Channels: `names`, the
    mean of `keys` over the reference's calls, and the share of `values`. With `options.raw` the
    score is the share.
    """

    fingerprint: str
    runs: ClassVar[Literal["remote"]] = "remote"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "ToolCallMatchModel":
        """Return the model.

        Raises:
            CardError: the card has an option.
        """
        card.options_as(ToolCallMatchOptions)
        return cls(fingerprint_of({"family": card.family, "version": VERSION}))

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Match the calls; there is no input."""
        (item,) = items
        assert isinstance(item, ToolCallMatchItem)
        return Prepared((), match_calls(calls_of(item.predicted), calls_of(item.gold)))

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return 0: there are no inputs."""
        return 0

    def predict(self, inputs: Sequence[Input]) -> Awaitable[Raws]:
        """Raise: there are no inputs."""
        raise AssertionError("a rule has no inputs")

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Return the score and its channels."""
        match: Match = prepared.state
        channels = {
            "names": match.names,
            "keys": match.keys / match.calls if match.calls else match.names,
            "values": match.values / match.arguments if match.arguments else match.names,
        }
        share = match.share
        return [Score(share if options.raw else 6 * share - 3, None, channels=channels)]
