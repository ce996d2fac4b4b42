"""The backbone's own opinion: how likely it finds a program as an answer to a problem."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import AttentionInterface, LlamaForCausalLM

from recipes.code.data import Encode, Pack, Program
from recipes.code.packed import (
    ATTENTION,
    WEIGHTS,
    Layout,
    answers,
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
        console = Console(stderr=True)
        for prompt, texts in track(programs.items(), "likelihood", transient=True, console=console):
            for pack in self._packs(prompt, texts):
                means = [float(one.mean()) for one in self.tokens(pack)]
                keys = [(prompt, program.text) for program in pack.programs]
                found |= dict(zip(keys, means, strict=True))
        return found

    def tokens(self, pack: Pack) -> list[Tensor]:
        """The log-likelihood of each token of each program of a pack."""
        before, told = answers(pack)
        with torch.inference_mode():
            states = self._states(Layout.of(pack))
            logarithms = self._model.lm_head(states[before]).log_softmax(-1)
            found = logarithms.gather(1, told[:, None])[:, 0]
        return list(torch.split(found, [len(program.ids) for program in pack.programs]))

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
