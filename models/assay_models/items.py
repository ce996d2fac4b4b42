"""The fields of an item, one class for each kind of input; the registry assigns them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    JsonValue,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from assay_models.base import Item, ItemError, NullIsAbsent

UNSCORABLE_MESSAGE = "unscorable_message"
"""The type of Pydantic's error for a message that no text stands for: its own item fails alone."""

MAX_MESSAGES = 1024
"""Messages of one conversation."""

MAX_ARGUMENTS_LENGTH = 2**20
"""Characters of a tool call's arguments, which are JSON in a text: parsing them takes no slices."""

Text = Annotated[str, Field(max_length=4_000_000)]
Answer = Annotated[str, Field(max_length=100_000)]
Count = Annotated[int, Field(strict=True, ge=0, le=2**31)]


class ResponseItem(Item):
    """An item with a policy's response, and counts that only its trainer knows.

    `calls` are those of tools or searches in the response, and `response_tokens` is its length by
    the policy's own tokenizer. Both are for the rules that monitor a run; no family reads them, and
    no score depends on them.
    """

    calls: Count | None = None
    response_tokens: Count | None = None


class Message(NullIsAbsent):
    """One message of a conversation, as chat templates take it.

    `content` may be sent as parts of type text, which are joined. It may be null or absent beside
    `tool_calls`. Their `arguments`, which OpenAI's format writes as text, become the object that
    chat templates expect.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Annotated[str, Field(min_length=1, max_length=64)]
    content: Text | None = None
    name: Text | None = None
    reasoning_content: Text | None = None
    tool_call_id: Text | None = None
    tool_calls: Annotated[tuple[dict[str, JsonValue], ...], Field(max_length=1024)] | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _join_parts(cls, content: object) -> object:
        if not isinstance(content, list):
            return content
        text = join_text_parts(content)
        if text is None:
            raise PydanticCustomError(
                UNSCORABLE_MESSAGE, "only text can be scored: send content as a string"
            )
        return text

    @model_validator(mode="after")
    def _check_content(self) -> "Message":
        if self.content is None and not self.tool_calls:
            raise PydanticCustomError(
                UNSCORABLE_MESSAGE, "a message has neither content nor tool calls"
            )
        return self

    @cached_property
    def _parsed_calls(self) -> tuple[dict[str, JsonValue], ...]:
        """The tool calls as templates read them, parsed on the threads that prepare items."""
        return tuple(map(_with_parsed_arguments, self.tool_calls or ()))

    def template_fields(self) -> dict[str, Any]:
        """Return the fields that a chat template reads; beside tool calls `content` may be None.

        Raises:
            ItemError: the arguments of a tool call are too long to be parsed.
        """
        fields = {name: value for name, value in self if value is not None}
        if self.tool_calls is not None:
            fields["tool_calls"] = self._parsed_calls
        return fields if "content" in fields else {**fields, "content": None}

    def texts(self) -> Iterator[str]:
        """Yield every text that a chat template may write."""
        for value in self.template_fields().values():
            yield from strings(value)


Messages = Annotated[tuple[Message, ...], Field(min_length=1, max_length=MAX_MESSAGES)]
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


class InputOutput(NullIsAbsent):
    """The standard input of a program, and the standard output that it has to print for it.

    Data sets that call them `input` and `output` are read as well.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stdin: Text = Field(validation_alias=AliasChoices("stdin", "input"))
    stdout: Text = Field(validation_alias=AliasChoices("stdout", "output"))


class CodeExecItem(ResponseItem):
    """The answer that a policy wrote, and what its program has to pass: `tests`, `io` or both.

    `tests` is a list of Python snippets, each one test, or one text, which is one test as a whole.
    Each pair of `io` is a test as well. `entry_point` is the function that a test's `check` gets;
    by default the one that the prompt asks for. `prompt` is read only for that, and to find the
    program among several blocks.
    """

    response: Text
    io: Annotated[tuple[InputOutput, ...], Field(min_length=1, max_length=1024)] | None = None
    tests: Text | Annotated[tuple[Text, ...], Field(min_length=1, max_length=1024)] | None = Field(
        default=None, validate_default=True
    )
    entry_point: Annotated[str, Field(max_length=256, pattern=r"^[^\W\d]\w*$")] | None = None
    prompt: Prompt | None = None
    language: Annotated[str, Field(max_length=64)] | None = None

    @field_validator("tests")
    @classmethod
    def _check_tests(cls, tests: object, info: ValidationInfo) -> object:
        if tests is None and info.data.get("io") is None:
            raise ValueError("give `tests`, or `io` (pairs of stdin and stdout)")
        return tests


class AnswerCandidates(NullIsAbsent):
    """Answers that a prompt showed: right ones and wrong ones."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    positive: Annotated[tuple[Answer, ...], Field(max_length=64)] = ()
    negative: Annotated[tuple[Answer, ...], Field(max_length=64)] = ()


class GradeAnswerItem(ResponseItem):
    """A response and the reference of its final answer, with its aliases where there are several.

    `candidates` are answers that the prompt showed; the result says which of them the response
    gives. `prompt` is read by no rule.
    """

    response: Text
    gold: Answer | Annotated[tuple[Answer, ...], Field(min_length=1, max_length=64)]
    answer_type: Literal["math", "number", "mcq", "short", "free"]
    candidates: AnswerCandidates | None = None
    prompt: Prompt | None = None


class GroupVoteItem(ResponseItem):
    """One of the rollouts of a prompt, which vote on its answer.

    The answer is read from `response`, or given as `answer`; of code, `signature` is the text of
    its outputs on inputs that all rollouts share. `peers` are the other answers of the group, for
    an item that is sent alone. `prompt` is read by no rule.
    """

    response: Text | None = None
    answer: Answer | None = None
    signature: Answer | None = None
    answer_type: Literal["math", "number", "mcq", "short"] = "math"
    peers: Annotated[tuple[Answer, ...], Field(max_length=4_096)] = ()
    prompt: Prompt | None = None

    @model_validator(mode="after")
    def _check_answer(self) -> Self:
        if self.response is None and self.answer is None and self.signature is None:
            raise ValueError("give `response`, `answer` or `signature`")
        return self


class ToolCall(NullIsAbsent):
    """A call of a tool: its name, and its arguments by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=256)]
    arguments: Annotated[dict[str, JsonValue], Field(max_length=256)] = Field(default_factory=dict)


Calls = Annotated[tuple[ToolCall, ...], Field(max_length=64)]


class ToolCallMatchItem(Item):
    """The calls of tools that a policy made, and those of the reference."""

    predicted: Calls
    gold: Calls


Embedding = Annotated[tuple[FiniteFloat, ...], Field(min_length=1, max_length=8192)]


class RetrievedResult(NullIsAbsent):
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


def join_text_parts(parts: Sequence[object]) -> str | None:
    """Return the text of a message's parts; None if one of them is no text.

    It ends at the first such part: there may be a million.
    """
    texts: list[str] = []
    for part in parts:
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "".join(texts)


def strings(value: object) -> Iterator[str]:
    """Yield the texts of a value of JSON, names of fields included, in order."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield name
            yield from strings(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from strings(part)


def _with_parsed_arguments(call: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return a tool call whose `arguments`, where they are a JSON object in a text, are parsed."""
    function = call.get("function")
    if isinstance(function, dict):
        return {**call, "function": _with_parsed_arguments(function)}
    arguments = call.get("arguments")
    if not isinstance(arguments, str):
        return call
    if len(arguments) > MAX_ARGUMENTS_LENGTH:
        raise ItemError(
            "invalid_item",
            f"the arguments of a tool call are longer than {MAX_ARGUMENTS_LENGTH} characters",
        )
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return call
    return {**call, "arguments": parsed} if isinstance(parsed, dict) else call


def read_fields(schema: type[BaseModel]) -> list[str]:
    """Return the fields of a class of items, without those that its family refuses."""
    refused = _REFUSED.get(schema, frozenset())
    return [name for name in schema.model_fields if name not in refused]


def fields_hint(schema: type[BaseModel], locations: Sequence[tuple[int | str, ...]]) -> str:
    """Return the fields at the level of an item's first problem.

    Args:
        schema: the class of the item.
        locations: the places of all problems of the item, as Pydantic names them. A field of
            several types has problems of each type; the innermost one counts. A problem of the
            whole item has an empty place.
    """
    places = [place for place in locations if place]
    field = places[0][0] if places else ""
    innermost = max((place for place in places if place[0] == field), key=len, default=())
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
