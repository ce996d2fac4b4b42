"""Statements: the sentences of a response that evidence can support."""

import re
from typing import Literal
from unicodedata import east_asian_width

from assay_models.families.nli.verbs import has_finite_verb

Reason = Literal[
    "citation",
    "code",
    "heading",
    "lead_in",
    "marker",
    "no_letters",
    "no_words",
    "question",
    "refusal",
    "source",
    "thought",
    "too_short",
    "url",
]

MIN_CLAIM_CHARACTERS = 16
# A Chinese, Japanese or Korean character carries about as much as three Latin letters.
WIDE_CHARACTER_LENGTH = 3
MAX_WORD_LETTERS = 64
_CLOSING = "\"'\u201d\u2019)]\u300d\u300f\uff09*_!\uff01 "
_QUESTION_MARKS = ("?", "\uff1f", "\u061f")
STOPS = (".", "!", "\u2026", "\u3002", "\uff01", "\uff0e")
_COLONS = (":", "\uff1a")
_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)
_LETTERS = re.compile(r"[^\W\d_]+")
_SOURCE = re.compile(r"\W*(?:sources?|references?|citations?|bibliography)\W*:", re.IGNORECASE)
_ASKS = re.compile(
    r"(?:(?:and|but|so|or|then)\s)?(?:who|whom|whose|what|which|when|where|why|how|whether|if|am|is|"
    r"are|was|were|do|does|did|has|have|had|can|could|will|would|shall|should|may|might|must|\w+n['"
    r"\u2019]t)\b",
    re.IGNORECASE,
)
# Questions that take a statement for granted.
_FRAME = re.compile(
    r"(?:(?:did|do) you (?:know|realise|realize|notice)|have you heard|(?:are|were) you aware|"
    r"is(?:n['\u2019]t it| it not) (?:true|the case|a fact|clear|obvious))\s(?:that\s)?",
    re.IGNORECASE,
)
_TAG = re.compile(
    r",\s(?:(?:is|are|was|were|do|does|did|has|have|had|can|could|will|would)(?:n['\u2019]t)?\s"
    r"(?:it|he|she|they|we|you|i|there)(?:\snot)?|right|correct|no|yes|ok)$",
    re.IGNORECASE,
)
_POINTS_AHEAD = re.compile(
    r"\b(?:following|follows|below|here|like this|like so|these)\b", re.IGNORECASE
)

_NOT = (
    r"(?:(?:do|does|did|could|can|would|will)\s?not|(?:do|does|did|could|ca|would|wo)n['\u2019]?t|"
    r"(?:am|['\u2019]m|are|['\u2019]re|was|were)\s(?:not\s(?:able\sto|sure|certain)|unable\sto))"
)
_TEXTS = r"(?:context|documents?|evidence|excerpts?|information|passages?|sources?|texts?|results?)"
_REFUSAL = re.compile(
    "|".join(
        (
            r"(?:(?:i|we)\s?(?:am|['\u2019]m|are)\s)?(?:very\s|so\s)?sorry(?:\s(?:for|about)\s.{0,60})?",
            r"(?:i|we)\sapologi[sz]e(?:\sfor\s.{0,60})?|my\sapologies|unfortunately",
            r"as\san?\s(?:ai|assistant|(?:large\s)?language\smodel)\b.{0,40}",
            rf"(?:i|we)\s?{_NOT}(?:\s(?:currently|really|yet|actually))?"
            r"(?:\s(?:answer|assist|comply|confirm|determine|find|fulfil|fulfill|help|provide|say|tell|"
            r"verify|access|have\s(?:access|any|enough|sufficient|the|information|that))\b.{0,160}"
            r"|\sknow(?:\s(?:the\sanswer|that|this|it|about)\b.{0,60})?|(?:\sabout\s.{0,60})?)",
            rf"(?:based\son|according\sto|from|given)\s(?:\w+\s){{0,4}}?{_TEXTS}(?:\s\w+){{0,3}}",
            r"(?:(?:the|this|your)\s)?(?:answer|question|it|this|that)\scan(?:\s?not|['\u2019]t)\sbe\s"
            r"(?:answered|determined|found|given|inferred|verified)\b.{0,120}",
            r"(?:i|we)\s(?:(?:have|found|see)\sno|lack(?:\sthe|\senough|\ssufficient)?)\s"
            r"(?:access|answer|evidence|idea|information|mention|data|context)\b.{0,160}",
            rf"(?:the|this|that|these|your|my)\s(?:\w+\s){{0,3}}?{_TEXTS}\s(?:\w+\s){{0,4}}?"
            r"(?:do|does|did)(?:\snot|n['\u2019]t)\s(?:\w+\s)?(?:address|answer|contain|discuss|give|"
            r"include|mention|provide|say|specify|state)\b.{0,200}",
            r"there(?:\sis|\swas|['\u2019]s)\s(?:no|insufficient|not\s(?:enough|any))\s(?:\w+\s){0,2}?"
            r"(?:answer|context|data|details?|evidence|information|mention)\b.{0,200}",
            r"(?:it|this|that|the\sanswer)(?:\sis|['\u2019]s)\snot\s(?:(?:stated|mentioned|specified|"
            r"given|provided)\b.{0,120}|possible\sto\s(?:answer|determine|say|tell)\b.{0,160})",
            r"(?:it(?:\sis|['\u2019]s)\s)?impossible\sto\s(?:answer|determine|say|tell)\b.{0,160}",
            r"(?:please\s)?(?:let\sme\sknow|feel\sfree\sto)\b.{0,160}",
            r"please\s(?:provide|share|rephrase|clarify|ask)\b.{0,160}",
            r"(?:unknown|unanswerable|not\s(?:sure|certain|available|specified|stated)|no\s(?:answer|"
            r"idea)|cannot\ssay|can['\u2019]t\ssay|insufficient\s(?:information|evidence)|"
            r"not\senough\sinformation)(?:\s(?:is\s)?(?:found|given|provided|available))?",
        )
    ),
    re.IGNORECASE,
)
_CLAUSES = re.compile(
    r" ?[,;:.!\u2014] ?(?:(?:but|so|and|as|that|however|therefore|because|since|although)\b,?)? ?"
    r"| (?:but|so|because|since|although|while|whereas) ",
    re.IGNORECASE,
)


def read_statement(text: str) -> tuple[str, Reason | None]:
    """Return a sentence as it is classified, and the reason if it is no claim.

    A question that states something is read as that statement, and so is a sentence that ends
    with a colon; others ask or lead in, and are no claims.
    """
    reason = _unstated(text)
    end = text.rstrip(_CLOSING)
    if reason is None and end.endswith(_QUESTION_MARKS):
        text = _statement_in(end[:-1].rstrip())
        reason = None if is_statement(text) and not _ASKS.match(text) else "question"
    elif reason is None and end.endswith(_COLONS):
        text = f"{end[:-1].rstrip()}."
        reason = None if has_finite_verb(text) and not _POINTS_AHEAD.search(text) else "lead_in"
    if reason is None and _effective_length(text) < MIN_CLAIM_CHARACTERS:
        reason = "too_short"
    return text, reason


def is_statement(text: str) -> bool:
    """Return whether a line is a sentence rather than a title, by its full stop or its verb."""
    if text.rstrip("\"'\u201d\u2019)]*_ ").endswith(STOPS):
        return True
    return has_finite_verb(text) and not _ASKS.match(text)


def is_refusal(text: str) -> bool:
    """Return whether each clause of a sentence declines to answer, or says why it does."""
    words = " ".join(text.strip("\"'*_. !").split())
    clauses = [clause for clause in _CLAUSES.split(words) if clause]
    return bool(clauses) and all(_REFUSAL.fullmatch(clause) for clause in clauses)


def _unstated(text: str) -> Reason | None:
    """Return the reason if a text of any form states nothing."""
    words = [len(word) for word in _LETTERS.findall(text)]
    if not words:
        return "no_letters"
    if not _LETTERS.search(_URL.sub("", text)):
        return "url"
    if min(words) > MAX_WORD_LETTERS and text.isascii():
        return "no_words"
    if _SOURCE.match(text):
        return "source"
    return "refusal" if is_refusal(text) else None


def _statement_in(question: str) -> str:
    """Return the statement that a question takes for granted, or the question, with a full stop."""
    statement = _TAG.sub("", _FRAME.sub("", question, count=1))
    return f"{statement[:1].upper()}{statement[1:]}." if has_finite_verb(statement) else statement


def _effective_length(text: str) -> int:
    if len(text) >= MIN_CLAIM_CHARACTERS:
        return len(text)
    return sum(WIDE_CHARACTER_LENGTH if east_asian_width(letter) in "WF" else 1 for letter in text)
