"""The names of the functions and classes that a program has to define, read from its problem."""

import builtins
import keyword
import re
from collections.abc import Iterable

MAX_CHARACTERS = 65_536
"""The length of a text up to which it is read: its end, which asks."""

_NAME = r"([A-Za-z_]\w*)"
_KIND = r"\b(?:function|method|procedure|subroutine|class|struct)"
_VERB = r"\b(?:[Ww]rite|[Ii]mplement|[Dd]efine|[Cc]omplete|[Cc]reate)"
_QUOTE = r"[`'\"*]"
# First the signatures of stubs, then what is quoted, then what the prose names.
_ASKED = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        rf"^[ \t]*(?:async[ \t]+)?def[ \t]+{_NAME}[ \t]*[\[(]",
        rf"^[ \t]*(?:(?:public|export|abstract)[ \t]+)*(?:class|struct)[ \t]+{_NAME}[ \t]*[:({{]",
        rf"^[ \t]*(?:export[ \t]+)?(?:async[ \t]+)?function[ \t]+{_NAME}[ \t]*[(<]",
        rf"^[ \t]*(?:pub[ \t]+)?(?:fn|func)[ \t]+(?:\([^()\n]*\)[ \t]*)?{_NAME}[ \t]*[\[(<]",
        rf"^[ \t]*(?:[\w:<>\[\],*&]+[ \t]+)+[*&]*{_NAME}[ \t]*\([^()\n;]*\)[ \t]*[{{;]?$",
        rf"`(?:[^`\n(]*[ \t*&])?{_NAME}[ \t]*\(",
        rf"{_KIND}[ \t]+(?:called|named)[ \t]+{_QUOTE}*{_NAME}",
        rf"{_KIND}[ \t]+{_QUOTE}+{_NAME}{_QUOTE}",
        rf"{_QUOTE}{_NAME}{_QUOTE}+[ \t]+{_KIND}\b",
        rf"{_KIND}[ \t]+{_NAME}\(",
        rf"{_VERB}[ \t]+(?:the[ \t]+|a[ \t]+)?{_QUOTE}*{_NAME}\(",
        rf"{_VERB}[ \t]+(?:the[ \t]+|a[ \t]+)?{_QUOTE}+{_NAME}{_QUOTE}",
    )
)
_DEFINED = re.compile(rf"\b(?:def|class)[ \t]+{_NAME}")
_CALLED = re.compile(rf"(?<![\w.]){_NAME}[ \t]*\(")
_ASSERTION = re.compile(r"^[ \t>`]*assert\b.*", re.MULTILINE)
_KNOWN = frozenset((*dir(builtins), *keyword.kwlist, "function", "self"))


def asked_by_prompt(prompt: str) -> frozenset[str]:
    """Return the names that a prompt asks for: those of its stubs, quotes, words and assertions."""
    text = prompt[-MAX_CHARACTERS:]
    named = {found[1] for pattern in _ASKED for found in pattern.finditer(text)}
    return frozenset(named - _KNOWN) | _called(_ASSERTION.findall(text))


def asked_by_tests(tests: Iterable[str]) -> frozenset[str]:
    """Return the names that tests in Python call and do not define."""
    texts = [test[-MAX_CHARACTERS:] for test in tests]
    defined = {name for text in texts for name in _DEFINED.findall(text)}
    return _called(texts) - defined


def _called(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(name for text in texts for name in _CALLED.findall(text)) - _KNOWN
