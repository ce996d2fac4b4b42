"""The interface of all models, and the values that travel between them and the service. No tensors
above this file, no HTTP below it; device models, rules and remote scorers are alike."""

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal, Protocol

from pydantic import ConfigDict, Field, model_validator

from assay_models.bounded import MAX_FIELDS, BoundedObject

Truncation = Literal["error", "left", "right", "middle"]

Raw = tuple[float, ...]
"""The result of `predict` for one input: the model's own fp32 outputs, before any shaping."""
Raws = Sequence["Raw | ItemError"]


class ItemError(Exception):
    """An error of one item; the other items of its batch can be scored.

    Raised by `prepare`, `finish` and, on an input alone, `predict`; in the place of a raw it is an
    input's own. The item gets no number but this code and detail, which must quote no text of it.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code, self.detail = code, detail


class DeviceOutOfMemory(Exception):
    """A lack of device memory during `predict`; a smaller batch may fit."""


class NullIsAbsent(BoundedObject):
    """An object of a request. Null counts as absent, but for fields of the caller's own."""

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: object) -> object:
        if isinstance(data, dict) and len(data) > MAX_FIELDS:
            cls.check_fields(data)
        if not isinstance(data, dict) or None not in data.values():
            return data
        own = data.keys() - cls.model_fields if cls.model_config.get("extra") == "allow" else ()
        return {name: value for name, value in data.items() if value is not None or name in own}


class Item(NullIsAbsent):
    """One thing to score. Each family subclasses this with its own fields (see `items`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = Field(default=None, max_length=256)
    group: str | None = Field(default=None, max_length=256)


@dataclass(frozen=True, slots=True)
class Options:
    """The choices of a request: what happens to an item longer than the model's limit, whether the
    raw is served as the score, unshaped, and `numbers` by names that the family knows."""

    truncation: Truncation = "error"
    raw: bool = False
    numbers: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Input:
    """One row of a forward pass. `key` is the canonical prepared input (token ids or features):
    under one fingerprint, equal keys have equal raws. `tokens` is its true length. Inputs of one
    `prefix_key` (not empty) may begin alike, and cost less in one batch than in two."""

    key: bytes
    tokens: int
    payload: Any
    prefix_key: bytes = b""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One item, ready for `predict`.

    It holds as many inputs as the item needs forward passes (a claim against three chunks: three);
    without any input a rule decides. `state` carries what `finish` needs besides the raws.
    """

    inputs: tuple[Input, ...]
    state: Any = None
    flags: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Score:
    """The result for one item: the score, the raw it came from (None where a rule decided), and the
    named channels whose documented mix the score is."""

    score: float
    raw: float | None
    _: KW_ONLY
    channels: Mapping[str, float]
    flags: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


class RewardModel(Protocol):
    """A scorer.

    `prepare` and `finish` are pure and run on CPU threads; only `predict` computes numbers. A model
    that `runs` on the device is called on its one device thread; a remote one returns an awaitable.
    `prepare` is given one item, or all of a group if the model `sees` groups; `finish` returns a
    score for each. `cost`: tokens that one `predict` computes, padding counted; it never falls as
    inputs are added. `fingerprint`: the digest of all that decides the raws (weights, tokenizer,
    template, parser, dtype, family version).
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def runs(self) -> Literal["device", "remote"]: ...

    @property
    def sees(self) -> Literal["item", "group"]: ...

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared: ...

    def cost(self, inputs: Sequence[Input]) -> int: ...

    def predict(self, inputs: Sequence[Input]) -> Sequence[Raw] | Awaitable[Raws]: ...

    def finish(
        self, prepared: Prepared, raws: Sequence[Raw], options: Options
    ) -> Sequence[Score]: ...
