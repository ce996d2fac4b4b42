"""A sequence classifier whose logits an inference engine computes; nothing here imports torch.

Templates are applied, texts tokenized and truncated as for a classifier on a device here. An engine
that takes token ids gets these ids. One that takes text, or takes it for a pair whose segments the
checkpoint reads, gets an item's text only where its own tokenizer, the checkpoint's, makes the same
ids of it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Literal

from assay_models.base import Input, ItemError, Raw, Truncation
from assay_models.card import CardError, ModelCard
from assay_models.engines.client import open_engine
from assay_models.families.classifier.check import Check
from assay_models.families.classifier.checkpoint_files import CheckpointFiles
from assay_models.families.classifier.engine_calls import EngineCalls, Losses
from assay_models.families.classifier.engine_proof import EngineProof
from assay_models.families.classifier.formatting import open_formatter
from assay_models.families.classifier.options import ClassifierOptions, read_options
from assay_models.families.classifier.outputs import Outputs, read_outputs
from assay_models.families.classifier.proof_rows import proof_rows
from assay_models.families.classifier.reference_logits import ReferenceLogits
from assay_models.families.classifier.token_sequence import TokenSequence
from assay_models.families.classifier.tokenization import (
    PromptFormatter,
    SpecialTokens,
)
from assay_models.items import Message
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles

VERSION = 1

_LOCAL_OPTIONS = ("adapter", "changed", "gguf_file", "num_hidden_layers", "surprisal")
"""Options of a checkpoint that is computed here; an engine knows nothing of them."""


@dataclass(frozen=True, slots=True, repr=False)
class RemoteClassifier:
    """An `AutoModelForSequenceClassification` checkpoint that an engine serves.

    `outputs` are in the order of the logits. `own_parts` name all that decides a raw here; the
    engine's parts, which change when another engine is proven, come on top.
    """

    own_parts: Mapping[str, object]
    outputs: Outputs
    _: KW_ONLY
    formatter: PromptFormatter
    config: Any
    calls: EngineCalls
    proof: EngineProof
    runs: ClassVar[Literal["remote"]] = "remote"

    @classmethod
    def open(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "RemoteClassifier":
        """Read the checkpoint's config and tokenizer; the engine is first called by the proof.

        Raises:
            CardError: an option or a file does not fit, or the card asks for what no engine does.
        """
        options = read_options(card)
        _refuse_local(card, options, runtime)
        checkpoint = CheckpointFiles(card, files, options)
        if card.weights.source == "hub":
            checkpoint.verify_hub()
        elif files.weights is None:
            raise CardError(
                f"{card.id}: weights must name the folder, package or hub repository that has the "
                "checkpoint's tokenizer and config"
            )
        config, tokenizer = checkpoint.read_config(), checkpoint.load_tokenizer()
        outputs = read_outputs(card, config, options.labels, options.problem_type)
        segments = getattr(config.get_text_config(), "type_vocab_size", 0) or 0
        formatter = open_formatter(
            checkpoint,
            tokenizer,
            vocabulary_size=config.get_text_config().vocab_size,
            has_type_ids="token_type_ids" in tokenizer.model_input_names and segments > 1,
        )
        losses = Losses(runtime.engine_listener)
        engine = open_engine(card, listener=losses)
        calls = EngineCalls(engine, card, losses=losses, labels=len(outputs.labels))
        parts = {
            **checkpoint.fingerprint_parts(),
            **formatter.fingerprint_parts,
            "remote_classifier": VERSION,
        }
        encode = _Encoder(formatter, calls)
        proof = EngineProof(
            card,
            outputs,
            calls=calls,
            rows=proof_rows(card, encode.text),
            reference=ReferenceLogits.of(card, files, options),
            listener=runtime.engine_listener,
        )
        return cls(parts, outputs, formatter=formatter, config=config, calls=calls, proof=proof)

    @property
    def fingerprint_parts(self) -> Mapping[str, object]:
        """All that decides a raw, with the engine that was proven last."""
        return {**self.own_parts, **self.proof.fingerprint_parts}

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the logits, in their order."""
        return self.outputs.labels

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer; set nothing on it, threads share it."""
        return self.formatter.tokenizer

    def require(self, check: Check) -> None:
        """Add a check to the proof of the engine."""
        self.proof.require(check.inputs, check.verify)

    def encode_text(
        self,
        text: str,
        text_pair: str | None,
        truncation: Truncation,
        special_tokens: SpecialTokens = "literal",
    ) -> TokenSequence:
        """Encode a text or a pair; see `PromptFormatter.encode_text`.

        Raises:
            ItemError: the text is too long, or the engine would read something else.
        """
        return self._encoder.text(text, text_pair, truncation, special_tokens)

    def encode_chat(
        self,
        messages: Sequence[Message],
        truncation: Truncation,
        *,
        escape_control_tokens: bool = False,
    ) -> TokenSequence:
        """Encode a conversation; see `PromptFormatter.encode_chat`.

        Raises:
            ItemError: it is too long, or the engine would read something else.
        """
        sequence = self.formatter.encode_chat(
            messages, truncation, escape_control_tokens=escape_control_tokens
        )
        return self._encoder.readable(sequence, lambda: (self.formatter.render(messages), None))

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of tokens sent; engines pad none."""
        return sum(row.tokens for row in inputs)

    async def logits(self, inputs: Sequence[Input]) -> list[Raw | ItemError]:
        """Compute the logits of each input, in one call; see `EngineCalls.logits`."""
        return await self.calls.logits(inputs)

    @property
    def _encoder(self) -> "_Encoder":
        return _Encoder(self.formatter, self.calls)


@dataclass(frozen=True, slots=True)
class _Encoder:
    """The encoder of items in the form that an engine takes."""

    formatter: PromptFormatter
    calls: EngineCalls

    def text(
        self,
        text: str,
        text_pair: str | None,
        truncation: Truncation,
        special_tokens: SpecialTokens = "literal",
    ) -> TokenSequence:
        sequence = self.formatter.encode_text(text, text_pair, truncation, special_tokens)
        return self.readable(sequence, lambda: (text, text_pair or None))

    def readable(
        self, sequence: TokenSequence, texts: Callable[[], tuple[str, str | None]]
    ) -> TokenSequence:
        """Return a sequence as the engine reads it.

        Raises:
            ItemError: the engine takes ids and no segments, and the sequence has two; or it takes
                text, and its tokenizer makes other ids of it.
        """
        if self.calls.engine.takes == "ids":
            if sequence.type_ids is None or not any(sequence.type_ids):
                return replace(sequence, type_ids=None)
            if not self.calls.takes_pairs:
                raise ItemError(
                    "invalid_item",
                    "the checkpoint reads the segments of a pair, which cannot be sent as token "
                    "ids, nor to vLLM as text where it has several labels: serve it by an engine "
                    "with the protocol tei",
                )
        text, pair = texts()
        text = text.removeprefix(self.formatter.text_prefix)
        if not self.formatter.reads_as(text, pair, sequence):
            raise ItemError(
                "invalid_item",
                "the engine takes text, and would read other tokens than these: the text writes a "
                "special token, or was truncated",
            )
        return replace(sequence, text=text if pair is None else (text, pair))


def _refuse_local(card: ModelCard, options: ClassifierOptions, runtime: Runtime) -> None:
    given = [name for name in _LOCAL_OPTIONS if getattr(options, name) is not None]
    if given:
        raise CardError(
            f"{card.id}: options.{given[0]} is for a checkpoint that is computed here: merge it "
            "into the checkpoint that the engine serves, or leave [engine] out"
        )
    if options.pooling != "transformers":
        raise CardError(f"{card.id}: options.pooling is for a checkpoint that is computed here")
    if runtime.deterministic:
        raise CardError(
            f"{card.id}: ASSAY_DETERMINISTIC promises equal bits in every batch, which an engine "
            "does not: serve the model without [engine], or on another server"
        )
