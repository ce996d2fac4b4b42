"""A code reward model like CodeScaler (arXiv 2602.17684).

The bare program is scored, and a response without a valid program gets exactly zero without a
forward pass.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import CardError, ModelCard
from assay_models.extraction import LANGUAGES, Extracted, Extraction, Language
from assay_models.extraction.asked import asked_by_prompt
from assay_models.families.classifier.golden import golden_check
from assay_models.families.classifier.opening import Classifier, Logits, open_classifier
from assay_models.families.classifier.options import ClassifierOptions
from assay_models.families.code.programs import (
    ProgramExtractor,
    extraction_details,
    extraction_flags,
)
from assay_models.items import CodeItem, Message
from assay_models.proof import Proof
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of
from assay_models.shaping import shape

VERSION = 2


class CodeOptions(ClassifierOptions):
    """`[options]` of a card of this family, besides those of every classifier.

    `extraction` is the place of the program in a response: `strict`, `last_block`, `raw_code` or
    `solution`.
    `languages` are those that a program may be in: all that can be checked, unless the card names
    those that its model has learnt.
    """

    extraction: Extraction = "strict"
    languages: Annotated[tuple[Language, ...], Field(min_length=1)] = LANGUAGES


@dataclass(frozen=True, slots=True)
class CodeModel:
    """One checkpoint with one logit, and the extractor of the program.

    The model reads the user's messages of the prompt and the program as the assistant's message,
    without fence or prose; messages of other roles are left out, as in its training. Raw is the
    logit R; the score is ln(1 + e^R), which is above zero for every valid program, and zero for a
    response that has none. Control tokens in prompt and program, think tags included, are encoded
    as their letters: nothing in either ends a message, opens one or splits it.
    """

    own_parts: Mapping[str, object]
    classifier: Classifier
    programs: ProgramExtractor
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "CodeModel":
        """Read the checkpoint that the card names.

        Raises:
            CardError: an option, a file, a weight or a grammar is missing or does not fit, or the
                numbers differ from the publisher's.
        """
        options = card.options_as(CodeOptions)
        programs = ProgramExtractor.for_card(card.id, options.extraction, options.languages)
        classifier = open_classifier(card, files, runtime)
        if len(classifier.labels) > 1:
            raise CardError(
                f"{card.id}: a code model has one output, and its checkpoint has "
                f"{len(classifier.labels)}: serve it by the family sequence_classifier"
            )
        golden = golden_check(card, files, classifier.formatter)
        if golden is not None:
            classifier.require(golden)
        own = {**programs.fingerprint_parts, "family": card.family, "version": VERSION}
        return cls(own, classifier, programs)

    @property
    def fingerprint(self) -> str:
        """The digest of all that decides a raw."""
        return fingerprint_of({**self.classifier.fingerprint_parts, **self.own_parts})

    @property
    def runs(self) -> Literal["device", "remote"]:
        """Whether the logits are computed here."""
        return self.classifier.runs

    @property
    def proof(self) -> Proof | None:
        """The proof of an engine's numbers; None on a device."""
        return self.classifier.proof

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Encode the conversation of prompt and program; without a program there is no input.

        Raises:
            ItemError: the program, or prompt and program together, are too long, or no parser is
                available.
        """
        (item,) = items
        assert isinstance(item, CodeItem)
        questions = _user_messages(item)
        asked = asked_by_prompt("\n".join(message.content or "" for message in questions))
        extracted = self.programs.extract(item.response, item.language, asked=asked)
        if extracted.code is None:
            return _without_program(extracted, options)
        messages = (*questions, Message(role="assistant", content=extracted.code))
        sequence = self.classifier.encode_chat(
            messages, options.truncation, escape_control_tokens=True
        )
        return Prepared(
            (sequence.input(),),
            flags=(*extraction_flags(extracted), *sequence.flags),
            details={**extraction_details(extracted), **sequence.details},
        )

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of tokens that are computed; see `Classifier.cost`."""
        return self.classifier.cost(inputs)

    def predict(self, inputs: Sequence[Input]) -> Logits:
        """Compute the logit of each input."""
        return self.classifier.logits(inputs)

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Return ln(1 + e^R), or R itself where the request asks for it; 0 without a program."""
        if not prepared.inputs:
            return [_score(0.0, None, prepared)]
        ((raw,),) = raws
        score = raw if options.raw else shape("softplus", raw)
        return [_score(score, raw, prepared)]


def _score(score: float, raw: float | None, prepared: Prepared) -> Score:
    return Score(
        score, raw, channels={"reward": score}, flags=prepared.flags, details=prepared.details
    )


def _without_program(extracted: Extracted, options: Options) -> Prepared:
    if options.raw:
        raise ItemError(
            "invalid_code",
            f"no program to compute a raw score for ({extracted.reason}): "
            "give a program that parses, or leave options.raw out",
        )
    return Prepared((), flags=extraction_flags(extracted), details=extraction_details(extracted))


def _user_messages(item: CodeItem) -> tuple[Message, ...]:
    if isinstance(item.prompt, str):
        return (Message(role="user", content=item.prompt),)
    messages = tuple(message for message in item.prompt if message.role == "user")
    if not messages:
        raise ItemError("invalid_item", "the prompt's messages have no message of role `user`")
    return messages
