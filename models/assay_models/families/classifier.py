"""A Hugging Face sequence classifier on one device: texts in, fp32 logits out.

What it computes for a sequence is what plain Transformers computes for that sequence alone and
unpadded, whatever else is in the batch.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from assay_models.base import DeviceOutOfMemory, Input, Raw, Truncation
from assay_models.card import CardError, ModelCard
from assay_models.families.checkpoint import Checkpoint, ClassifierOptions
from assay_models.families.rendering import Encoded, Renderer, SpecialTokens
from assay_models.items import Message
from assay_models.registry import Runtime
from assay_models.repository import ModelFiles

__all__ = ["Classifier", "ClassifierOptions", "Encoded"]

VERSION = 1


@dataclass(frozen=True, slots=True, repr=False)
class Classifier:
    """An `AutoModelForSequenceClassification` checkpoint.

    `labels` are in the order of the logits. `fingerprint_parts` name all that decides a raw;
    a family adds its own and digests them. The body computes in the runtime's dtype, the head
    always in fp32. `pad_id` fills up rows; `ignored_id` is the one a decoder's score is not read
    at.
    """

    fingerprint_parts: Mapping[str, object]
    labels: tuple[str, ...]
    renderer: Renderer
    model: Any
    device: torch.device
    pad_id: int
    ignored_id: int | None

    @classmethod
    def load(cls, card: ModelCard, files: ModelFiles, runtime: Runtime) -> "Classifier":
        """Read the checkpoint that a card names onto the runtime's device.

        Raises:
            CardError: an option, a file or a weight is missing or does not fit, or a short text
                beside a longer one does not score as it does alone.
        """
        own = {name: card.options[name] for name in card.options.keys() & _OPTIONS}
        options = ClassifierOptions.of(card.model_copy(update={"options": own}))
        checkpoint = Checkpoint(card, files, options)
        dtype = _dtype(card, runtime)
        model = checkpoint.load_model(dtype)
        tokenizer = checkpoint.load_tokenizer()
        _refuse_longer_than_positions(card, model)
        labels = _labels(card, options, model.config)
        template = checkpoint.chat_template()
        renderer = Renderer.of(
            tokenizer,
            card.limits.max_tokens,
            model.get_input_embeddings().num_embeddings,
            _takes_type_ids(model, tokenizer),
            template,
        )
        parts = {
            **checkpoint.fingerprint_parts(),
            "classifier": VERSION,
            "template": renderer.chat_template,
            "dtype": str(dtype),
            "attention": model.config._attn_implementation,
        }
        device = torch.device(runtime.device)
        placed = _in_precision(model, dtype).to(device)
        ignored = model.config.get_text_config().pad_token_id
        if options.pooling == "last":
            ignored = None
        loaded = cls(parts, labels, renderer, placed, device, _pad_id(model, tokenizer), ignored)
        loaded._refuse_dependence_on_padding(card, dtype)
        return loaded

    @property
    def tokenizer(self) -> Any:
        """The checkpoint's tokenizer; set nothing on it, threads share it."""
        return self.renderer.tokenizer

    def encode_text(
        self,
        text: str,
        text_pair: str | None,
        truncation: Truncation,
        special_tokens: SpecialTokens = "literal",
    ) -> Encoded:
        """See `Renderer.text`."""
        return self.renderer.text(text, text_pair, truncation, special_tokens)

    def encode_chat(self, messages: Sequence[Message], truncation: Truncation) -> Encoded:
        """See `Renderer.chat`."""
        return self.renderer.chat(messages, truncation)

    def cost(self, inputs: Sequence[Input]) -> int:
        """Tokens of one forward pass: rows are padded to the longest."""
        return len(inputs) * max((one.tokens for one in inputs), default=0)

    def logits(self, inputs: Sequence[Input]) -> list[Raw]:
        """The fp32 logits of each input, one forward pass for all, padded to the longest.

        Raises:
            DeviceOutOfMemory: the batch does not fit; a smaller one may.
        """
        rows: list[Encoded] = [one.payload for one in inputs]
        try:
            with torch.inference_mode():
                logits = self._forward(rows)
        except torch.OutOfMemoryError as error:
            raise DeviceOutOfMemory(str(error)) from error
        return [tuple(row) for row in logits.float().tolist()]

    def _forward(self, rows: Sequence[Encoded]) -> Tensor:
        batch = self._batch(rows)
        if not _reads_last_token(self.model):
            logits: Tensor = self.model(**batch).logits
            return logits
        # Transformers finds the score's place in the padded row, by the id of the padding, and so
        # cannot do without one. Found in the row's own tokens it is the same in every batch.
        hidden = self.model.base_model(**batch, use_cache=False).last_hidden_state
        places = torch.tensor([_last_place(row.ids, self.ignored_id) for row in rows])
        read = hidden[torch.arange(len(rows), device=self.device), places.to(self.device)]
        scores: Tensor = self.model.score(read)
        return scores

    def _batch(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        lengths = torch.tensor([len(row.ids) for row in rows])
        width = int(lengths.max())
        ids = self._padded([row.ids for row in rows], width, self.pad_id)
        mask = (torch.arange(width) < lengths[:, None]).long().to(self.device)
        batch = {"input_ids": ids, "attention_mask": mask}
        kinds = [row.type_ids for row in rows if row.type_ids is not None]
        if kinds:
            batch["token_type_ids"] = self._padded(kinds, width, 0)
        return batch

    def _refuse_dependence_on_padding(self, card: ModelCard, dtype: torch.dtype) -> None:
        rows = [self.encode_text(text, None, "right") for text in _UNEQUAL]
        near = 1e-3 if dtype == torch.float32 else 0.05
        try:
            with torch.inference_mode():
                together = self._forward(rows).float()
                alone = torch.cat([self.model(**self._batch([row])).logits for row in rows])
        except ValueError as error:
            raise CardError(f"{card.id}: cannot be computed in batches: {error}") from error
        if not torch.allclose(together, alone.float(), rtol=near, atol=5 * near):
            raise CardError(f"{card.id}: {type(self.model).__name__} scores change with padding")

    def _padded(self, rows: Sequence[Sequence[int]], width: int, fill: int) -> Tensor:
        padded = torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
        return padded.to(self.device)


_OPTIONS = frozenset(ClassifierOptions.model_fields)
_UNEQUAL = ("one", "one text, which is longer than the other by more than a few words")


def _dtype(card: ModelCard, runtime: Runtime) -> torch.dtype:
    dtype = getattr(torch, runtime.dtype, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise CardError(f"{card.id}: {runtime.dtype!r} is no floating dtype of torch")
    return dtype


def _labels(card: ModelCard, options: ClassifierOptions, config: Any) -> tuple[str, ...]:
    labels = options.labels or tuple(config.id2label[index] for index in range(config.num_labels))
    if len(labels) != config.num_labels or len(set(labels)) != len(labels):
        raise CardError(f"{card.id}: {config.num_labels} logits need as many different labels")
    return labels


def _takes_type_ids(model: Any, tokenizer: Any) -> bool:
    name = "token_type_ids"
    return (
        name in tokenizer.model_input_names and name in inspect.signature(model.forward).parameters
    )


def _pad_id(model: Any, tokenizer: Any) -> int:
    # Some bodies number the positions of what is not this id; for the others any id will do.
    embeddings = model.get_input_embeddings()
    if embeddings.padding_idx is not None:
        return int(embeddings.padding_idx)
    own = tokenizer.pad_token_id or 0
    return int(own) if own < embeddings.num_embeddings else 0


def _refuse_longer_than_positions(card: ModelCard, model: Any) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        if (
            name.endswith("position_embeddings")
            and getattr(module, "padding_idx", None) is not None
        ):
            positions = module.num_embeddings - module.padding_idx - 1
    if positions is not None and card.limits.max_tokens > positions:
        raise CardError(
            f"{card.id}: limits.max_tokens is {card.limits.max_tokens}, "
            f"the checkpoint has {positions} positions"
        )


def _reads_last_token(model: Any) -> bool:
    return isinstance(getattr(model, "score", None), nn.Linear)


def _last_place(ids: Sequence[int], ignored: int | None) -> int:
    place = len(ids) - 1
    while place > 0 and ids[place] == ignored:
        place -= 1
    return place


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
