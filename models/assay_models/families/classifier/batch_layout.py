"""How a batch of token rows becomes one forward pass.

`Padded` fills rows up to the longest, as Transformers does. `Packed` lays them end to end. `Alone`
computes one row at a time. Which one a model gets is decided by trial, in `parity`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from assay_models.base import Input
from assay_models.families.classifier import packed_attention
from assay_models.families.classifier.surprisal import Surprisal

Head = Callable[[Tensor], Tensor]
"""Makes logits, shape (n, labels), of what is read, shape (n, width)."""

States = Callable[[int, Tensor], Tensor]
"""The last states, shape (n, width), of a row's tokens by their indices in the row, shape (n,)."""


class Arrangement(Protocol):
    """One way to compute the logits of a batch."""

    @property
    def name(self) -> str:
        """What the way is called."""
        ...

    @property
    def sharing(self) -> bool:
        """Whether inputs of one kin are cheaper together."""
        ...

    def cost(self, inputs: Sequence[Input]) -> int:
        """Tokens that one forward pass of these computes."""
        ...

    def logits(self, inputs: Sequence[Input]) -> Tensor:
        """Shape (inputs, labels), in the order of the inputs."""
        ...


@dataclass(frozen=True, slots=True)
class Body:
    """A model and what is known of its rows.

    `reads` tells what its head is given: the state of the first or of the last token, or the mean
    of all. `pad_id` fills up rows; `ignored_id` is one that is not taken for the last; `longest`
    is the longest row the card allows; `first_position` is the number of a row's first position.
    """

    model: Any
    device: torch.device
    reads: Literal["first", "last", "mean"]
    pad_id: int
    ignored_id: int | None
    longest: int
    first_position: int
    with_type_ids: bool
    surprisal: Surprisal | None = None

    def read_at(self, one: Input) -> int:
        """Which token of a row the head reads, where it reads one."""
        if self.reads == "first":
            return 0
        ids = one.payload.ids
        place = len(ids) - 1
        while place > 0 and ids[place] == self.ignored_id:
            place -= 1
        return place

    def less_surprisal(
        self, logits: Tensor, states: "States", inputs: Sequence[Input], by_row: bool = False
    ) -> Tensor:
        """The logits of some rows less their answers' surprisal, where the head knows of it."""
        if self.surprisal is None:
            return logits
        answers = []
        for row, one in enumerate(inputs):
            ids = one.payload.ids
            start = self.surprisal.answer(ids)
            before = torch.arange(start - 1, len(ids) - 1, device=self.device)
            answers.append((states(row, before), ids[start:]))
        return logits - self.surprisal.malus(answers, by_row)


@dataclass(frozen=True, slots=True)
class Padded:
    """Rows filled up to the longest, under a mask."""

    body: Body
    name: str = "padded"
    sharing: bool = False

    def cost(self, inputs: Sequence[Input]) -> int:
        """The longest, times the rows."""
        return len(inputs) * max((one.tokens for one in inputs), default=0)

    def logits(self, inputs: Sequence[Input]) -> Tensor:
        """The logits of one padded forward pass."""
        batch, body = self.batch(inputs), self.body
        if body.reads != "last":
            logits: Tensor = body.model(**batch).logits
            return logits
        # Transformers finds the score's place in the padded row, by the id of the padding, and so
        # cannot do without one. Found in the row's own tokens it is the same in every batch.
        hidden = body.model.base_model(**batch, use_cache=False).last_hidden_state
        places = torch.tensor([body.read_at(one) for one in inputs], device=body.device)
        read = hidden[torch.arange(len(inputs), device=body.device), places]
        scores: Tensor = body.model.score(read)
        return body.less_surprisal(scores, lambda row, at: hidden[row, at], inputs)

    def plain(self, one: Input) -> Tensor:
        """The logits of one row as Transformers' own forward pass tells them."""
        batch, body = self.batch([one]), self.body
        if body.surprisal is None:
            logits: Tensor = body.model(**batch).logits
            return logits
        told = body.model(**batch, output_hidden_states=True)
        states = told.hidden_states[-1]
        return body.less_surprisal(told.logits, lambda row, at: states[row, at], [one])

    def batch(self, inputs: Sequence[Input]) -> dict[str, Tensor]:
        """What the model takes, each of shape (inputs, longest)."""
        body = self.body
        lengths = np.array([one.tokens for one in inputs])
        width = int(lengths.max())
        ids = _filled([one.payload.ids for one in inputs], width, body.pad_id)
        batch = {"input_ids": ids, "attention_mask": np.arange(width) < lengths[:, None]}
        if body.with_type_ids:
            batch["token_type_ids"] = _filled([one.payload.type_ids for one in inputs], width, 0)
        return {
            name: torch.from_numpy(rows.astype(np.int64)).to(body.device)
            for name, rows in batch.items()
        }


@dataclass(frozen=True, slots=True)
class Packed:
    """Rows end to end. With `sharing`, rows of one kin compute their common beginning once.

    `by_row` reads the head of each row in a pass of its own: matrix kernels take another way for
    one row than for several.
    """

    body: Body
    head: Head
    causal: bool
    sharing: bool
    by_row: bool = False
    name: str = "packed"

    def cost(self, inputs: Sequence[Input]) -> int:
        """All tokens, with what is shared counted once."""
        return packed_attention.packed_tokens(inputs, self.sharing)

    def logits(self, inputs: Sequence[Input]) -> Tensor:
        """The logits of one packed forward pass."""
        body = self.body
        layout = packed_attention.lay_out(
            inputs, self.causal, self.sharing, body.longest, body.device
        )
        hidden = body.model.base_model(**self._batch(inputs, layout)).last_hidden_state[0]
        read = self._read(hidden, inputs, layout)
        rows = torch.split(read, 1) if self.by_row else (read,)
        logits = torch.cat([self.head(row) for row in rows])

        def states(row: int, indices: Tensor) -> Tensor:
            chosen: Tensor = hidden[layout.places[row].of_all(indices)]
            return chosen

        return body.less_surprisal(logits, states, inputs, self.by_row)

    def _read(
        self, hidden: Tensor, inputs: Sequence[Input], layout: packed_attention.Layout
    ) -> Tensor:
        placed = list(zip(inputs, layout.places, strict=True))
        if self.body.reads == "mean":
            rows = (hidden[place.rest : place.rest + one.tokens] for one, place in placed)
            return torch.stack([row.mean(0) for row in rows])
        at = [place.of(self.body.read_at(one)) for one, place in placed]
        return hidden[torch.tensor(at, device=self.body.device)]

    def _batch(self, inputs: Sequence[Input], layout: packed_attention.Layout) -> dict[str, Any]:
        rows, indices = layout.order[:, 0], layout.order[:, 1]
        starts = np.cumsum([0, *(one.tokens for one in inputs[:-1])])
        at = starts[rows] + indices

        def gathered(given: Iterable[Any]) -> Tensor:
            packed = np.concatenate([np.frombuffer(row, dtype=np.intc) for row in given])[at]
            return torch.from_numpy(packed.astype(np.int64))[None].to(self.body.device)

        batch: dict[str, Any] = {
            "input_ids": gathered(one.payload.ids for one in inputs),
            "position_ids": torch.from_numpy(indices + self.body.first_position)[None].to(
                self.body.device
            ),
            "layout": layout,
        }
        if self.body.with_type_ids:
            batch["token_type_ids"] = gathered(one.payload.type_ids for one in inputs)
        if self.causal:
            batch["use_cache"] = False
        return batch


@dataclass(frozen=True, slots=True)
class Alone:
    """One row at a time, each in a forward pass of its own."""

    inner: Padded | Packed
    name: str = "alone"
    sharing: bool = False

    def cost(self, inputs: Sequence[Input]) -> int:
        """Nothing is padded."""
        return sum(one.tokens for one in inputs)

    def logits(self, inputs: Sequence[Input]) -> Tensor:
        """The logits of as many forward passes."""
        return torch.cat([self.inner.logits([one]) for one in inputs])


def head_of(model: Any) -> Head | None:
    """The head of a sequence classifier, if it is of a kind that is known."""
    score, classifier = getattr(model, "score", None), getattr(model, "classifier", None)
    pooler = getattr(model.base_model, "pooler", None)
    if isinstance(score, nn.Linear):
        return partial(_read, [score])
    if isinstance(classifier, nn.Linear) and pooler is not None:
        return partial(_read, [_first_of, pooler, classifier])
    if classifier is not None and type(classifier).__name__.endswith("ClassificationHead"):
        return partial(_read, [_first_of, classifier])
    return None


def _read(steps: Sequence[Callable[[Any], Any]], states: Tensor) -> Tensor:
    for step in steps:
        states = step(states)
    return states


def _first_of(states: Tensor) -> Tensor:
    return states[:, None]


def _filled(rows: Sequence[Any], width: int, fill: int) -> NDArray[np.intc]:
    filled = np.full((len(rows), width), fill, dtype=np.intc)
    for index, row in enumerate(rows):
        filled[index, : len(row)] = np.frombuffer(row, dtype=np.intc)
    return filled
