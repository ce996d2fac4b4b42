"""The model card: the description of one model, read from `card.toml`."""

import re
import tomllib
from bisect import bisect_right
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Kind = TypeVar("Kind", bound=BaseModel)
NAME = r"[a-z0-9][a-z0-9._-]{0,63}"
REFERENCE = re.compile(rf"^(?P<name>{NAME})(@(?P<version>[0-9]{{1,6}}))?$")


class CardError(Exception):
    """A card that cannot be used: missing, malformed, or in conflict with the files it names.

    Raised at start and by `assay models verify`; the text names the card and the remedy.
    """


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Weights(_Section):
    """The place of the weights.

    It is a `folder` (beside the card, or `path`), a `package` of an index, `parts` of an archive
    that several `packages` of one version carry, a `hub` repository at a pinned revision, or `none`
    for a family that has none.

    `files` maps each file, relative to the weights' own folder, to its digest; `own_files` does so
    for files in the card's folder, where the weights are elsewhere.
    """

    source: Literal["folder", "package", "parts", "hub", "none"] = "none"
    path: str = ""
    package: str | None = None
    packages: tuple[str, ...] = ()
    version: str | None = None
    hub: str | None = None
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    files: dict[str, Digest] = Field(default_factory=dict)
    own_files: dict[str, Digest] = Field(default_factory=dict)


class Limits(_Section):
    """The longest input in tokens, and the bounds of a batch of this model (padding counted)."""

    max_tokens: Annotated[int, Field(ge=1)] = 512
    max_batch_tokens: Annotated[int, Field(ge=1)] = 16_384
    max_batch_size: Annotated[int, Field(ge=1)] = 64


class Baseline(_Section):
    """The result of a trivial rule on the same data."""

    name: str
    value: FiniteFloat


class Quality(_Section):
    """One measured figure on held-out data, with its 95 % interval and the command to get it.

    A `headline` is shown where a model is introduced in a line or two.
    """

    dataset: str
    metric: str
    value: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    n: int
    baselines: tuple[Baseline, ...] = ()
    note: str = ""
    command: str
    headline: bool = False


class Training(_Section):
    """The recipe, the backbone and the data that the model was trained with."""

    recipe: str
    backbone: str = ""
    data: tuple[str, ...] = ()


class Example(_Section):
    """An input with its expected score: warm-up, self-test and `assay models verify`."""

    item: dict[str, Any]
    score: FiniteFloat
    tolerance: Annotated[float, Field(gt=0)] = 1e-3


class Golden(_Section):
    """Raws that a checkpoint's publisher printed for texts in `file`, which lies with the weights.

    The texts are string constants in the file's Python blocks: `prompt` names the problem, `raws`
    the answers with the number printed for each. Computed when the model is loaded.
    """

    file: str
    prompt: str
    raws: Annotated[dict[str, FiniteFloat], Field(min_length=1)]
    tolerance: Annotated[float, Field(gt=0)]


class Reference(_Section):
    """Scores on a reference set, to compare a run's scores with."""

    n: int
    mean: FiniteFloat
    std: FiniteFloat
    quantiles: dict[str, FiniteFloat]


class Calibration(_Section):
    """The frequency with which the higher of two raws of one prompt is right, by their distance.

    It is measured on `n` held-out pairs and made monotonic (isotonic regression). `margins` rise
    from 0, and `confidence` has one value for each. `command` measures it again.
    """

    margins: Annotated[tuple[FiniteFloat, ...], Field(min_length=1)]
    confidence: tuple[Annotated[float, Field(ge=0.5, le=1.0)], ...]
    dataset: str
    n: int
    command: str

    @model_validator(mode="after")
    def _check_monotonic(self) -> Self:
        rising = all(low < high for low, high in pairwise(self.margins))
        falling = any(low > high for low, high in pairwise(self.confidence))
        if (
            len(self.confidence) != len(self.margins)
            or self.margins[0] != 0
            or not rising
            or falling
        ):
            raise ValueError(
                "as many confidences as margins; margins rise from 0, confidence with them"
            )
        return self

    def confidence_at(self, margin: float) -> float:
        """Return the confidence at a distance of two raws, interpolated linearly."""
        distance = abs(margin)
        after = bisect_right(self.margins, distance)
        if after == len(self.margins):
            return self.confidence[-1]
        low, high = self.margins[after - 1], self.margins[after]
        below, above = self.confidence[after - 1], self.confidence[after]
        return below + (above - below) * (distance - low) / (high - low)


CANARY_TOKENS = 32
"""Room in a call for the row whose number is known."""


class EngineCard(_Section):
    """The inference engine that computes the raws, in the place of weights that are loaded here.

    `urls` run the same model, by the same version of the same software. `model` is the engine's
    name of it. `api_key_file` is the path of a file with the bearer key. A call has at most
    `max_call_items` inputs and `max_call_tokens` tokens; a URL has at most `max_calls` in flight.
    `retries` are tries after the first. A try ends after `timeout_seconds`, or with the deadline.
    `revision` names the weights that the engines serve: give others another one.

    The engine is proven before it is used, and again every `prove_seconds`. It computes in `dtype`,
    which chooses the bound of its numbers, from the card's `bounds` or the default. With `parity`
    they are compared with plain Transformers where the weights are at hand. A row whose number is
    known is sent with each `call`, or only on the `schedule`, as a `canary`.
    """

    protocol: Literal["vllm", "sglang", "tei", "assay"]
    urls: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]
    model: str = ""
    revision: str = ""
    api_key_file: str = ""
    max_call_items: Annotated[int, Field(ge=1)] = 64
    max_call_tokens: Annotated[int, Field(ge=1)] = 16_384
    max_calls: Annotated[int, Field(ge=1, le=1024)] = 4
    retries: Annotated[int, Field(ge=0, le=10)] = 3
    connect_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 60.0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    parity: Literal["auto", "off"] = "auto"
    canary: Literal["call", "schedule"] = "call"
    prove_seconds: Annotated[float, Field(gt=0)] = 300.0

    @property
    def batch_bounds(self) -> tuple[int, int]:
        """The tokens and the inputs of one call, without its canary."""
        if self.canary == "schedule":
            return self.max_call_tokens, self.max_call_items
        return max(1, self.max_call_tokens - CANARY_TOKENS), self.max_call_items - 1

    @model_validator(mode="after")
    def _check_canary(self) -> Self:
        if self.canary == "call" and self.max_call_items < 2:
            raise ValueError('canary = "call" needs room for two rows: raise max_call_items')
        return self

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if self.protocol == "assay" and not re.fullmatch(rf"{NAME}(@[0-9]{{1,6}})?", self.model):
            raise ValueError("`model` names a model of the other Assay, as name or name@version")
        return self

    @field_validator("urls")
    @classmethod
    def _check_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        plain = tuple(url.rstrip("/") for url in urls)
        if len({*plain}) < len(plain):
            raise ValueError("a URL is there twice")
        for url in plain:
            _check_url(url)
        return plain


def _check_url(url: str) -> None:
    """Check the URL of an engine. No error quotes it: a password may be inside.

    Raises:
        ValueError: it cannot be used.
    """
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("a URL is http://host:port or https://host:port, with a path if need be")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "a URL has no user, password, query or fragment: put the key into a file and name it in"
            " `api_key_file`"
        )


class ModelCard(_Section):
    """One served model.

    `resolution` is the difference below which two scores are noise. `bounds` are the maximal
    differences of a raw from plain Transformers in fp32, by dtype, in any batch.
    """

    name: Annotated[str, Field(pattern=rf"^{NAME}$")]
    version: Annotated[int, Field(ge=1, le=999_999)]
    family: str
    title: str = ""
    summary: str = ""
    licence: str = ""
    embedded: bool = False
    limitations: tuple[str, ...] = ()
    comparable: Literal["everywhere", "within_group"] = "within_group"
    weights: Weights = Weights()
    limits: Limits = Limits()
    engine: EngineCard | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    training: Training | None = None
    quality: tuple[Quality, ...] = ()
    example: Example | None = None
    golden: Golden | None = None
    reference: Reference | None = None
    resolution: Annotated[float, Field(ge=0)] = 0.0
    calibration: Calibration | None = None
    bounds: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_calls(self) -> Self:
        if self.engine is not None and self.limits.max_tokens > self.engine.batch_bounds[0]:
            raise ValueError(
                f"a row of limits.max_tokens = {self.limits.max_tokens} and a canary of up to "
                f"{CANARY_TOKENS} tokens do not fit one call: raise engine.max_call_tokens"
            )
        return self

    @property
    def id(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    def options_as(self, kind: type[Kind]) -> Kind:
        """Parse `[options]` as a family reads them.

        Raises:
            CardError: an option is unknown to that family, or its value is invalid.
        """
        try:
            return kind.model_validate(self.options)
        except ValidationError as error:
            raise CardError(f"{self.id}: {_explain(error, 'options')}") from error


def read_card(folder: Path) -> ModelCard:
    """Read the card in `folder`, with its `reference.json` where there is one.

    Raises:
        CardError: the file is missing, or a field is missing or invalid; the text names the field.
    """
    path = folder / "card.toml"
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CardError(f"no readable card at {path}: {error.strerror}") from error
    except RecursionError:
        raise CardError(f"{path} is nested too deeply") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CardError(f"{path} is not valid TOML: {error}") from error
    try:
        card = ModelCard.model_validate(fields)
        statistics = folder / "reference.json"
        if statistics.is_file():
            reference = Reference.model_validate_json(statistics.read_bytes())
            card = card.model_copy(update={"reference": reference})
    except ValidationError as error:
        raise CardError(f"{path}: {_explain(error)}") from error
    return card


def _explain(error: ValidationError, *prefix: str) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in (*prefix, *problem['loc']))}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)
    )
