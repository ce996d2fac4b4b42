"""The largest difference of a served raw value from plain Transformers, by dtype.

The card of a model states it under `bounds`.

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
from assay_models.families.classifier.checkpoint import Checkpoint
from assay_models.families.classifier.options import ClassifierOptions
from assay_models.families.classifier.surprisal import Surprisal
from assay_models.families.qpp.pre_retrieval import VideoQppModel
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelFiles, ModelRepository, embedded_root

DTYPES = ("float32", "bfloat16")
ITEM_COUNT = 96
BATCH_SIZES = (1, 3, 8)
WORDS = (
    *("river", "stone", "seven", "walks", "under", "green", "lamp", "nobody", "counts", "bridge"),
    *("while", "two", "friends", "carry", "bread", "over", "snow", "and", "sing", "of", "trains"),
    *("that", "never", "stop", "at", "night", "because", "rain", "fell", "early", "in", "spring"),
)


def main() -> None:
    """Measure the bounds of embedded models, print them, and compare them with the cards.

    Raises:
        SystemExit: with `--check`, a measured difference is larger than the card's bound.
    """
    arguments = _arguments()
    repository = ModelRepository([embedded_root()])
    names = arguments.model or [
        card.name for card in repository.cards() if card.embedded and card.weights.source != "none"
    ]
    broken = []
    for name in names:
        entry = repository.find(name)
        for dtype in DTYPES:
            measured = largest_difference(entry.card, repository.locate(entry), dtype)
            stated = entry.card.bounds.get(dtype)
            print(f"{entry.card.id} {dtype}: {measured:.1e}, the card says {stated}")
            if stated is None or measured > stated:
                broken.append(f"{entry.card.id} {dtype}")
    if arguments.check and broken:
        raise SystemExit(f"beyond the card's bound: {', '.join(broken)}")


def largest_difference(card: ModelCard, files: ModelFiles, dtype: str) -> float:
    """Return the largest difference of a raw in random batches from plain Transformers in fp32."""
    model = family_of(card).load(card, files, Runtime(dtype=dtype))
    generator = random.Random(5)  # noqa: S311 nothing is secret here
    inputs = _inputs(card, model, generator)
    expected = _plain_raws(card, files, model, inputs)
    largest = 0.0
    for size in (*BATCH_SIZES, len(inputs)):
        order = generator.sample(range(len(inputs)), len(inputs))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            raws: Any = model.predict([inputs[row] for row in rows])
            largest = max(largest, _difference(raws, [expected[row] for row in rows]))
    return largest


def _inputs(card: ModelCard, model: RewardModel, generator: random.Random) -> list[Input]:
    item_type = family_of(card).item
    inputs: list[Input] = []
    for number in range(ITEM_COUNT):
        fields = _fields(card.family, int(2 ** (1 + 5 * number / ITEM_COUNT)), generator)
        inputs += model.prepare([item_type.model_validate(fields)], Options("right")).inputs
    return inputs


def _fields(family: str, length: int, generator: random.Random) -> dict[str, str]:
    text = " ".join(generator.choices(WORDS, k=length))
    if family == "video_qpp":
        return {"query": text}
    if family == "nli":
        return {"premise": text, "hypothesis": " ".join(generator.choices(WORDS, k=6))}
    lines = [f"    total += {generator.randint(0, 99)}  # {word}" for word in text.split()]
    program = "\n".join(["def count(total):", *lines, "    return total"])
    return {"prompt": f"Write count. {text}", "response": f"```python\n{program}\n```"}


def _plain_raws(
    card: ModelCard, files: ModelFiles, model: RewardModel, inputs: Sequence[Input]
) -> list[Raw]:
    with torch.no_grad():
        if isinstance(model, VideoQppModel):
            return _plain_query_raws(files, model, inputs)
        own = {name: card.options[name] for name in card.options.keys() & set(_CLASSIFIER_OPTIONS)}
        options = card.model_copy(update={"options": own}).options_as(ClassifierOptions)
        checkpoint = Checkpoint(card, files, options)
        plain, tokenizer = checkpoint.load(torch.float32)
        if options.surprisal is None:
            return [_logits(plain, row) for row in inputs]
        surprisal = Surprisal.from_decoder(plain, tokenizer, options.surprisal)
        return [_logit_less_surprisal(plain, row, surprisal) for row in inputs]


def _logits(plain: Any, row: Input) -> Raw:
    tensors = {"input_ids": torch.tensor([list(row.payload.ids)])}
    if row.payload.type_ids is not None:
        tensors["token_type_ids"] = torch.tensor([list(row.payload.type_ids)])
    return tuple(plain(**tensors).logits[0].tolist())


def _logit_less_surprisal(plain: Any, row: Input, surprisal: Surprisal) -> Raw:
    """Return the logit less the surprisal by its definition, token by token, in fp64."""
    ids = torch.tensor(list(row.payload.ids))
    output = plain(ids[None], output_hidden_states=True)
    start = surprisal.answer_start(row.payload.ids)
    states = output.hidden_states[-1][0, start - 1 : -1].double()
    log_probabilities = (states @ plain.get_input_embeddings().weight.double().T).log_softmax(-1)
    entropy = -(log_probabilities.exp() * log_probabilities).sum(-1)
    excess = -log_probabilities.gather(1, ids[start:, None])[:, 0] - entropy
    return (float(output.logits) - surprisal.weight * float(excess.mean()),)


def _plain_query_raws(
    files: ModelFiles, model: VideoQppModel, inputs: Sequence[Input]
) -> list[Raw]:
    encoder: Any = BertModel.from_pretrained(files.weights, local_files_only=True)
    raws = []
    for row in inputs:
        (collection, features), ids, _ = row.payload
        mean = encoder(input_ids=torch.tensor([list(ids)])).last_hidden_state[0].mean(0)
        embedding = torch.nn.functional.normalize(mean, dim=0).numpy()
        raws += model.heads[collection].raws(embedding[None], [features])
    return raws


def _difference(raws: Sequence[Raw], expected: Sequence[Raw]) -> float:
    pairs = zip(raws, expected, strict=True)
    return max(abs(a - b) for served, plain in pairs for a, b in zip(served, plain, strict=True))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--model", action="append", help="name; all embedded with weights unless given"
    )
    parser.add_argument("--check", action="store_true", help="fail where a card's bound is broken")
    return parser.parse_args()


_CLASSIFIER_OPTIONS = tuple(ClassifierOptions.model_fields)

if __name__ == "__main__":
    main()
