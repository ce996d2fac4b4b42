"""The NLI model: a cross-encoder that scores one pair, or the claims of a response."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from importlib.metadata import version
from itertools import chain, islice
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from assay_models.base import Input, Item, ItemError, Options, Prepared, Raw, Score
from assay_models.card import CardError, ModelCard
from assay_models.families.classifier.opening import Classifier, Logits, open_classifier
from assay_models.families.classifier.options import ClassifierOptions
from assay_models.families.classifier.token_sequence import TokenSequence
from assay_models.families.nli.chunking import Chunk, Evidence
from assay_models.families.nli.inputs import ClaimSet, NamedClaim, read_claims, read_pair
from assay_models.families.nli.label_mapping import (
    label_check,
    map_labels,
    refuse_other_heads,
    refuse_other_names,
)
from assay_models.families.nli.verdicts import ClaimScorer, ClassifiedClaims
from assay_models.items import NliItem
from assay_models.languages import Languages, known_codes
from assay_models.preemption import preemption_point
from assay_models.proof import Proof
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles, fingerprint_of

VERSION = 3
# Claims of like length share the chunks of their evidence: window sizes are multiples of this.
WINDOW_STEP_TOKENS = 32
# The share of the model's tokens that a claim must leave to its evidence.
MIN_WINDOW_SHARE = 1 / 4
MAX_KNOWN_TOKENS = 65_536
_LIBRARIES = ("livekit-blingfire", "py3langid")


class NliOptions(ClassifierOptions):
    """`[options]` of a card of this family, besides those of every classifier.

    `temperature` divides the logits (Guo et al., 2017, arXiv 1706.04599). `max_pairs` bounds the
    forward passes of one item, claims times chunks of evidence. `chunk_tokens`: the most tokens of
    evidence that are read at once, where that is less than the encoder has room for. `languages`:
    those that the checkpoint reads, in ISO 639-1 codes, or `any`. `min_confidence`: a probability
    below which a label is `low_confidence`; a label under one half is more likely wrong than right.
    `probes`: whether obvious English pairs must be classified right before the model is served.
    """

    temperature: float = Field(default=1.0, gt=0)
    max_pairs: int = Field(default=4096, ge=1)
    chunk_tokens: int | None = Field(default=None, ge=16)
    languages: Annotated[tuple[str, ...], Field(min_length=1)] = ("en",)
    min_confidence: float = Field(default=0.5, ge=0, le=1)
    probes: bool = True


@dataclass(frozen=True, slots=True, repr=False)
class NliModel:
    """One checkpoint, with its labels found by name.

    A pair: raw is the log-odds of entailment, the score is the same of the logits over the
    temperature, and the channels are the calibrated probabilities. Claims: each is compared with
    each chunk of each passage; raw is phi as the formula gives it, the score is phi cut to [-1, 1]
    (see `claims.phi`), and the channels are phi, the shares of the labels, and measures of the
    answer. `max_chunk_tokens` is the most tokens of evidence read at once.
    """

    own_parts: Mapping[str, object]
    classifier: Classifier
    _: KW_ONLY
    scorer: ClaimScorer
    languages: Languages
    max_chunk_tokens: int
    max_pairs: int
    sees: ClassVar[Literal["item"]] = "item"

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

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "NliModel":
        """Read the checkpoint that the card names.

        Raises:
            CardError: an option, a file or a weight does not fit, the labels or the problem type
                do not say what the logits mean, or obvious pairs are classified wrong.
        """
        options = card.options_as(NliOptions)
        _refuse_unknown(card, options.languages)
        classifier = open_classifier(card, files, runtime)
        refuse_other_heads(card, classifier.outputs)
        config = classifier.config
        configured = [str(config.id2label.get(at)) for at in range(config.num_labels)]
        refuse_other_names(card, configured)
        mapping = map_labels(card, classifier.labels)
        if options.probes and "en" in options.languages:
            classifier.require(label_check(card, mapping, classifier.encode_text))
        libraries = {name: version(name) for name in _LIBRARIES}
        room = classifier.formatter.max_pair_tokens
        return cls(
            {"family": card.family, "version": VERSION, **libraries},
            classifier,
            scorer=ClaimScorer(mapping, options.temperature, options.min_confidence),
            languages=Languages(options.languages),
            max_chunk_tokens=min(room, options.chunk_tokens or room),
            max_pairs=options.max_pairs,
        )

    def prepare(self, items: Sequence[Item], options: Options) -> Prepared:
        """Encode a pair as one sequence, and claims as one for each claim and chunk of evidence.

        Raises:
            ItemError: the fields do not go together, there is no claim or no evidence, they are in
                a language that the model does not read, there are too many pairs, or a pair or a
                claim is too long.
        """
        (item,) = items
        assert isinstance(item, NliItem)
        pair = read_pair(item, self._can_read)
        if pair is not None:
            sequence = self._encode_pair(*pair, options)
            return Prepared((sequence.input(),), None, sequence.flags, sequence.details)
        claims = read_claims(item, self._can_read, self._refuse_too_many)
        return self._prepare_claims(claims, options)

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of tokens that are computed; see `Classifier.cost`."""
        return self.classifier.cost(inputs)

    def predict(self, inputs: Sequence[Input]) -> Logits:
        """Compute the logits of each input, in the checkpoint's order."""
        return self.classifier.logits(inputs)

    def finish(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> list[Score]:
        """Return the log-odds of entailment for a pair, phi for claims."""
        if prepared.state is None:
            return [self.scorer.score_pair(prepared, raws[0], options)]
        return [self.scorer.score_claims(prepared, raws, options)]

    def _can_read(self, text: str) -> bool:
        """Return whether a text is in a language of the model, and most of its tokens are known.

        Of a long text the first `MAX_KNOWN_TOKENS` decide.
        """
        if not self.languages.can_read(text):
            return False
        tokens = self.classifier.formatter.tokenize(text, MAX_KNOWN_TOKENS)
        return 2 * tokens.unknown <= len(tokens.offsets)

    def _encode_pair(self, premise: str, hypothesis: str, options: Options) -> TokenSequence:
        try:
            return self.classifier.encode_text(premise, hypothesis, options.truncation)
        except ItemError as error:
            if error.code != "input_too_long":
                raise
            hint = f"{error.detail}, or give `evidence` and `claims`: evidence is read in chunks"
            raise ItemError(error.code, hint) from None

    def _prepare_claims(self, claim_set: ClaimSet, options: Options) -> Prepared:
        pairs = self._encode_claims(claim_set, options)
        sequences = [sequence for claim in claim_set.claims for _, sequence in pairs[claim.text]]
        truncated = sum(sequence.truncated for sequence in sequences)
        classified = ClassifiedClaims(
            claims=tuple(
                (claim.name, tuple(chunk for chunk, _ in pairs[claim.text]))
                for claim in claim_set.claims
            ),
            unread=tuple(claim_set.unread),
            characters=sum(map(len, claim_set.passages.values())),
            signals=claim_set.signals,
        )
        return Prepared(
            tuple(sequence.input() for sequence in sequences),
            classified,
            flags=("truncated", *claim_set.flags) if truncated else claim_set.flags,
            details={
                **({"truncated_tokens": truncated} if truncated else {}),
                **claim_set.details,
            },
        )

    def _encode_claims(
        self, claim_set: ClaimSet, options: Options
    ) -> dict[str, list[tuple[Chunk, TokenSequence]]]:
        """Encode each claim with each chunk, each different claim once, by the claim's text."""
        claims, passages = claim_set.claims, claim_set.passages
        evidence = Evidence(
            dict(passages), self._tokenize, min(self._min_window, self.max_chunk_tokens)
        )
        self._refuse_too_many(len(claims) * len(passages))
        for tokens in evidence.count_tokens():
            self._refuse_too_many(len(claims) * (tokens // self.max_chunk_tokens))
        encoded: dict[str, list[tuple[Chunk, TokenSequence]]] = {}
        count = 0
        for claim in claims:
            if claim.text not in encoded:
                left = self.max_pairs - count
                # One more than there may be, and no further pair is encoded in vain.
                pairs = self._encode_claim(claim, evidence, options)
                encoded[claim.text] = list(islice(pairs, left + 1))
            count += len(encoded[claim.text])
            self._refuse_too_many(count)
        return encoded

    def _encode_claim(
        self, claim: NamedClaim, evidence: Evidence, options: Options
    ) -> Iterator[tuple[Chunk, TokenSequence]]:
        """Yield a claim with each chunk, in windows that depend on this claim alone."""
        room = self.classifier.formatter.max_pair_tokens
        tokens = len(self._tokenize(claim.text))
        min_window = self._min_window
        if tokens > room - min_window and options.truncation == "error":
            raise ItemError(
                "input_too_long",
                f"claim {claim.name['index']} has {tokens} tokens, the model takes "
                f"{room - min_window} beside its evidence: shorten it, or set "
                "options.truncation to left, right or middle",
            )
        exact = min(max(room - tokens, min_window), self.max_chunk_tokens)
        rounded = -(-tokens // WINDOW_STEP_TOKENS) * WINDOW_STEP_TOKENS
        window = min(max(room - rounded, min_window), self.max_chunk_tokens)
        seen: set[Chunk] = set()
        for chunk in chain(evidence.chunks(exact, window), evidence.copied(claim.text, exact)):
            if chunk not in seen:
                seen.add(chunk)
                text = evidence.text(chunk)
                sequence = self.classifier.encode_text(text, claim.text, options.truncation)
                preemption_point(len(sequence.ids), 1)
                yield chunk, sequence

    @property
    def _min_window(self) -> int:
        """The fewest tokens that a claim of any length leaves to a chunk of evidence."""
        return max(1, int(self.classifier.formatter.max_pair_tokens * MIN_WINDOW_SHARE))

    def _tokenize(self, text: str) -> Sequence[tuple[int, int]]:
        return self.classifier.formatter.tokenize(text).offsets

    def _refuse_too_many(self, pairs: int) -> None:
        if pairs > self.max_pairs:
            raise ItemError(
                "too_many_pairs",
                f"{pairs} pairs of a claim and a chunk of evidence, or more, are over the limit of "
                f"{self.max_pairs} pairs: give fewer passages, or split the item",
            )


def _refuse_unknown(card: ModelCard, languages: Sequence[str]) -> None:
    unknown = sorted(set(languages) - known_codes())
    if unknown:
        raise CardError(
            f"{card.id}: options.languages: {', '.join(unknown)} cannot be distinguished from "
            "others; give two-letter codes (ISO 639-1), or any"
        )
