"""Any sequence classifier of the hub as a reward model: a scalar head, or one score of several
outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar, Literal

from pydantic import FiniteFloat

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import ModelCard
from assay_models.families.classifier.opening import Classifier, Logits, open_classifier
from assay_models.families.classifier.options import ClassifierOptions
from assay_models.families.classifier.outputs import Mix, choose_mix
from assay_models.families.classifier.token_sequence import TokenSequence
from assay_models.families.classifier.tokenization import SpecialTokens
from assay_models.items import Message, TextItem
from assay_models.proof import Proof
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of
from assay_models.shaping import Shaping, shape

VERSION = 1


class SequenceClassifierOptions(ClassifierOptions):
    """`[options]` of a card of this family, besides those of every classifier.

    `shaping` makes the score from the raw. Of several outputs, `score_label` names the one that is
    the raw, or `weights` those whose weighted sum is. `text_special_tokens` says how a special
    token written in `text` is encoded: `parse` takes `text` for a rendered conversation and the
    token for itself, `literal` for its letters; `auto` parses where the checkpoint has a chat
    template.
    """

    shaping: Shaping = "identity"
    score_label: str | None = None
    weights: dict[str, FiniteFloat] | None = None
    text_special_tokens: Literal["auto", "parse", "literal"] = "auto"


@dataclass(frozen=True, slots=True)
class SequenceClassifier:
    """One checkpoint with the interface of a reward model.

    A single output: raw is its logit, the channel is `reward`. Several outputs: each is a channel,
    as Transformers' pipeline serves it (a softmax's or a sigmoid's probability, or a regression's
    number), and the first channel is the score's. Raw is the log-odds of `score_label`, or the
    number itself in a regression; with `weights` it is the sum of weight times channel, and the
    channel `reward` is the score. The score is the shaped raw; with `sigmoid` of log-odds it is the
    label's probability.
    """

    own_parts: Mapping[str, object]
    classifier: Classifier
    _: KW_ONLY
    shaping: Shaping
    mix: Mix
    text_special_tokens: SpecialTokens
    sees: ClassVar[Literal["item"]] = "item"

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "SequenceClassifier":
        """Read the checkpoint that the card names.

        Raises:
            CardError: an option, a file or a weight is missing or does not fit.
        """
        options = card.options_as(SequenceClassifierOptions)
        classifier = open_classifier(card, files, runtime)
        mix = choose_mix(card, classifier.outputs, options.score_label, options.weights)
        special = options.text_special_tokens
        if special == "auto":
            special = "parse" if classifier.formatter.chat_template else "literal"
        return cls(
            {"family": card.family, "version": VERSION},
            classifier,
            shaping=options.shaping,
            mix=mix,
            text_special_tokens=special,
        )

    @property
    def fingerprint(self) -> str:
        """The digest of all that decides a raw."""
        return fingerprint_of({**self.own_parts, **self.classifier.fingerprint_parts})

    @property
    def runs(self) -> Literal["device", "remote"]:
        """Whether the logits are computed here."""
        return self.classifier.runs

    @property
    def proof(self) -> Proof | None:
        """The proof of an engine's numbers; None on a device."""
        return self.classifier.proof

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Encode the one item as one sequence.

        Raises:
            ItemError: the fields do not go together, or the text is too long.
        """
        (item,) = items
        assert isinstance(item, TextItem)
        sequence = self._encode(item, options)
        return Prepared((sequence.input(),), flags=sequence.flags, details=sequence.details)

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of tokens that are computed; see `Classifier.cost`."""
        return self.classifier.cost(inputs)

    def predict(self, inputs: Sequence[Input]) -> Logits:
        """Compute the logits of each input."""
        return self.classifier.logits(inputs)

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Return the shaped raw of the card's score, with all outputs as channels."""
        (logits,) = raws
        raw = self.mix.raw(logits)
        score = raw if options.raw else shape(self.shaping, raw)
        channels = self.mix.channels(logits, score)
        details = {**prepared.details, **self.mix.details(channels)}
        return [Score(score, raw, channels=channels, flags=prepared.flags, details=details)]

    def _encode(self, item: TextItem, options: Options) -> TokenSequence:
        classifier, truncation = self.classifier, options.truncation
        match _given_fields(item):
            case ("text",) | ("text", "text_pair"):
                special = self.text_special_tokens
                return classifier.encode_text(item.text or "", item.text_pair, truncation, special)
            case ("messages",):
                return classifier.encode_chat(item.messages or (), truncation)
            case ("prompt", "response"):
                return self._encode_answer(item, options)
        raise ItemError(
            "invalid_item",
            "give `prompt` and `response`, or `messages`, or `text` (with `text_pair`)",
        )

    def _encode_answer(self, item: TextItem, options: Options) -> TokenSequence:
        prompt, response = item.prompt, item.response or ""
        if isinstance(prompt, str) and self.classifier.formatter.chat_template is None:
            return self.classifier.encode_text(prompt, response, options.truncation)
        if isinstance(prompt, str):
            prompt = (Message(role="user", content=prompt),)
        messages = (*(prompt or ()), Message(role="assistant", content=response))
        return self.classifier.encode_chat(messages, options.truncation)


def _given_fields(item: TextItem) -> tuple[str, ...]:
    fields = ("prompt", "response", "messages", "text", "text_pair")
    return tuple(name for name in fields if getattr(item, name) is not None)
