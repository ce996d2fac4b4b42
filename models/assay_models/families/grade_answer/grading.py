"""The verdict on an answer, from the forms of the answer, its references and its candidates."""

import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

from assay_models.answers.canonical import (
    AnswerType,
    Form,
    Query,
    Unreadable,
    are_equal,
    are_equal_without_marks,
    read_answer,
)
from assay_models.base import ItemError, Raw
from assay_models.items import GradeAnswerItem

Path = Literal["rule", "rule_relaxed", "judge"]
Match = Literal["none", "positive", "negative", "other"]
PATHS: tuple[Path, ...] = get_args(Path)
MATCHES: tuple[Match, ...] = get_args(Match)
FLAGS = ("unparsed_answer", "unparsed_candidate")


class Unread(NamedTuple):
    """A text without a form; `is_limit` where it may have one, beyond the bounds."""

    is_limit: bool


Reading = Form | Query | Unread


@dataclass(frozen=True, slots=True)
class Question:
    """An answer with all that it is compared with."""

    kind: AnswerType
    answer: Reading
    golds: tuple[Reading, ...]
    positive: tuple[Reading, ...] = ()
    negative: tuple[Reading, ...] = ()

    @property
    def readings(self) -> Iterator[Reading]:
        """The readings of all texts, the references first."""
        yield from (*self.golds, self.answer, *self.positive, *self.negative)

    @property
    def key(self) -> bytes:
        """The canonical text of the question: equal questions have equal grades."""
        sides = [self.golds, self.positive, self.negative]
        return json.dumps(
            [self.kind, _named(self.answer), *(sorted(map(_named, side)) for side in sides)]
        ).encode()

    async def resolved(self, form: Callable[[Query], Awaitable[Form]]) -> "Question":
        """Return the question with the forms of all its texts."""
        known: dict[Reading, Reading] = {}
        for reading in self.readings:
            if isinstance(reading, Query) and reading not in known:
                try:
                    known[reading] = await form(reading)
                except Unreadable as error:
                    known[reading] = Unread(error.is_limit)

        def side(readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
            return tuple(known.get(reading, reading) for reading in readings)

        (answer,) = side((self.answer,))
        return replace(
            self,
            answer=answer,
            golds=side(self.golds),
            positive=side(self.positive),
            negative=side(self.negative),
        )


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict: the path that decided, the candidates that the answer is among, and flags."""

    is_correct: bool
    path: Path = "rule"
    match: Match = "none"
    flags: tuple[str, ...] = ()

    @property
    def details(self) -> dict[str, Any]:
        """The item details of the verdict."""
        return {"path": self.path, "matched": None if self.match == "none" else self.match}

    def pack(self) -> Raw:
        """Return the verdict as a raw."""
        flags = (float(flag in self.flags) for flag in FLAGS)
        places = PATHS.index(self.path), MATCHES.index(self.match)
        return (float(self.is_correct), *map(float, places), *flags)

    @classmethod
    def unpack(cls, raw: Raw) -> "Grade":
        """Return the verdict of a raw."""
        correct, path, match, *flags = raw
        names = tuple(flag for flag, is_set in zip(FLAGS, flags, strict=True) if is_set)
        return cls(bool(correct), PATHS[int(path)], MATCHES[int(match)], names)


def read_question(item: GradeAnswerItem, answer: str | None, digits: int | None) -> Question:
    """Return the question of an item, with the forms that need no worker."""

    def read(text: str) -> Reading:
        try:
            return read_answer(text, item.answer_type, digits)
        except Unreadable as error:
            return Unread(error.is_limit)

    golds = (item.gold,) if isinstance(item.gold, str) else item.gold
    candidates = item.candidates
    return Question(
        item.answer_type,
        Unread(is_limit=False) if answer is None else read(answer),
        tuple(map(read, golds)),
        tuple(map(read, candidates.positive if candidates else ())),
        tuple(map(read, candidates.negative if candidates else ())),
    )


def needs_worker(question: Question) -> bool:
    """Return whether a worker has to read a text before the verdict is known."""
    if isinstance(question.answer, Unread):
        decisive = question.golds
    elif question.answer in question.golds and not (question.positive or question.negative):
        return False
    else:
        decisive = tuple(question.readings)
    return any(isinstance(reading, Query) for reading in decisive)


def grade(question: Question) -> Grade:
    """Return the verdict on a question without texts that a worker has to read.

    Raises:
        ItemError: `unparsed_gold` where a reference has no form and no other decides,
            `grading_limit` where the answer is beyond the bounds.
    """
    answer, golds = question.answer, question.golds
    is_same = answer in golds and not isinstance(answer, Unread)
    path: Path | None = "rule" if is_same else _path(answer, golds)
    if path is None:
        check_golds(golds)
        if answer == Unread(is_limit=True):
            raise ItemError("grading_limit", "the answer is beyond the bounds of the grader")
    match, flags = _match(question)
    unread = ("unparsed_answer",) if isinstance(answer, Unread) else ()
    return Grade(path is not None, path or "rule", match, (*unread, *flags))


def check_golds(golds: tuple[Reading, ...]) -> None:
    """Raise `unparsed_gold` where one of the references has no form."""
    if any(isinstance(gold, Unread) for gold in golds):
        raise ItemError(
            "unparsed_gold",
            "a reference in `gold` cannot be read as an answer of this type: correct it, or choose "
            "another `answer_type`",
        )


def _path(answer: Reading, golds: tuple[Reading, ...]) -> Path | None:
    forms = [gold for gold in golds if isinstance(gold, Form)]
    if not isinstance(answer, Form):
        return None
    if any(are_equal(answer, gold) for gold in forms):
        return "rule"
    return "rule_relaxed" if any(are_equal_without_marks(answer, g) for g in forms) else None


def _match(question: Question) -> tuple[Match, tuple[str, ...]]:
    sides = question.positive, question.negative
    if not any(sides):
        return "none", ()
    names: tuple[Match, Match] = ("positive", "negative")
    answer = question.answer
    found = [
        name
        for name, side in zip(names, sides, strict=True)
        if not isinstance(answer, Unread) and (answer in side or _path(answer, side) == "rule")
    ]
    is_unread = any(isinstance(reading, Unread) for side in sides for reading in side)
    return (found[0] if found else "other"), (("unparsed_candidate",) if is_unread else ())


def _named(reading: Reading) -> str:
    return repr(reading)
