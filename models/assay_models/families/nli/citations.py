r"""Citations in a text: marks that name a source and state nothing of their own.

Recognised are the forms that models are asked to write (`[1]`, `[doc_2]`, `(Source: page 4)`,
`【4†source】`), those of papers (`(Smith et al., 2020)`, `\cite{smith}`, superscripts), and links.
A bracket that belongs to the statement stays: `(1998)`, `(May 2020)`, `[sic]`, `f(x)`,
`(the largest in Europe)`, `the range [1, 3]`, `40 m²`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from assay_models.families.nli.sentences import Span
from assay_models.families.nli.verbs import has_finite_verb
from assay_models.preemption import interruptible

_NUMBER = r"\^?[1-9]\d{0,2}(?:\s?[-\u2013]\s?\d{1,3})?"
_NUMBERS = rf"\[{{1,2}}{_NUMBER}(?:\s?[,;]\s?{_NUMBER}){{0,30}}\]{{1,2}}"
_KIND = (
    r"(?:doc(?:ument)?|passage|source|src|ref(?:erence)?|cit(?:e|ation)?|chunk|context|snippet|"
    r"evidence|page|pp?|foot ?note|fn|web|search|result)s?\.?"
)
_KIND_AND_NUMBER = rf"(?:{_KIND}[\s_:#-]{{0,2}})?\d{{1,4}}[a-z]?"
_KIND_AND_NUMBERS = (
    rf"(?:see\s)?{_KIND}[\s_:#-]{{0,2}}{_KIND_AND_NUMBER}"
    rf"(?:\s?(?:[,;&\u2013-]|and)\s?{_KIND_AND_NUMBER}){{0,20}}"
)
_URL = r"(?:https?://|www\.)[^\s<>()\[\]\u3010\u3011\"]+"
_TARGET = r"\((?:https?://|www\.|mailto:|[#/.])[^()\s]{0,2000}(?:\s\"[^\"\n]{0,200}\")?\)"
_LINK = rf"!?\[[^\[\]\n]{{1,200}}\]{_TARGET}"
_SUPERSCRIPTS = r"[\u00b9\u00b2\u00b3\u2070\u2074-\u2079]{1,3}"
_FORMS: Mapping[str, str] = {
    "code": r"`[^`\n]{1,500}`",
    "mark": "|".join(
        (
            rf"\(\s?(?:{_KIND}:\s?|see\s)?{_LINK}(?:[,;]?\s?{_LINK}){{0,20}}\s?\)",
            rf"\[\s?(?:\^?\d{{1,3}}|{_KIND}|link|{_KIND_AND_NUMBERS}|{_URL})\s?\]{_TARGET}",
            rf"<{_URL}>",
            r"\u3010[^\u3010\u3011\n]{1,100}\u3011",
            r"\ue200[^\ue201\n]{0,200}\ue201",
            r"\[\^[\w-]{1,32}\]",
            rf"\^\[?{_NUMBER}\]?\^",
            r"<ref(?:\s[^<>]{0,200})?>[^<>]{0,500}</ref>|<ref\s[^<>]{0,200}/>",
            r"</?cite(?:\s[^<>]{0,200})?>",
            r"~?\\[a-z]{0,4}cite[a-z]{0,6}(?:\[[^\[\]\n]{0,100}\]){0,2}\{[^{}\n]{1,200}\}",
        )
    ),
    "link": _LINK,
    "url": _URL,
    "numbers": rf"\((?:see\s)?{_NUMBERS}\)|{_NUMBERS}(?:(?:,|\sand)?\s?{_NUMBERS}){{0,20}}",
    "raised": (
        rf"{_SUPERSCRIPTS}(?:[,\u02d2]\s?{_SUPERSCRIPTS}){{0,20}}|[\u2020\u2021]{{1,2}}"
        r"|<sup>\s?\[?\d[\d,\s\u2013-]{0,30}\]?\s?</sup>"
    ),
    "bracketed": r"[(\[][^()\[\]\n]{3,200}[)\]]",
}
# What a citation opens with. Each place is tried on its own: one search of a text of brackets would
# hold the interpreter's lock for long.
_OPENING = re.compile(
    r"[`(\[<^~\\\u3010\ue200\u00b9\u00b2\u00b3\u2070\u2074-\u2079\u2020\u2021]"
    r"|https?://|www\.",
    re.IGNORECASE,
)
_CITATION = re.compile(
    "|".join(f"(?P<{name}>{form})" for name, form in _FORMS.items()), re.IGNORECASE
)

_NAME = r"[A-Z\u00c0-\u00de][\w'\u2019.-]*"
_NAMES = rf"{_NAME}(?:(?:\s|,\s)(?:(?:and|&|of|for|the|de|van|von|der|la)\s){{0,2}}{_NAME}){{0,8}}"
_AUTHORS_AND_YEAR = re.compile(
    rf"(?:(?:see(?:\salso)?|cf\.|e\.g\.,?)\s)?(?P<names>{_NAMES})(?P<others>,?\set\sal\.?)?"
    r"(?P<comma>,)?\s(?:(?P<year>(?:1[6-9]|20)\d\d)[a-z]?|n\.d\.)(?:,\s(?:pp?\.\s?)?\d+(?:[-\u2013]\d+)?)?"
)
_TIMES = re.compile(
    r"(?:jan|feb|mar|apr|may|june?|july?|aug|sept?|oct|nov|dec)(?:uary|ruary|ch|il|ust|ember|tember"
    r"|ober)?\.?|spring|summer|autumn|fall|winter|easter|christmas",
    re.IGNORECASE,
)
_SOURCE = re.compile(rf"{_KIND}:\s.+|{_KIND_AND_NUMBERS}|@[\w:-]+(?:;\s?@[\w:-]+)*", re.IGNORECASE)
_HAS_URL = re.compile(_URL, re.IGNORECASE)

# After these a bracket with numbers or an address is a part of the statement.
_OBJECT = re.compile(
    r"(?:[=<>\u2264\u2265\u2208:]|\b(?:a|an|and|are|array|at|be|between|by|contains?|element|"
    r"equals?|from|has|have|in|includes?|index|interval|is|list|of|on|or|outputs?|prints?|range|returns?|see|sequence|set|shape|the|to|tuple|"
    r"under|use|values?|vector|via|visit|was|were|with))\s*$",
    re.IGNORECASE,
)
_LETTERS_BEFORE = re.compile(r"[^\W\d_]+$")
_UNIT = re.compile(r"(?:.*met(?:er|re)|mile|yard|inche?|feet|foot|sec|second)s?", re.IGNORECASE)
_MIN_WORD_LETTERS = 3
_MAX_SOURCE_WORDS = 12
# Before this year a name and a year in brackets are more often a place and a date than a source.
_FIRST_SOURCE_YEAR = 1980
_ENDS_SENTENCE = re.compile(r"\s*(?:[.;!?\u3002]|$)")
_RANGE = re.compile(r"\d\s?[-\u2013]\s?\d")
_CONTEXT_CHARACTERS = 40
# A square or a cube, unless a first mark stands before it.
_POWERS, _FIRST_RAISED = ("\u00b2", "\u00b3"), re.compile(r"\u00b9(?![\u2070-\u2079\u00b2\u00b3])")
_NO_SPACE_BEFORE = frozenset(".,;:!?)]}\u2026\u3002\uff0c\uff01\uff1f")


def citations(text: str) -> list[Span]:
    """Return start and end of each citation in a text, in order, in characters.

    Of a link with words only the brackets and the address are a citation: two spans. A mark that
    states something is none, or a false statement would be hidden by writing it as a source.
    """
    return [
        span
        for match in _matches(text)
        for span in _RULES[match.lastgroup or ""](text, *match.span())
        if not _states(text[slice(*span)])
    ]


def _matches(text: str) -> Iterator[re.Match[str]]:
    reached = 0
    for opening in interruptible(_OPENING.finditer(text)):
        if opening.start() >= reached:
            mark = _CITATION.match(text, opening.start())
            if mark is not None:
                reached = mark.end()
                yield mark


def _states(mark: str) -> bool:
    """Return whether a mark has a verb, or more words than the name of a source has."""
    words = _HAS_URL.sub(" ", mark)
    return has_finite_verb(words) or len(words.split()) > _MAX_SOURCE_WORDS


def without(text: str, start: int, end: int, spans: Iterable[Span]) -> str:
    """Return `text[start:end]` without these spans, and without the blanks that they leave."""
    kept: list[str] = []
    for first, last in [*spans, (end, end)]:
        piece = text[start:first]
        opens_with_stop = piece.lstrip()[:1] in _NO_SPACE_BEFORE
        if not piece or piece[0].isspace() or opens_with_stop:
            _strip_end(kept)
        kept.append(piece.lstrip() if opens_with_stop else piece)
        start = last
    return "".join(kept)


def _strip_end(pieces: list[str]) -> None:
    """Remove the white space at the end of a text that is given in pieces."""
    while pieces:
        if last := pieces.pop().rstrip():
            pieces.append(last)
            return


Rule = Callable[[str, int, int], Sequence[Span]]


def _whole(text: str, start: int, end: int) -> Sequence[Span]:
    return ((start, end),)


def _none(text: str, start: int, end: int) -> Sequence[Span]:
    return ()


def _around_words(text: str, start: int, end: int) -> Sequence[Span]:
    words = text.index("[", start) + 1
    return (start, words), (text.index("](", words), end)


def _address(text: str, start: int, end: int) -> Sequence[Span]:
    """Return an address that follows a statement, and not one that is a part of it."""
    end = start + len(text[start:end].rstrip(".,;:!?'\u201d\u2019*_"))
    before, after = _before(text, start), text[end : end + 2].lstrip()
    opens_line = not before.rpartition("\n")[2].strip()
    is_part = opens_line or after[:1].isalnum() or _OBJECT.search(before)
    return () if is_part else ((start, end),)


def _numbers(text: str, start: int, end: int) -> Sequence[Span]:
    before = _before(text, start)
    letters = _LETTERS_BEFORE.search(before)
    is_index = letters is not None and len(letters.group()) < _MIN_WORD_LETTERS
    is_range = before.rstrip()[-1:].isdigit() and _RANGE.search(text, start, end)
    return () if is_index or is_range or _OBJECT.search(before) else ((start, end),)


def _raised(text: str, start: int, end: int) -> Sequence[Span]:
    """Return a mark behind a word or a stop, and not the exponent of a number, symbol or unit."""
    before = _before(text, start)
    letters = _LETTERS_BEFORE.search(before)
    if letters is None:
        is_mark = before[-1:] in tuple(".,;:!?\"')\u201d\u2019]")
    else:
        is_word = len(letters.group()) >= _MIN_WORD_LETTERS
        is_power = text[start:end] in _POWERS and not _FIRST_RAISED.search(
            text, max(0, start - 2000), start
        )
        is_mark = is_word and not is_power and not _UNIT.fullmatch(letters.group())
    return ((start, end),) if is_mark else ()


def _bracketed(text: str, start: int, end: int) -> Sequence[Span]:
    content = text[start + 1 : end - 1].strip()
    is_source = (
        _SOURCE.fullmatch(content)
        or _HAS_URL.search(content)
        or _names_authors(content, ends=_ENDS_SENTENCE.match(text, end) is not None)
    )
    return ((start, end),) if is_source else ()


_RULES: Mapping[str, Rule] = {
    "code": _none,
    "mark": _whole,
    "link": _around_words,
    "url": _address,
    "numbers": _numbers,
    "raised": _raised,
    "bracketed": _bracketed,
}


def _before(text: str, start: int) -> str:
    return text[max(0, start - _CONTEXT_CHARACTERS) : start]


def _names_authors(content: str, *, ends: bool) -> bool:
    """Return whether all parts are authors with a year, and one of them is nothing else.

    `Jones 2019` alone may be a part of the statement, as `Expo 2020` is; `et al.` or another part
    shows that it is not. So do a comma and a second name, if the mark ends its sentence and the
    year is one of recent sources: `(Berlin, 1945)` and `(Wimbledon, 2004) and` are not removed.
    """
    parts = [_AUTHORS_AND_YEAR.fullmatch(part.strip()) for part in content.split(";")]
    matches = [part for part in parts if part is not None]
    if len(matches) < len(parts) or any(_TIMES.fullmatch(part["names"]) for part in matches):
        return False
    if len(parts) > 1 or matches[0]["others"]:
        return True
    is_recent = int(matches[0]["year"] or _FIRST_SOURCE_YEAR) >= _FIRST_SOURCE_YEAR
    has_mark = matches[0]["comma"] or re.search(r"\s(?:and|&)\s", matches[0]["names"])
    return bool(ends and is_recent and has_mark)
