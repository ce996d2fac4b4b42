"""A code reward model in the manner of CodeScaler (arXiv 2602.17684): the bare program is scored,
and what holds no valid program gets exactly zero without being shown to the model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import ModelCard
from assay_models.extraction import MAX_CHARACTERS, PARSER, Extracted, Extraction, extract
from assay_models.families.classifier import Classifier, ClassifierOptions
from assay_models.items import CodeItem, Message
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of
from assay_models.shaping import shape

VERSION = 1


class CodeOptions(ClassifierOptions):
    """`[options]` of a card of this family, besides what every classifier takes.

    `extraction` says where in a response its program is: `strict`, `last_block` or `raw_code`.
    """

    extraction: Extraction = "strict"


@dataclass(frozen=True, slots=True)
class CodeModel:
    """One checkpoint with one logit, and the rule that finds the program.

    The model reads the user's turns of the prompt and the program as the assistant's turn, without
    fence or prose; turns of other roles are left out, as in its training. Raw is the logit R; the
    score is ln(1 + e^R), which is above zero for every valid program, and zero for a response
    that has none.
    """

    fingerprint: str
    classifier: Classifier
    extraction: Extraction
    runs: ClassVar[Literal["device"]] = "device"
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "CodeModel":
        """Read the checkpoint that the card names.

        Raises:
            CardError: an option, a file or a weight is missing or does not fit.
        """
        options = CodeOptions.of(card)
        classifier = Classifier.load(card, files, runtime)
        parts = {
            **classifier.fingerprint_parts,
            "family": card.family,
            "version": VERSION,
            "extraction": options.extraction,
            "parser": PARSER,
        }
        return cls(fingerprint_of(parts), classifier, options.extraction)

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """The conversation of prompt and program; no input at all where there is no program.

        Raises:
            ItemError: the program, or prompt and program together, are too long.
        """
        (item,) = items
        assert isinstance(item, CodeItem)
        found = extract(item.response, self.extraction, item.language)
        details = {"extraction": found.reason}
        if found.code is None:
            return _without_program(found, options)
        turns = (*_asked(item), Message(role="assistant", content=found.code))
        encoded = self.classifier.encode_chat(turns, options.truncation)
        flags = ("trivial_code",) if found.reason == "trivial" else ()
        return Prepared(
            (encoded.input(),),
            flags=(*flags, *encoded.flags),
            details={**details, **encoded.details},
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
    if found.reason == "too_large":
        raise ItemError(
            "input_too_long", f"the program has more than {MAX_CHARACTERS} characters: shorten it"
        )
    if options.raw:
        raise ItemError(
            "invalid_code",
            f"no program to compute a raw score for ({found.reason}): "
            "give one fenced Python block that parses, or leave options.raw out",
        )
    return Prepared((), flags=("invalid_code",), details={"extraction": found.reason})


def _asked(item: CodeItem) -> tuple[Message, ...]:
    if isinstance(item.prompt, str):
        return (Message(role="user", content=item.prompt),)
    asked = tuple(message for message in item.prompt if message.role == "user")
    if not asked:
        raise ItemError("invalid_item", "the prompt's messages have no turn of role `user`")
    return asked
