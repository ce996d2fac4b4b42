"""A code reward model in the manner of CodeScaler (arXiv 2602.17684): the bare program is scored,
and what holds no valid program gets exactly zero without being shown to the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import ModelCard
from assay_models.extraction import LANGUAGES, Extracted, Extraction, Language
from assay_models.families.classifier.golden import check_golden
from assay_models.families.classifier.model import Classifier, ClassifierOptions
from assay_models.families.code.programs import Programs, details_of, flags_of
from assay_models.items import CodeItem, Message
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of
from assay_models.shaping import shape

VERSION = 2


class CodeOptions(ClassifierOptions):
    """`[options]` of a card of this family, besides what every classifier takes.

    `extraction` says where in a response its program is: `strict`, `last_block` or `raw_code`.
    `languages` are those that a program may be in; all that can be checked, unless the card names
    those that its model has learnt.
    """

    extraction: Extraction = "strict"
    languages: Annotated[tuple[Language, ...], Field(min_length=1)] = LANGUAGES


@dataclass(frozen=True, slots=True)
class CodeModel:
    """One checkpoint with one logit, the rule that finds the program, and who checks it.

    The model reads the user's turns of the prompt and the program as the assistant's turn, without
    fence or prose; turns of other roles are left out, as in its training. Raw is the logit R; the
    score is ln(1 + e^R), which is above zero for every valid program, and zero for a response
    that has none. Control tokens in prompt and program, thoughts included, are read as their
    letters: nothing in either ends a turn, opens one or splits it.
    """

    fingerprint: str
    classifier: Classifier
    programs: Programs
    runs: ClassVar[Literal["device"]] = "device"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "CodeModel":
        """Read the checkpoint that the card names.

        Raises:
            CardError: an option, a file, a weight or a grammar is missing or does not fit, or the
                publisher's numbers do not come out.
        """
        options = card.options_as(CodeOptions)
        programs = Programs.of(card.id, options.extraction, options.languages)
        classifier = Classifier.load(card, files, runtime)
        check_golden(card, files, classifier)
        parts = {
            **classifier.fingerprint_parts,
            **programs.fingerprint_parts,
            "family": card.family,
            "version": VERSION,
        }
        return cls(fingerprint_of(parts), classifier, programs)

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """The conversation of prompt and program; no input at all where there is no program.

        Raises:
            ItemError: the program, or prompt and program together, are too long, or no parser is
                to be had.
        """
        (item,) = items
        assert isinstance(item, CodeItem)
        found = self.programs.found(item.response, item.language)
        if found.code is None:
            return _without_program(found, options)
        turns = (*_asked(item), Message(role="assistant", content=found.code))
        encoded = self.classifier.encode_chat(turns, options.truncation, thoughts="letters")
        return Prepared(
            (encoded.input(),),
            flags=(*flags_of(found), *encoded.flags),
            details={**details_of(found), **encoded.details},
        )

    def cost(self, inputs: Sequence[Input]) -> int:
        """See `Classifier.cost`."""
        return self.classifier.cost(inputs)

    def predict(self, inputs: Sequence[Input]) -> list[Raw]:
        """The logit of each input."""
        return self.classifier.logits(inputs)

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """ln(1 + e^R), or R itself where the request asks for it; 0 where there is no program."""
        if not prepared.inputs:
            return [Score(0.0, None, {"reward": 0.0}, prepared.flags, prepared.details)]
        ((raw,),) = raws
        score = raw if options.raw else shape("softplus", raw)
        return [Score(score, raw, {"reward": score}, prepared.flags, prepared.details)]


def _without_program(found: Extracted, options: Options) -> Prepared:
    if options.raw:
        raise ItemError(
            "invalid_code",
            f"no program to compute a raw score for ({found.reason}): "
            "give one fenced block that parses, or leave options.raw out",
        )
    return Prepared((), flags=flags_of(found), details=details_of(found))


def _asked(item: CodeItem) -> tuple[Message, ...]:
    if isinstance(item.prompt, str):
        return (Message(role="user", content=item.prompt),)
    asked = tuple(message for message in item.prompt if message.role == "user")
    if not asked:
        raise ItemError("invalid_item", "the prompt's messages have no turn of role `user`")
    return asked
