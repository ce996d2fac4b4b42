"""Control tokens in user-written text, kept apart from those that a chat template writes.

A template works on text. It may split an answer at a closing think tag, and a tokenizer makes the
same token of an end-of-turn text in a message as of the template's own. So each control token in a
message is split by a marker character before the template is applied, and the tokenizer removes the
marker after it has matched its own control tokens. What remains are the letters of the token,
encoded with the text around them.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from tokenizers import Tokenizer, normalizers

from assay_models.base import ItemError
from assay_models.families.classifier.truncation import ShortenedText
from assay_models.items import strings

# No character (Unicode, section 23.7), so nothing is lost where a text has it already.
_MARK = "\ufdd0"
_IN_PIPES = re.compile(r"<\|.*\|>")

RENDERING_ERRORS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""The exceptions that a template's own expressions may raise on a conversation."""

MessageFields = dict[str, Any]
"""The role, the content and the tool calls of a message, as chat templates take them."""


class ForgedToken(Exception):
    """A control token in a message that cannot be distinguished from the template's own."""


@dataclass(frozen=True, slots=True, repr=False)
class ControlTokens:
    """The control tokens of a checkpoint: the special ones, and those of reasoning and tools.

    The latter are added tokens that occur in its chat template, and those in the form `<|...|>`.
    Other added tokens (runs of spaces, tags of HTML) are ordinary text. `special_pattern` matches
    the special tokens, `control_pattern` all of them.
    """

    ids: Mapping[str, int]
    special_pattern: re.Pattern[str]
    control_pattern: re.Pattern[str]
    backend: Tokenizer

    @classmethod
    def from_tokenizer(cls, tokenizer: Any, template: str) -> "ControlTokens":
        """Find the control tokens of a fast tokenizer of Transformers under one chat template."""
        added = {token.content: (number, token.special) for number, token in _added(tokenizer)}
        special = {content for content, (_, is_special) in added.items() if is_special}
        control = special | {content for content in added if _is_control(content, template)}
        return cls(
            ids={content: added[content][0] for content in control},
            special_pattern=_any_of(special),
            control_pattern=_any_of(control),
            backend=_backend(tokenizer.backend_tokenizer, control),
        )

    def encode(
        self,
        messages: Sequence[MessageFields],
        render: Callable[[list[MessageFields]], str],
        shorten: Callable[[str, Tokenizer], ShortenedText],
        *,
        escape_control_tokens: bool,
    ) -> tuple[list[int], int]:
        """Return the token ids of the conversation that `render` makes of `messages`, and the
        number of tokens that `shorten` has left out of it.

        Special tokens in the messages are always escaped, so that they are encoded as their
        letters. With `escape_control_tokens` the other control tokens are escaped too.

        Raises:
            ForgedToken: the tokenizer makes a control token out of its letters.
            ItemError: the template leaves out the tool calls of a message.
        """
        pattern = self.control_pattern if escape_control_tokens else self.special_pattern
        forged = {
            token
            for message in messages
            for value in message.values()
            for text in strings(value)
            for token in pattern.findall(text)
        }
        escaped = [
            {name: _escape_all(value, pattern) for name, value in message.items()}
            for message in messages
        ]
        rendered = render(escaped)
        if any("tool_calls" in message for message in escaped):
            _check_tool_calls(escaped, rendered, render)
        text, dropped = shorten(rendered, self.backend)
        ids: list[int] = self.backend.encode(text, add_special_tokens=False).ids
        if forged:
            self._refuse(forged, Counter(self.control_pattern.findall(text)), Counter(ids))
        return ids, dropped

    def _refuse(
        self, forged: Collection[str], written: Mapping[str, int], counted: Mapping[int, int]
    ) -> None:
        for token in forged:
            if counted.get(self.ids[token], 0) > written.get(token, 0):
                raise ForgedToken(token)


def _check_tool_calls(
    messages: Sequence[MessageFields],
    rendered: str,
    render: Callable[[list[MessageFields]], str],
) -> None:
    """Refuse tool calls that the template leaves out: it would write another conversation."""
    uncalled = [
        {name: value for name, value in message.items() if name != "tool_calls"}
        for message in messages
    ]
    try:
        is_same = render(uncalled) == rendered
    except RENDERING_ERRORS:
        return
    if is_same:
        raise ItemError("invalid_item", "the chat template does not write tool calls")


def _added(tokenizer: Any) -> Sequence[tuple[int, Any]]:
    return list(tokenizer.added_tokens_decoder.items())


def _is_control(content: str, template: str) -> bool:
    if content.isspace() or content.isalnum():
        return False
    return content in template or _IN_PIPES.fullmatch(content) is not None


def _any_of(tokens: Collection[str]) -> re.Pattern[str]:
    longest_first = sorted(filter(None, tokens), key=len, reverse=True)
    choice = "|".join(map(re.escape, longest_first)) or r"(?!)"
    # A token of one character cannot be split: with the mark behind it it is not the template's.
    return re.compile(f"(?:{choice})(?!{_MARK})")


def _escape_all(value: Any, pattern: re.Pattern[str]) -> Any:
    """Return a value of JSON whose texts, names of fields included, are escaped."""
    if isinstance(value, str):
        return _escape(value, pattern)
    if isinstance(value, Mapping):
        return {_escape(name, pattern): _escape_all(part, pattern) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_escape_all(part, pattern) for part in value]
    return value


def _escape(text: str, pattern: re.Pattern[str]) -> str:
    return pattern.sub(_with_mark, text.replace(_MARK, ""))


def _with_mark(token: re.Match[str]) -> str:
    return token[0][0] + _MARK + token[0][1:]


def _backend(plain: Tokenizer, control: Collection[str]) -> Tokenizer:
    # A token that is not normalized is matched before the normalizer removes the mark, and never
    # after.
    serialized = json.loads(plain.to_str())
    for token in serialized["added_tokens"]:
        token["normalized"] = token["normalized"] and token["content"] not in control
    backend = Tokenizer.from_str(json.dumps(serialized))
    unmark = normalizers.Replace(_MARK, "")
    own = backend.normalizer
    backend.normalizer = normalizers.Sequence([unmark, own] if own else [unmark])
    return backend
