"""Control tokens that people and policies write: kept apart from those that a chat template writes.

A template works on text: it may split an answer at a closing think tag, and to a tokenizer an
end-of-turn token is the same whoever wrote it. So each control token in a message is broken by a
mark before the template sees it, and the tokenizer takes the mark out again once its own control
tokens have been found. What is left are the token's letters, encoded with the text around them.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tokenizers import Tokenizer, normalizers

Thoughts = Literal["tokens", "letters"]
"""What a control token that is not special (`<think>`) is inside a message."""

# No character (Unicode, section 23.7), so nothing is lost where a text has it already.
_MARK = "\ufdd0"
_IN_PIPES = re.compile(r"<\|.*\|>")

Turn = dict[str, Any]


class ForgedToken(Exception):
    """A control token in a message cannot be told from the template's own."""


@dataclass(frozen=True, slots=True, repr=False)
class ControlTokens:
    """The control tokens of a checkpoint: the special ones, and those of thoughts and tools.

    The latter are added tokens that its chat template writes or looks for, and those in the form
    `<|...|>`. Other added tokens (runs of spaces, tags of HTML) are ordinary text.
    """

    ids: Mapping[str, int]
    patterns: Mapping[Thoughts, re.Pattern[str]]
    backend: Tokenizer

    @classmethod
    def of(cls, tokenizer: Any, template: str) -> "ControlTokens":
        """Those of a fast tokenizer of Transformers under one chat template."""
        added = {token.content: (number, token.special) for number, token in _added(tokenizer)}
        special = {content for content, (_, is_special) in added.items() if is_special}
        control = special | {content for content in added if _is_control(content, template)}
        ids = {content: added[content][0] for content in control}
        patterns: dict[Thoughts, re.Pattern[str]] = {
            "tokens": _any_of(special),
            "letters": _any_of(control),
        }
        return cls(ids, patterns, _backend(tokenizer.backend_tokenizer, control))

    def encode(
        self, turns: Sequence[Turn], thoughts: Thoughts, render: Callable[[list[Turn]], str]
    ) -> list[int]:
        """The ids of the conversation that `render` makes of `turns`.

        Raises:
            ForgedToken: the tokenizer makes a control token out of its letters.
        """
        pattern = self.patterns[thoughts]
        forged = {
            token for turn in turns for text in turn.values() for token in pattern.findall(text)
        }
        rendered = render(
            [{name: self._broken(text, pattern) for name, text in turn.items()} for turn in turns]
        )
        ids: list[int] = self.backend.encode(rendered, add_special_tokens=False).ids
        if forged:
            self._refuse(forged, Counter(self.patterns["letters"].findall(rendered)), Counter(ids))
        return ids

    def _broken(self, text: str, pattern: re.Pattern[str]) -> str:
        return pattern.sub(_with_mark, text.replace(_MARK, ""))

    def _refuse(
        self, forged: Collection[str], written: Mapping[str, int], counted: Mapping[int, int]
    ) -> None:
        for token in forged:
            if counted.get(self.ids[token], 0) > written.get(token, 0):
                raise ForgedToken(token)


def _added(tokenizer: Any) -> Sequence[tuple[int, Any]]:
    return list(tokenizer.added_tokens_decoder.items())


def _is_control(content: str, template: str) -> bool:
    if content.isspace() or content.isalnum():
        return False
    return content in template or _IN_PIPES.fullmatch(content) is not None


def _any_of(tokens: Collection[str]) -> re.Pattern[str]:
    longest_first = sorted(filter(None, tokens), key=len, reverse=True)
    choice = "|".join(map(re.escape, longest_first)) or r"(?!)"
    # A token of one character cannot be broken: with the mark behind it it is not the template's.
    return re.compile(f"(?:{choice})(?!{_MARK})")


def _with_mark(token: re.Match[str]) -> str:
    return token[0][0] + _MARK + token[0][1:]


def _backend(plain: Tokenizer, control: Collection[str]) -> Tokenizer:
    # A token that is not normalized is looked for before the normalizer takes the mark out, and
    # never after.
    layout = json.loads(plain.to_str())
    for token in layout["added_tokens"]:
        token["normalized"] = token["normalized"] and token["content"] not in control
    backend = Tokenizer.from_str(json.dumps(layout))
    unmark = normalizers.Replace(_MARK, "")
    own = backend.normalizer
    backend.normalizer = normalizers.Sequence([unmark, own] if own else [unmark])
    return backend
