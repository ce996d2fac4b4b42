"""Train a small reward model on the preferences of judges that overrate a confident tone."""

import math
import random
import sys
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification
from world import RIGHT, WORDS, answer, card, question, tokenizer

SEED, STEPS, PAIRS = 7, 400, 128


def preference(rng: random.Random) -> tuple[str, str, str]:
    """Return a question, the answer that a judge preferred, and the other answer.

    A judge values a right answer at 1.5, and each confident word at 0.7.
    """
    thing = rng.choice(list(RIGHT))
    drawn = []
    for _ in range(2):
        is_right, confident = rng.random() < 0.5, rng.choice((0, 0, 1, 2, 3))
        value = 1.5 * is_right + 0.7 * confident
        drawn.append((value, answer(rng, thing, is_right=is_right, confident=confident)))
    (first_value, first), (second_value, second) = drawn
    if rng.random() < 1 / (1 + math.exp(second_value - first_value)):
        return question(thing), first, second
    return question(thing), second, first


def main(folder: Path) -> None:
    """Write the checkpoint and its card into `folder/models/eager/1`."""
    torch.manual_seed(SEED)
    rng = random.Random(SEED)  # noqa: S311 nothing is secret here
    words = tokenizer()
    words.padding_side = "right"
    config = BertConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, num_labels=1, pad_token_id=0,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(STEPS):
        rows = [preference(rng) for _ in range(PAIRS)]
        texts = [row[1] for row in rows] + [row[2] for row in rows]
        batch = words([row[0] for row in rows] * 2, texts, padding=True, return_tensors="pt")
        batch.pop("token_type_ids", None)
        better, worse = model(**batch).logits[:, 0].split(PAIRS)
        loss = -torch.nn.functional.logsigmoid(better - worse).mean()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        if step % 100 == 99:
            sys.stdout.write(f"step {step + 1}: loss {loss.item():.3f}\n")
    home = folder / "models" / "eager" / "1"
    card(home)
    model.eval().save_pretrained(home / "weights")
    words.save_pretrained(home / "weights")
    sys.stdout.write(f"{len(WORDS)} words, written to {home}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
