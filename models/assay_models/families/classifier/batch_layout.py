"""The layouts in which a batch of token rows becomes a forward pass.

`PaddedLayout` fills rows up to the longest, as Transformers does. `PackedLayout` lays them end to
end. `SingleRowLayout` computes one row at a time. `parity` decides by trial which layout a model
gets.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assay_models.base import Input
from assay_models.families.classifier import packed_attention
from assay_models.families.classifier.packed_attention import PackedBatch
from assay_models.families.classifier.surprisal import Surprisal

Head = Callable[[Tensor], Tensor]
"""Makes logits, shape (n, labels), of the states that it reads, shape (n, width)."""

LastStates = Callable[[int, Tensor], Tensor]
"""The last states, shape (n, width), of a row's tokens by their indices in the row, shape (n,)."""


class BatchLayout(Protocol):
    """One way to compute the logits of a batch."""

    @property
    def name(self) -> str:
        """The layout's name, part of the fingerprint of a deterministic model."""
        ...

    @property
    def shares_prefixes(self) -> bool:
        """Whether inputs with one prefix key are cheaper together."""
        ...

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of tokens that one forward pass of these computes."""
        ...

    def logits(self, inputs: Sequence[Input]) -> Tensor:
        """Compute logits of shape (inputs, labels), in the order of the inputs."""
        ...


@dataclass(frozen=True, slots=True)
class Body:
    """A model and the properties of its rows.

    `head_input` is what the head reads: the state of the first or of the last token, or the mean of
    all. `pad_id` fills up rows. `ignored_id` is a token that does not count as the last one.
    `max_tokens` is the longest row that the card allows. `first_position` is the number of a row's
    first position.
    """

    model: Any
    device: torch.device
    _: KW_ONLY
    head_input: Literal["first", "last", "mean"]
    pad_id: int
    ignored_id: int | None
    max_tokens: int
    first_position: int
    has_type_ids: bool
    surprisal: Surprisal | None = None

    def head_token(self, row: Input) -> int:
        """Return the index of the token in a row that the head reads, where it reads one token."""
        if self.head_input == "first":
            return 0
        ids = row.payload.ids
        index = len(ids) - 1
        while index > 0 and ids[index] == self.ignored_id:
            index -= 1
        return index

    def subtract_surprisal(
        self,
        logits: Tensor,
        states: LastStates,
        inputs: Sequence[Input],
        *,
        is_row_wise: bool = False,
    ) -> Tensor:
        """Subtract the surprisal of the rows' answers from their logits, where the card asks for
        it."""
        if self.surprisal is None:
            return logits
        answers = []
        for index, row in enumerate(inputs):
            ids = row.payload.ids
            start = self.surprisal.answer_start(ids)
            before = torch.arange(start - 1, len(ids) - 1, device=self.device)
            answers.append((states(index, before), ids[start:]))
        return logits - self.surprisal.penalty(answers, is_row_wise=is_row_wise)


@dataclass(frozen=True, slots=True)
class PaddedLayout:
    """Rows filled up to the longest, under a mask."""

    body: Body
    name: str = "padded"
    shares_prefixes: bool = False

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the length of the longest row, times the number of rows."""
        return len(inputs) * max((row.tokens for row in inputs), default=0)

    def logits(self, inputs: Sequence[Input]) -> Tensor:
        """Compute the logits in one padded forward pass."""
        batch, body = self._batch(inputs), self.body
        if body.head_input != "last":
            logits: Tensor = body.model(**batch).logits
            return logits
        # Transformers finds the score's place in the padded row, by the id of the padding, and so
        # cannot do without one. Found in the row's own tokens it is the same in every batch.
        hidden = body.model.base_model(**batch, use_cache=False).last_hidden_state
        tokens = torch.tensor([body.head_token(row) for row in inputs], device=body.device)
        read = hidden[torch.arange(len(inputs), device=body.device), tokens]
        scores: Tensor = body.model.score(read)
        return body.subtract_surprisal(scores, lambda row, at: hidden[row, at], inputs)

    def reference_logits(self, row: Input) -> Tensor:
        """Compute the logits of one row by Transformers' own forward pass."""
        batch, body = self._batch([row]), self.body
        if body.surprisal is None:
            logits: Tensor = body.model(**batch).logits
            return logits
        output = body.model(**batch, output_hidden_states=True)
        states = output.hidden_states[-1]
        return body.subtract_surprisal(output.logits, lambda index, at: states[index, at], [row])

    def _batch(self, inputs: Sequence[Input]) -> dict[str, Tensor]:
        body = self.body
        lengths = np.array([row.tokens for row in inputs])
        width = int(lengths.max())
        ids = _filled([row.payload.ids for row in inputs], width, body.pad_id)
        batch = {"input_ids": ids, "attention_mask": np.arange(width) < lengths[:, None]}
        if body.has_type_ids:
            batch["token_type_ids"] = _filled([row.payload.type_ids for row in inputs], width, 0)
        return {
            name: torch.from_numpy(rows.astype(np.int64)).to(body.device)
            for name, rows in batch.items()
        }


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """Rows end to end.

    With `shares_prefixes`, rows with one prefix key compute their common beginning once. With
    `is_row_wise` the head reads each row in a pass of its own: matrix kernels compute one row by
    another algorithm than several.
    """

    body: Body
    head: Head
    _: KW_ONLY
    is_causal: bool
    shares_prefixes: bool
    is_row_wise: bool = False
    name: str = "packed"

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of all tokens, with shared prefixes counted once."""
        return packed_attention.packed_tokens(inputs, self.shares_prefixes)

    def logits(self, inputs: Sequence[Input]) -> Tensor:
        """Compute the logits in one packed forward pass."""
        body = self.body
        packed = packed_attention.pack(
            inputs,
            body.device,
            is_causal=self.is_causal,
            shares_prefixes=self.shares_prefixes,
            max_tokens=body.max_tokens,
        )
        hidden = body.model.base_model(**self._batch(inputs, packed)).last_hidden_state[0]
        read = self._read(hidden, inputs, packed)
        rows = torch.split(read, 1) if self.is_row_wise else (read,)
        logits = torch.cat([self.head(row) for row in rows])

        def states(row: int, indices: Tensor) -> Tensor:
            selected: Tensor = hidden[packed.sequences[row].positions(indices)]
            return selected

        return body.subtract_surprisal(logits, states, inputs, is_row_wise=self.is_row_wise)

    def _read(self, hidden: Tensor, inputs: Sequence[Input], packed: PackedBatch) -> Tensor:
        pairs = list(zip(inputs, packed.sequences, strict=True))
        if self.body.head_input == "mean":
            rows = (hidden[place.own_start : place.own_start + row.tokens] for row, place in pairs)
            return torch.stack([row.mean(0) for row in rows])
        positions = [place.position(self.body.head_token(row)) for row, place in pairs]
        return hidden[torch.tensor(positions, device=self.body.device)]

    def _batch(self, inputs: Sequence[Input], packed: PackedBatch) -> dict[str, Any]:
        rows, indices = packed.token_order[:, 0], packed.token_order[:, 1]
        starts = np.cumsum([0, *(row.tokens for row in inputs[:-1])])
        order = starts[rows] + indices

        def gather(columns: Iterable[Any]) -> Tensor:
            joined = np.concatenate([np.frombuffer(row, dtype=np.intc) for row in columns])
            return torch.from_numpy(joined[order].astype(np.int64))[None].to(self.body.device)

        batch: dict[str, Any] = {
            "input_ids": gather(row.payload.ids for row in inputs),
            "position_ids": torch.from_numpy(indices + self.body.first_position)[None].to(
                self.body.device
            ),
            "packed_batch": packed,
        }
        if self.body.has_type_ids:
            batch["token_type_ids"] = gather(row.payload.type_ids for row in inputs)
        if self.is_causal:
            batch["use_cache"] = False
        return batch


@dataclass(frozen=True, slots=True)
class SingleRowLayout:
    """One row at a time, each in a forward pass of its own."""

    inner: PaddedLayout | PackedLayout
    name: str = "alone"
    shares_prefixes: bool = False

    def cost(self, inputs: Sequence[Input]) -> int:
        """Return the number of all tokens: nothing is padded."""
        return sum(row.tokens for row in inputs)

    def logits(self, inputs: Sequence[Input]) -> Tensor:
        """Compute the logits, one forward pass for each input."""
        return torch.cat([self.inner.logits([row]) for row in inputs])


def head_of(model: Any) -> Head | None:
    """Return the head of a sequence classifier, or None if it is of an unknown kind."""
    score, classifier = getattr(model, "score", None), getattr(model, "classifier", None)
    pooler = getattr(model.base_model, "pooler", None)
    if isinstance(score, nn.Linear):
        return partial(_run, [score])
    if isinstance(classifier, nn.Linear) and pooler is not None:
        return partial(_run, [_as_first_token, pooler, classifier])
    if classifier is not None and type(classifier).__name__.endswith("ClassificationHead"):
        return partial(_run, [_as_first_token, classifier])
    return None


def _run(steps: Sequence[Callable[[Any], Any]], states: Tensor) -> Tensor:
    for step in steps:
        states = step(states)
    return states


def _as_first_token(states: Tensor) -> Tensor:
    return states[:, None]


def _filled(rows: Sequence[Any], width: int, fill: int) -> NDArray[np.intc]:
    filled = np.full((len(rows), width), fill, dtype=np.intc)
    for index, row in enumerate(rows):
        filled[index, : len(row)] = np.frombuffer(row, dtype=np.intc)
    return filled
