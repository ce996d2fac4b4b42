"""A Hugging Face sequence classifier on one device: texts in, fp32 logits out.

The logits of a sequence are those that plain Transformers computes for that sequence alone and
unpadded, whatever else is in the batch.
"""

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from assay_models.base import DeviceOutOfMemory, Input, ItemError, Raw, Truncation
from assay_models.card import CardError, ModelCard
from assay_models.families.classifier.batch_layout import BatchLayout, Body, head_of
from assay_models.families.classifier.check import Check
from assay_models.families.classifier.checkpoint import Checkpoint
from assay_models.families.classifier.device import reduced_precision, usable_device
from assay_models.families.classifier.formatting import open_formatter
from assay_models.families.classifier.options import ClassifierOptions, read_options
from assay_models.families.classifier.outputs import Outputs, read_outputs
from assay_models.families.classifier.parity import (
    ParityError,
    Trial,
    choose_layout,
    numeric_environment,
)
from assay_models.families.classifier.positions import (
    first_position,
    refuse_longer_than_positions,
)
from assay_models.families.classifier.surprisal import Surprisal
from assay_models.families.classifier.token_sequence import TokenSequence
from assay_models.families.classifier.tokenization import (
    PromptFormatter,
    SpecialTokens,
)
from assay_models.items import Message
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles

VERSION = 1


@dataclass(frozen=True, slots=True, repr=False)
class LocalClassifier:
    """An `AutoModelForSequenceClassification` checkpoint.

    `outputs` are in the order of the logits. `fingerprint_parts` name all that decides a raw; a
    family adds its own and digests them. The body computes in the runtime's dtype, the head always
    in fp32. `layout` makes one forward pass of a batch.
    """

    fingerprint_parts: Mapping[str, object]
    outputs: Outputs
    _: KW_ONLY
    formatter: PromptFormatter
    model: Any
    layout: BatchLayout
    runs: ClassVar[Literal["device"]] = "device"
    proof: ClassVar[None] = None

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "LocalClassifier":
        """Read the checkpoint that a card names onto the runtime's device.

        Raises:
            CardError: an option, a file or a weight is missing or does not fit, the device does
                not exist, or a short text beside a longer one does not score as it does alone.
        """
        options = read_options(card)
        checkpoint = Checkpoint(card, files, options)
        dtype, device = _dtype(card, runtime), usable_device(card, runtime.device)
        model, tokenizer = checkpoint.load(dtype)
        refuse_longer_than_positions(card, model)
        outputs = read_outputs(card, model.config, options.labels, options.problem_type)
        formatter = open_formatter(
            checkpoint,
            tokenizer,
            vocabulary_size=model.get_input_embeddings().num_embeddings,
            has_type_ids=_takes_type_ids(model, tokenizer),
        )
        parts = {
            **checkpoint.fingerprint_parts(),
            "classifier": VERSION,
            **formatter.fingerprint_parts,
            "dtype": str(dtype),
            "attention": model.config._attn_implementation,
            **reduced_precision(os.environ),
        }
        placed = _in_precision(model, dtype).to(device)
        body = _body(card, options, device, model=placed, tokenizer=tokenizer)
        layout = _layout(card, body, formatter, dtype=dtype, deterministic=runtime.deterministic)
        if runtime.deterministic:
            parts["deterministic"] = (layout.name, *numeric_environment(device))
        formatter = replace(formatter, has_prefix_keys=layout.shares_prefixes)
        return cls(parts, outputs, formatter=formatter, model=placed, layout=layout)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the logits, in their order."""
        return self.outputs.labels

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer; set nothing on it, threads share it."""
        return self.formatter.tokenizer

    @property
    def config(self) -> Any:
        """The checkpoint's config, as Transformers reads it."""
        return self.model.config

    def require(self, check: Check) -> None:
        """Compute a check's inputs, one at a time, and verify their raws.

        Raises:
            CardError: a raw is not what it must be.
        """
        check.verify([raw for row in check.inputs for raw in self.logits([row])])

    def encode_text(
        self,
        text: str,
        text_pair: str | None,
        truncation: Truncation,
        special_tokens: SpecialTokens = "literal",
    ) -> TokenSequence:
        """Encode a text or a pair; see `PromptFormatter.encode_text`."""
        return self.formatter.encode_text(text, text_pair, truncation, special_tokens)

    def encode_chat(
        self,
        messages: Sequence[Message],
        truncation: Truncation,
        *,
        escape_control_tokens: bool = False,
    ) -> TokenSequence:
        """Encode a conversation; see `PromptFormatter.encode_chat`."""
        return self.formatter.encode_chat(
            messages, truncation, escape_control_tokens=escape_control_tokens
        )

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of tokens that one forward pass of these computes."""
        return self.layout.cost(inputs)

    def logits(self, inputs: Sequence[Input]) -> list[Raw]:
        """Compute the fp32 logits of each input, in one forward pass for all.

        Raises:
            DeviceOutOfMemory: the batch does not fit; a smaller one may.
        """
        try:
            with torch.inference_mode():
                logits = self.layout.logits(inputs)
        except torch.OutOfMemoryError as error:
            raise DeviceOutOfMemory(str(error)) from error
        return [tuple(row) for row in logits.float().tolist()]


_UNEQUAL = ("one", "one text, which is longer than the other by more than a few words")
_OPENING = " ".join(f"item {number} of the opening they share," for number in range(8))
_ALIKE = (f"{_OPENING} and an end", f"{_OPENING} but then another end, a little longer", _OPENING)
_REPEATS = (1, 1, 2, 4)


def _body(
    card: ModelCard,
    options: ClassifierOptions,
    device: torch.device,
    *,
    model: Any,
    tokenizer: Any,
) -> Body:
    ignored = model.config.get_text_config().pad_token_id
    return Body(
        model,
        device,
        head_input="last" if isinstance(getattr(model, "score", None), nn.Linear) else "first",
        pad_id=_pad_id(model, tokenizer),
        ignored_id=None if options.pooling == "last" else ignored,
        max_tokens=card.limits.max_tokens,
        first_position=first_position(model),
        has_type_ids=_takes_type_ids(model, tokenizer),
        surprisal=_surprisal(card, model, tokenizer, options),
    )


def _surprisal(
    card: ModelCard, model: Any, tokenizer: Any, options: ClassifierOptions
) -> Surprisal | None:
    if options.surprisal is None:
        return None
    try:
        return Surprisal.from_decoder(model, tokenizer, options.surprisal)
    except ValueError as error:
        raise CardError(f"{card.id}: {error}") from error


def _layout(
    card: ModelCard,
    body: Body,
    formatter: PromptFormatter,
    *,
    dtype: torch.dtype,
    deterministic: bool,
) -> BatchLayout:
    tolerance = 1e-3 if dtype == torch.float32 else 0.05
    try:
        trial = Trial(_trial_rows(formatter, deterministic=deterministic), tolerance)
        return choose_layout(body, head_of(body.model), trial, deterministic=deterministic)
    except ParityError as error:
        raise CardError(f"{card.id}: {error}") from error
    except ItemError as error:
        raise CardError(
            f"{card.id}: no plain English can be computed: {error.detail}. Either the tokenizer is "
            "another checkpoint's, or limits.max_tokens is too low"
        ) from error


def _trial_rows(formatter: PromptFormatter, *, deterministic: bool) -> list[Input]:
    texts = list(_UNEQUAL)
    if deterministic:
        texts += [" ".join([text] * count) for count in _REPEATS for text in (*_UNEQUAL, *_ALIKE)]
    unequal = [formatter.encode_text(text, None, "right") for text in texts]
    alike = [
        replace(formatter.encode_text(text, None, "right"), prefix_key=b"alike") for text in _ALIKE
    ]
    return [sequence.input() for sequence in (*unequal, *alike)]


def _dtype(card: ModelCard, runtime: Runtime) -> torch.dtype:
    dtype = getattr(torch, runtime.dtype, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise CardError(
            f"{card.id}: {runtime.dtype!r} is no floating dtype of torch: take "
            "float32, bfloat16 or float16"
        )
    return dtype


def _takes_type_ids(model: Any, tokenizer: Any) -> bool:
    name = "token_type_ids"
    return (
        name in tokenizer.model_input_names and name in inspect.signature(model.forward).parameters
    )


def _pad_id(model: Any, tokenizer: Any) -> int:
    # Some bodies number only the positions of other ids than this; for the rest any id will do.
    embeddings = model.get_input_embeddings()
    if embeddings.padding_idx is not None:
        return int(embeddings.padding_idx)
    own = tokenizer.pad_token_id or 0
    return int(own) if own < embeddings.num_embeddings else 0


def _in_precision(model: Any, dtype: torch.dtype) -> Any:
    body = model.base_model
    if dtype == torch.float32:
        return model
    pooler = getattr(body, "pooler", None)
    heads = [child for child in (*model.children(), pooler) if child not in (body, None)]
    exact = {parameter for head in heads for parameter in head.float().parameters()}
    # Parameters alone: the buffers of rotary embeddings must stay fp32.
    for parameter in body.parameters():
        if parameter not in exact:
            parameter.data = parameter.data.to(dtype)
    if pooler is not None:
        pooler.register_forward_pre_hook(_upcast_arguments)
    body.register_forward_hook(_upcast_outputs)
    return model


def _upcast_arguments(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(part.float() if isinstance(part, Tensor) else part for part in arguments)


def _upcast_outputs(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> Any:
    for name in ("last_hidden_state", "pooler_output"):
        if getattr(output, name, None) is not None:
            output[name] = output[name].float()
    return output
