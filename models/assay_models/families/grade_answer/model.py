"""The grade of a final answer: 1 if it equals the reference, else 0.

A rule decides by canonical forms (see `answers.canonical`). As in ZPPO (arXiv 2606.18216) an answer
that fails is compared once more without degree and percent marks, and with a unit that only one
side states.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from assay_models.answers import canonical
from assay_models.answers.extraction import AnswerPlace, extract_answer
from assay_models.answers.packages import require_mathematics, versions
from assay_models.answers.pool import MathForms
from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Raws, Score
from assay_models.card import ModelCard
from assay_models.families.grade_answer.grading import (
    Grade,
    Question,
    check_golds,
    grade,
    needs_worker,
    read_question,
)
from assay_models.items import GradeAnswerItem
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of
from assay_models.workers.pool import WorkerUnavailable

VERSION = 1
BYTES_PER_TOKEN = 4


class GradeAnswerOptions(BaseModel):
    """`[options]` of a card of this family.

    `extraction` is the place of the answer in a response. `significant_digits`: numbers of the type
    `number` are rounded to as many; by default they are compared exactly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    extraction: AnswerPlace = "auto"
    significant_digits: int | None = Field(default=None, ge=1, le=50)


@dataclass(frozen=True, slots=True)
class GradeAnswerModel:
    """A grader by rules, whose mathematics is read in worker processes.

    Raw is `Grade.pack`: 1 or 0, then the numbers of the path, the match and the flags. Where no
    worker has to read mathematics there is no input.
    Tokens are the bytes of question and answer, four to one.
    """

    fingerprint: str
    options: GradeAnswerOptions
    max_tokens: int
    forms: MathForms
    packages: Mapping[str, str | None]
    runs: ClassVar[Literal["remote"]] = "remote"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "GradeAnswerModel":
        """Read the card's options; no worker starts before the first text that needs it.

        Raises:
            CardError: an option is unknown or out of its range.
        """
        options = card.options_as(GradeAnswerOptions)
        found = versions()
        parts = {
            "family": card.family,
            "version": VERSION,
            "forms": canonical.VERSION,
            **found,
            **options.model_dump(),
        }
        return cls(
            fingerprint_of(parts),
            options,
            card.limits.max_tokens,
            MathForms(),
            found,
        )

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Extract the answer, and grade it unless a worker has to read it.

        Raises:
            ItemError: `judge_not_configured`, `unparsed_gold`, `grading_limit`, `input_too_long`,
                or `invalid_item` where mathematics cannot be read here.
        """
        (item,) = items
        assert isinstance(item, GradeAnswerItem)
        answer = extract_answer(item.response, self.options.extraction)
        details = {"parsed_answer": answer}
        if item.answer_type == "free" and answer is not None:
            return _for_judge(item, answer)
        question = read_question(item, answer, self.options.significant_digits)
        if answer is None:
            return _without_answer(question, details)
        if not needs_worker(question):
            return Prepared((), grade(question), details=details)
        require_mathematics(self.packages)
        return Prepared((self._input(question),), details=details)

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of all tokens: nothing is padded."""
        return sum(row.tokens for row in inputs)

    def predict(self, inputs: Sequence[Input]) -> Awaitable[Raws]:
        """Grade the answers; each text among them is read once."""
        return self._raws(inputs)

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Return 1 or 0, with the path that decided and the candidate that the answer equals."""
        verdict = Grade.unpack(raws[0]) if raws else prepared.state
        correct = float(verdict.is_correct)
        has_answer = float(prepared.details["parsed_answer"] is not None)
        return [
            Score(
                correct,
                correct if raws else None,
                channels={"correct": correct, "has_answer": has_answer},
                flags=(*prepared.flags, *verdict.flags),
                details={**prepared.details, **verdict.details},
            )
        ]

    def _input(self, question: Question) -> Input:
        key = question.key
        tokens = -(-len(key) // BYTES_PER_TOKEN)
        if tokens > self.max_tokens:
            raise ItemError("input_too_long", f"{tokens} tokens, the limit is {self.max_tokens}")
        return Input(key, tokens, question)

    async def _raws(self, inputs: Sequence[Input]) -> Raws:
        return await asyncio.gather(*(self._raw(row.payload) for row in inputs))

    async def _raw(self, question: Question) -> Raw | ItemError:
        try:
            return grade(await question.resolved(self.forms.form)).pack()
        except ItemError as error:
            return error
        except WorkerUnavailable as error:
            detail = f"the answer could not be read: {error}; send it again"
            return ItemError("grader_unavailable", detail)


def _for_judge(item: GradeAnswerItem, answer: str) -> Prepared:
    """Return the input of a judge for an answer that no rule can grade."""
    raise ItemError(
        "judge_not_configured",
        "answers of the type `free` need a judge, and this model has none: choose another "
        "`answer_type`",
    )


def _without_answer(question: Question, details: dict[str, str | None]) -> Prepared:
    if question.kind != "free":
        check_golds(question.golds)
    verdict = replace(Grade(is_correct=False), match="none")
    return Prepared((), verdict, ("no_answer",), details)
