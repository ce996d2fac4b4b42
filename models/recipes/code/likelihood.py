"""The backbone's own opinion: how likely it finds a program as an answer to a problem."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, LlamaForCausalLM

from recipes.code.data import Encode, Pack, Program
from recipes.code.packed import (
    ATTENTION,
    WEIGHTS,
    Layout,
    encoder,
    grouped_attention,
    weights_folder,
)

BUDGET = 500


class Likelihood:
    """A causal language model's likelihood of programs."""

    def __init__(self, model: Any, encode: Encode) -> None:
        AttentionInterface.register(ATTENTION, grouped_attention)
        model.config._attn_implementation = ATTENTION
        self._model = model.eval()
        self._encode = encode

    @classmethod
    def of_backbone(cls) -> "Likelihood":
        """By the backbone's own weights."""
        model = LlamaForCausalLM.from_pretrained(
            weights_folder(), gguf_file=WEIGHTS, dtype=torch.float32
        )
        return cls(model, encoder())

    def means(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """The mean log-likelihood of a token, for each pair of prompt and program.

        A program is read as the assistant's fenced answer, with the end of its turn.
        """
        programs: dict[str, list[str]] = defaultdict(list)
        for prompt, program in dict.fromkeys(wanted):
            programs[prompt].append(program)
        found: dict[tuple[str, str], float] = {}
        for prompt, texts in programs.items():
            for pack in self._packs(prompt, texts):
                means = [float(one.mean()) for one in self.tokens(pack)]
                keys = [(prompt, program.text) for program in pack.programs]
                found |= dict(zip(keys, means, strict=True))
        return found

    def tokens(self, pack: Pack) -> list[Tensor]:
        """The log-likelihood of each token of each program of a pack."""
        layout = Layout.of(pack)
        with torch.inference_mode():
            states = self._states(layout)
            starts, at = [], len(pack.prompt)
            for program in pack.programs:
                starts.append(at)
                at += len(program.ids)
            return [
                self._told(states, len(pack.prompt), start, program)
                for start, program in zip(starts, pack.programs, strict=True)
            ]

    def _states(self, layout: Layout) -> Tensor:
        decoder = self._model.model
        hidden = decoder.embed_tokens(layout.ids)
        angles = decoder.rotary_emb(hidden, position_ids=layout.positions)
        for layer in decoder.layers:
            hidden = layer(
                hidden,
                attention_mask=layout.mask,
                position_ids=layout.positions,
                position_embeddings=angles,
            )
        states: Tensor = decoder.norm(hidden)[0]
        return states

    def _told(self, states: Tensor, asked: int, start: int, program: Program) -> Tensor:
        before = torch.cat(
            [states[asked - 1 : asked], states[start : start + len(program.ids) - 1]]
        )
        told: Tensor = self._model.lm_head(before).log_softmax(-1)
        return told.gather(1, torch.tensor(program.ids)[:, None])[:, 0]

    def _packs(self, prompt: str, texts: Sequence[str]) -> Iterator[Pack]:
        opening = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n```python\n"
        asked, ready = tuple(self._encode(opening)), list[Program]()
        for text in texts:
            ids = tuple(self._encode(f"{text.strip()}\n```<|im_end|>"))
            if ready and sum(len(one.ids) for one in ready) + len(ids) > BUDGET:
                yield Pack(asked, tuple(ready))
                ready = []
            ready.append(Program(text, ids, good=True))
        if ready:
            yield Pack(asked, tuple(ready))
