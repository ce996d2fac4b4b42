"""A code reward model in the manner of CodeScaler (arXiv 2602.17684): the bare program is scored,
and what holds no valid program gets exactly zero without being shown to the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import CardError, ModelCard
from assay_models.extraction import (
    LANGUAGES,
    MAX_CHARACTERS,
    PARSER,
    Extracted,
    Extraction,
    Language,
    extract,
)
from assay_models.extraction.languages import missing_grammars
from assay_models.extraction.pool import Parsers, ParserUnavailable
from assay_models.families.classifier import Classifier, ClassifierOptions
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
    extraction: Extraction
    languages: tuple[Language, ...]
    parsers: Parsers
    runs: ClassVar[Literal["device"]] = "device"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "CodeModel":
        """Read the checkpoint that the card names.

        Raises:
            CardError: an option, a file, a weight or a grammar is missing or does not fit.
        """
        options = CodeOptions.of(card)
        missing = missing_grammars(options.languages)
        if missing:
            raise CardError(f"{card.id} needs {', '.join(missing)}: pip install 'assay[models]'")
        classifier = Classifier.load(card, files, runtime)
        parts = {
            **classifier.fingerprint_parts,
            "family": card.family,
            "version": VERSION,
            "extraction": options.extraction,
            "languages": sorted(options.languages),
            "parser": PARSER,
        }
        fingerprint = fingerprint_of(parts)
        return cls(fingerprint, classifier, options.extraction, options.languages, Parsers())

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """The conversation of prompt and program; no input at all where there is no program.

        Raises:
            ItemError: the program, or prompt and program together, are too long, or no parser is
                to be had.
        """
        (item,) = items
        assert isinstance(item, CodeItem)
        found = self._extracted(item)
        if found.code is None:
            return _without_program(found, options)
        turns = (*_asked(item), Message(role="assistant", content=found.code))
        encoded = self.classifier.encode_chat(turns, options.truncation, thoughts="letters")
        return Prepared(
            (encoded.input(),),
            flags=(*_flags(found), *encoded.flags),
            details={**_details(found), **encoded.details},
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

    def _extracted(self, item: CodeItem) -> Extracted:
        try:
            return extract(
                item.response, self.extraction, item.language, self.languages, self.parsers.judge
            )
        except ParserUnavailable as error:
            detail = f"the program could not be checked: {error}; send it again"
            raise ItemError("parser_unavailable", detail) from error


def _flags(found: Extracted) -> tuple[str, ...]:
    flags = {
        "invalid_code": found.code is None,
        "trivial_code": found.reason == "trivial",
        "hidden_characters": found.hidden > 0,
    }
    return tuple(flag for flag, is_set in flags.items() if is_set)


def _details(found: Extracted) -> dict[str, Any]:
    details: dict[str, Any] = {"extraction": found.reason}
    if found.language is not None:
        details["language"] = found.language
    if found.hidden:
        details["hidden_characters"] = found.hidden
    return details


def _without_program(found: Extracted, options: Options) -> Prepared:
    if found.reason == "too_large":
        raise ItemError(
            "input_too_long", f"the program has more than {MAX_CHARACTERS} characters: shorten it"
        )
    if options.raw:
        raise ItemError(
            "invalid_code",
            f"no program to compute a raw score for ({found.reason}): "
            "give one fenced block that parses, or leave options.raw out",
        )
    return Prepared((), flags=_flags(found), details=_details(found))


def _asked(item: CodeItem) -> tuple[Message, ...]:
    if isinstance(item.prompt, str):
        return (Message(role="user", content=item.prompt),)
    asked = tuple(message for message in item.prompt if message.role == "user")
    if not asked:
        raise ItemError("invalid_item", "the prompt's messages have no turn of role `user`")
    return asked
