"""The likelihood of a program, as an answer to a problem, under the unmodified backbone."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor
from transformers import LlamaForCausalLM

from recipes.code.data import Encode, Pack, Program
from recipes.code.packed_model import (
    WEIGHTS,
    PackLayout,
    load_encoder,
    prediction_targets,
    use_grouped_attention,
    weights_folder,
)

MAX_PACK_TOKENS = 500


class Likelihood:
    """A causal language model's likelihood of programs."""

    def __init__(self, model: Any, encode: Encode) -> None:
        use_grouped_attention(model)
        self._model = model.eval()
        self._encode = encode

    @classmethod
    def of_backbone(cls) -> "Likelihood":
        """Load the backbone with its own weights."""
        model = LlamaForCausalLM.from_pretrained(
            weights_folder(), gguf_file=WEIGHTS, dtype=torch.float32
        )
        return cls(model, load_encoder())

    def means(self, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Return the mean log-likelihood of a token, for each pair of prompt and program.

        A program is read as the assistant's fenced answer, with the end of its message.
        """
        programs: dict[str, list[str]] = defaultdict(list)
        for prompt, program in dict.fromkeys(wanted):
            programs[prompt].append(program)
        found: dict[tuple[str, str], float] = {}
        console = Console(stderr=True)
        for prompt, texts in track(programs.items(), "likelihood", transient=True, console=console):
            for pack in self._packs(prompt, texts):
                means = [float(logarithms.mean()) for logarithms in self.token_likelihoods(pack)]
                keys = [(prompt, program.text) for program in pack.programs]
                found |= dict(zip(keys, means, strict=True))
        return found

    def token_likelihoods(self, pack: Pack) -> list[Tensor]:
        """Return the log-likelihood of each token of each program of a pack."""
        before, tokens = prediction_targets(pack)
        with torch.inference_mode():
            states = self._states(PackLayout.from_pack(pack))
            logarithms = self._model.lm_head(states[before]).log_softmax(-1)
            found = logarithms.gather(1, tokens[:, None])[:, 0]
        return list(torch.split(found, [len(program.ids) for program in pack.programs]))

    def _states(self, layout: PackLayout) -> Tensor:
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
        prompt_ids, programs = tuple(self._encode(opening)), list[Program]()
        for text in texts:
            ids = tuple(self._encode(f"{text.strip()}\n```<|im_end|>"))
            packed = sum(len(program.ids) for program in programs)
            if programs and packed + len(ids) > MAX_PACK_TOKENS:
                yield Pack(prompt_ids, tuple(programs))
                programs = []
            programs.append(Program(text, ids, is_chosen=True))
        if programs:
            yield Pack(prompt_ids, tuple(programs))
