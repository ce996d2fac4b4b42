"""The fields of an item, one class for each kind of input; the registry assigns them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationInfo,
    field_validator,
)

from assay_models.base import Item

Text = Annotated[str, Field(max_length=4_000_000)]
Count = Annotated[int, Field(strict=True, ge=0, le=2**31)]


class ResponseItem(Item):
    """An item with a policy's response, and counts that only its trainer knows.

    `calls` are those of tools or searches in the response, and `response_tokens` is its length by
    the policy's own tokenizer. Both are for the rules that monitor a run; no family reads them, and
    no score depends on them.
    """

    calls: Count | None = None
    response_tokens: Count | None = None


class Message(BaseModel):
    """One message of a conversation, as chat templates take it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: Text


Messages = Annotated[tuple[Message, ...], Field(min_length=1, max_length=1024)]
Prompt = Text | Messages


class TextItem(ResponseItem):
    """A conversation or a text for a scalar model: `prompt` and `response`, or `messages`, or
    `text` (with `text_pair`)."""

    prompt: Prompt | None = None
    response: Text | None = None
    messages: Messages | None = None
    text: Text | None = None
    text_pair: Text | None = None


class CodeItem(ResponseItem):
    """A problem and the answer that a policy wrote for it."""

    prompt: Prompt
    response: Text
    language: Annotated[str, Field(max_length=64)] | None = None


class InputOutput(BaseModel):
    """The standard input of a program, and the standard output that it has to print for it.

    Data sets that call them `input` and `output` are read as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stdin: Text = Field(validation_alias=AliasChoices("stdin", "input"))
    stdout: Text = Field(validation_alias=AliasChoices("stdout", "output"))


class CodeExecItem(ResponseItem):
    """The answer that a policy wrote, and what its program has to pass: `tests`, `io` or both.

    `tests` is a list of Python snippets, each one test, or one text, which is one test as a whole.
    Each pair of `io` is a test as well. `prompt` is read only to find the program among several
    blocks.
    """

    response: Text
    io: Annotated[tuple[InputOutput, ...], Field(min_length=1, max_length=1024)] | None = None
    tests: Text | Annotated[tuple[Text, ...], Field(min_length=1, max_length=1024)] | None = Field(
        default=None, validate_default=True
    )
    prompt: Prompt | None = None
    language: Annotated[str, Field(max_length=64)] | None = None

    @field_validator("tests")
    @classmethod
    def _check_tests(cls, tests: object, info: ValidationInfo) -> object:
        if tests is None and info.data.get("io") is None:
            raise ValueError("give `tests`, or `io` (pairs of stdin and stdout)")
        return tests


Embedding = Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=8192)]


class RetrievedResult(BaseModel):
    """One entry of a retrieved list, best first."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: FiniteFloat
    embedding: Embedding | None = None


class VideoQppItem(Item):
    """A text query, the collection that is searched and the retrieval system that will answer it.

    `original` is the query that this one rewrites: it adds channels and leaves the score as it is.
    """

    query: Text
    original: Text | None = None
    collection: Literal["msrvtt", "vatex", "coco"] | None = None
    system: Literal["gram", "vast"] | None = None
    results: Annotated[tuple[RetrievedResult, ...], Field(max_length=1000)] | None = None


class RetrievalQppItem(Item):
    """A text query and the list that a retrieval system returned for it, best first.

    `corpus_score` is the score of the whole corpus as one document, in the unit of the results'
    scores; `depth` is the number of results that count, where it is not the card's number.
    """

    query: Text
    results: Annotated[tuple[RetrievedResult, ...], Field(max_length=1000)]
    query_embedding: Embedding | None = None
    corpus_score: FiniteFloat | None = None
    depth: Annotated[int, Field(strict=True, ge=1, le=1000)] | None = None


Label = Literal["entailment", "neutral", "contradiction", "not_entailment"]
LABELS: tuple[Label, ...] = ("entailment", "neutral", "contradiction")


class NliItem(ResponseItem):
    """A pair (`premise`, `hypothesis`), or `evidence` with `claims` or a `response` made on it.

    `searched` says whether the policy searched for evidence at all; it decides no number.
    """

    premise: Text | None = None
    hypothesis: Text | None = None
    evidence: Text | Annotated[tuple[Text, ...], Field(max_length=1024)] | None = None
    response: Text | None = None
    claims: Annotated[tuple[Text, ...], Field(max_length=1024)] | None = None
    searched: Annotated[bool, Field(strict=True)] | None = None


_REFUSED: Mapping[type[BaseModel], frozenset[str]] = {VideoQppItem: frozenset({"results"})}
"""Fields of a class that its family refuses, with an explanation."""


def read_fields(schema: type[BaseModel]) -> list[str]:
    """Return the fields of a class of items, without those that its family refuses."""
    refused = _REFUSED.get(schema, frozenset())
    return [name for name in schema.model_fields if name not in refused]


def fields_hint(schema: type[BaseModel], locations: Sequence[tuple[int | str, ...]]) -> str:
    """Return the fields at the level of an item's first problem.

    Args:
        schema: the class of the item.
        locations: the places of all problems of the item, as Pydantic names them. A field of
            several types has problems of each type; the innermost one counts.
    """
    field = locations[0][0]
    innermost = max((place for place in locations if place[0] == field), key=len)
    if any(isinstance(part, int) for part in innermost):
        nested = _nested_class(schema.model_fields[str(field)].annotation)
        if nested is not None:
            return f"fields of an entry of `{field}`: {', '.join(read_fields(nested))}"
    return f"fields of an item of this model: {', '.join(read_fields(schema))}"


def _nested_class(annotation: object) -> type[BaseModel] | None:
    """Return the class of objects in a type such as `tuple[Message, ...] | None`."""
    if isinstance(annotation, type(BaseModel)):
        return annotation
    return next(filter(None, map(_nested_class, get_args(annotation))), None)
