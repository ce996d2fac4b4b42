"""The wire types of the native routes. They validate structure and contain no logic."""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    GetJsonSchemaHandler,
    TypeAdapter,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from assay.runs.names import MAX_NAME_LENGTH, check_run_name
from assay_models.base import NullIsAbsent, Truncation
from assay_models.card import (
    Calibration,
    Example,
    Golden,
    Limits,
    Quality,
    Reference,
    Training,
    Weights,
)
from assay_models.items import (
    CodeExecItem,
    CodeItem,
    GradeAnswerItem,
    GroupVoteItem,
    NliItem,
    RetrievalQppItem,
    TextItem,
    ToolCallMatchItem,
    VideoQppItem,
)
from assay_monitors.observations import SHADOW_SPLIT

ItemName = Annotated[str, Field(min_length=1, max_length=128)]
# On another server's route: a client may send a checkpoint's path.
ModelName = Annotated[str, Field(max_length=4096)]
RunName = Annotated[
    str, Field(min_length=1, max_length=MAX_NAME_LENGTH), AfterValidator(check_run_name)
]
RunStepNumber = Annotated[int, Field(ge=0, le=2**53)]


def _refuse_other_types(value: object) -> object:
    """Return a step of a body, where `true` and `"3"` are no numbers."""
    if isinstance(value, bool | str):
        raise ValueError("a step is a whole number")
    return value


BodyStep = Annotated[RunStepNumber, BeforeValidator(_refuse_other_types)]


def _refuse_shadow_split(split: str) -> str:
    if split.startswith(SHADOW_SPLIT):
        raise ValueError(f"splits that begin with {SHADOW_SPLIT} are those of shadows")
    return split


RunSplit = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_refuse_shadow_split)]

Accepted = Any
"""A field of other servers' clients on which no number here depends, with any value."""


class ItemList:
    """The mark of a field whose list has an entry for each item of the request.

    Its length is checked before the body is validated.
    """


class _AnyItem:
    """The schema of an item: one of the families' item types. The model's family validates it."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        shapes = TypeAdapter(
            CodeItem
            | CodeExecItem
            | GradeAnswerItem
            | GroupVoteItem
            | ToolCallMatchItem
            | VideoQppItem
            | RetrievalQppItem
            | NliItem
            | TextItem
        )
        return handler(shapes.core_schema)


ItemFields = Annotated[dict[str, Any], _AnyItem]


class Body(NullIsAbsent):
    """The body of a request, or an object in it. Null is absent; unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class EngineBody(Body):
    """A body of another server's engine route, with fields for tracing and scheduling.

    A class lists the fields that its clients send: those that change no number accept any value,
    and those that would change one only the value that asks for nothing.
    """

    user: Accepted = None
    request_id: Accepted = None
    rid: Accepted = None
    metadata: Accepted = None
    priority: Accepted = None
    cache_salt: Accepted = None


class Substitute(Body):
    """The score served for an item that failed; the item is flagged `substituted`."""

    substitute: FiniteFloat


Weight = Annotated[FiniteFloat, Field(ge=-100, le=100)]


class PhiWeights(Body):
    """The weight of each label in phi, times the claim's confidence (family `nli`)."""

    entailment: Weight | None = None
    neutral: Weight | None = None
    contradiction: Weight | None = None
    not_entailment: Weight | None = None


class OptionsBody(Body):
    """The options of a request's scores.

    `weights` and `min_confidence` apply to models of the family `nli`, and `group_size`, the
    answers of a whole group, to `group_vote`; others reject them.
    """

    truncation: Truncation = "error"
    raw: bool = False
    on_error: Substitute | None = None
    weights: PhiWeights | None = None
    min_confidence: Annotated[FiniteFloat, Field(ge=0, le=1)] | None = None
    group_size: Annotated[int, Field(ge=2, le=4096)] | None = None


class RunBody(Body):
    """The training run and its step, for run health. They never affect the score.

    Items without a step are recorded under the last step that the run named, or by the minute.
    """

    id: RunName
    step: BodyStep | None = None
    split: RunSplit | None = None


class ModelScoreBody(Body):
    """Items to score with the model in the path."""

    items: Annotated[list[ItemFields], Field(min_length=1), ItemList()]
    options: OptionsBody = OptionsBody()
    run: RunBody | None = None


class ScoreBody(ModelScoreBody):
    """Items and the model to score them with: `name@version`, or `name` (default version)."""

    model: ItemName


class BestOfNBody(NullIsAbsent):
    """Candidates of one prompt. Any additional field is shared by all candidates' items."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, Any]

    model: ItemName
    candidates: Annotated[list[str | dict[str, Any]], Field(min_length=1), ItemList()]
    top_n: Annotated[int, Field(ge=1)] | None = None
    tie_margin: Annotated[FiniteFloat, Field(ge=0)] | None = None
    abstain_below: FiniteFloat | None = None
    min_confidence: Annotated[FiniteFloat, Field(ge=0.5, le=1)] | None = None
    options: OptionsBody = OptionsBody()
    run: RunBody | None = None


class OpenAIModel(BaseModel):
    """One served model as OpenAI's API lists it. `created` is when its card was written here, in
    seconds since 1970.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: Literal["assay"] = "assay"


class Shadow(BaseModel):
    """A shadow's scores beside those that were served, since it was loaded.

    Of its items, `compared` have a score from both models and `failed` only from the other one;
    `dropped` were not scored, because it could not keep up. `pair_agreement` is the share of pairs
    of items of one group that both models order alike, without those that either model ties.
    """

    compared: int
    failed: int
    dropped: int
    mean_absolute_difference: float | None
    pair_agreement: float | None


class LoadBody(Body):
    """A model of the repository to load, `name@version` or `name` (its highest version).

    `shadow_of` is a served model whose items it scores too. `default`: its bare name refers to it
    once it is ready.
    """

    model: ItemName
    shadow_of: ItemName | None = None
    default: bool = False


ModelState = Literal["loading", "ready", "not_proven", "failed", "unloading", "unloaded"]


class ModelSummary(OpenAIModel):
    """One served model. `default` is true if its bare name refers to this version.

    `not_proven`: it is loaded, and its engine's numbers are refused. `failure` is the reason for
    that, or for `failed`. `shadow_of` is the model whose items it scores too, and `shadow` the
    result of that.
    """

    name: str
    version: int
    default: bool
    family: str
    title: str
    summary: str
    state: ModelState
    failure: str | None
    shadow_of: str | None = None
    shadow: Shadow | None = None


class ModelList(BaseModel):
    """All served models, under `models`; `data` lists them as OpenAI's API does."""

    object: Literal["list"] = "list"
    data: list[OpenAIModel]
    models: list[ModelSummary]


class Parity(BaseModel):
    """The card's example: the score the card states, and the one computed after loading."""

    expected: float
    got: float
    tolerance: float
    passed: bool


class ModelDetail(ModelSummary):
    """One served model with its whole card.

    `fingerprint` is that of the default options, and null while the model is not loaded. `parity`
    is null if the card has no example.
    """

    fingerprint: str | None
    parity: Parity | None
    licence: str
    embedded: bool
    limitations: list[str]
    comparable: Literal["everywhere", "within_group"]
    weights: Weights
    limits: Limits
    options: dict[str, Any]
    training: Training | None
    quality: list[Quality]
    example: Example | None
    golden: Golden | None
    reference: Reference | None
    resolution: float
    calibration: Calibration | None
    bounds: dict[str, float]


class Readiness(BaseModel):
    """The state of each model: `ready`, or the reason why it is not; and that of Redis.

    `redis` is `working`, `connecting`, or `failing` and the reason; null if none is set.
    """

    ready: bool
    shutting_down: bool
    models: dict[str, str]
    redis: str | None
