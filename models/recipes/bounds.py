"""How far a served raw may be from plain Transformers: measured by dtype, stated on the card.

python -m recipes.bounds --model nli --check
"""

import argparse
import random
from collections.abc import Sequence
from typing import Any

import torch
from transformers import BertModel

from assay_models.base import Input, Options, Raw, RewardModel
from assay_models.card import ModelCard
from assay_models.families.classifier.checkpoint import Checkpoint, ClassifierOptions
from assay_models.families.classifier.surprisal import Surprisal
from assay_models.families.qpp.pre_retrieval import VideoQppModel
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelFiles, ModelRepository, embedded_root

DTYPES = ("float32", "bfloat16")
ITEMS = 96
WORDS = (
    *("river", "stone", "seven", "walks", "under", "green", "lamp", "nobody", "counts", "bridge"),
    *("while", "two", "friends", "carry", "bread", "over", "snow", "and", "sing", "of", "trains"),
    *("that", "never", "stop", "at", "night", "because", "rain", "fell", "early", "in", "spring"),
)


def main() -> None:
    """Measure the bounds of embedded models, print them, and hold the cards against them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", action="append", help="name; all embedded with weights unless given"
    )
    parser.add_argument("--check", action="store_true", help="fail where a card's bound is broken")
    arguments = parser.parse_args()
    repository = ModelRepository([embedded_root()])
    names = arguments.model or [
        card.name for card in repository.cards() if card.embedded and card.weights.source != "none"
    ]
    broken = []
    for name in names:
        entry = repository.find(name)
        for dtype in DTYPES:
            found = measured(entry.card, repository.locate(entry), dtype)
            stated = entry.card.bounds.get(dtype)
            print(f"{entry.card.id} {dtype}: {found:.1e}, the card says {stated}")
            if stated is None or found > stated:
                broken.append(f"{entry.card.id} {dtype}")
    if arguments.check and broken:
        raise SystemExit(f"beyond the card's bound: {', '.join(broken)}")


def measured(card: ModelCard, files: ModelFiles, dtype: str) -> float:
    """The largest difference of a raw in random batches from plain Transformers in fp32."""
    model = family_of(card).load(card, files, Runtime(dtype=dtype))
    chance = random.Random(5)  # noqa: S311 nothing is secret here
    inputs = _inputs(card, model, chance)
    expected = _plain(card, files, model, inputs)
    worst = 0.0
    for size in (1, 3, 8, len(inputs)):
        order = chance.sample(range(len(inputs)), len(inputs))
        for start in range(0, len(order), size):
            places = order[start : start + size]
            raws: Any = model.predict([inputs[place] for place in places])
            worst = max(worst, _farthest(raws, [expected[place] for place in places]))
    return worst


def _inputs(card: ModelCard, model: RewardModel, chance: random.Random) -> list[Input]:
    item = family_of(card).item
    inputs: list[Input] = []
    for number in range(ITEMS):
        fields = _fields(card.family, int(2 ** (1 + 5 * number / ITEMS)), chance)
        inputs += model.prepare([item.model_validate(fields)], Options("right")).inputs
    return inputs


def _fields(family: str, length: int, chance: random.Random) -> dict[str, str]:
    text = " ".join(chance.choices(WORDS, k=length))
    if family == "video_qpp":
        return {"query": text}
    if family == "nli":
        return {"premise": text, "hypothesis": " ".join(chance.choices(WORDS, k=6))}
    lines = [f"    total += {chance.randint(0, 99)}  # {word}" for word in text.split()]
    program = "\n".join(["def count(total):", *lines, "    return total"])
    return {"prompt": f"Write count. {text}", "response": f"```python\n{program}\n```"}


def _plain(
    card: ModelCard, files: ModelFiles, model: RewardModel, inputs: Sequence[Input]
) -> list[Raw]:
    with torch.no_grad():
        if isinstance(model, VideoQppModel):
            return _plain_queries(files, model, inputs)
        own = {name: card.options[name] for name in card.options.keys() & set(_CLASSIFIER)}
        options = card.model_copy(update={"options": own}).options_as(ClassifierOptions)
        checkpoint = Checkpoint(card, files, options)
        plain, tokenizer = checkpoint.load(torch.float32)
        if options.surprisal is None:
            return [_logits(plain, one) for one in inputs]
        known = Surprisal.of(plain, tokenizer, options.surprisal)
        return [_less_surprisal(plain, one, known) for one in inputs]


def _logits(plain: Any, one: Input) -> Raw:
    rows = {"input_ids": torch.tensor([list(one.payload.ids)])}
    if one.payload.type_ids is not None:
        rows["token_type_ids"] = torch.tensor([list(one.payload.type_ids)])
    return tuple(plain(**rows).logits[0].tolist())


def _less_surprisal(plain: Any, one: Input, known: Surprisal) -> Raw:
    """The logit less the surprisal by its definition, token by token, in fp64."""
    ids = torch.tensor(list(one.payload.ids))
    told = plain(ids[None], output_hidden_states=True)
    start = known.answer(one.payload.ids)
    states = told.hidden_states[-1][0, start - 1 : -1].double()
    logarithms = (states @ plain.get_input_embeddings().weight.double().T).log_softmax(-1)
    entropy = -(logarithms.exp() * logarithms).sum(-1)
    excess = -logarithms.gather(1, ids[start:, None])[:, 0] - entropy
    return (float(told.logits) - known.weight * float(excess.mean()),)


def _plain_queries(files: ModelFiles, model: VideoQppModel, inputs: Sequence[Input]) -> list[Raw]:
    encoder: Any = BertModel.from_pretrained(files.weights, local_files_only=True)
    raws = []
    for one in inputs:
        (collection, features), ids, _ = one.payload
        mean = encoder(input_ids=torch.tensor([list(ids)])).last_hidden_state[0].mean(0)
        embedding = torch.nn.functional.normalize(mean, dim=0).numpy()
        raws += model.heads[collection].raws(embedding[None], [features])
    return raws


def _farthest(raws: Sequence[Raw], expected: Sequence[Raw]) -> float:
    pairs = zip(raws, expected, strict=True)
    return max(abs(a - b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))


_CLASSIFIER = tuple(ClassifierOptions.model_fields)

if __name__ == "__main__":
    main()
