"""The training of `nli` on a tiny encoder: what moves, by how much, towards which targets."""

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
)

from recipes.nli import train
from recipes.nli.finetune import FineTuning, Plan, Row, Target, logits, probabilities, rate_of
from recipes.nli.teacher import TRUST, mixed

pytestmark = [
    pytest.mark.weights,
    # peft asks Transformers for an attribute that has a new name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Several threads wait for each other longer than tensors of this size take."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


PLAN = Plan(epochs=12, batch_size=8, rate=1e-2, head_rate=1e-2, first_layer=1, smoothing=0.0)


def tiny() -> Any:
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config)


def rows(count: int = 48) -> list[Row]:
    """The first token behind the opening one says the label; the rest is noise."""
    chance = random.Random(5)
    targets: list[Target] = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    made = []
    for number in range(count):
        noise = chance.choices(range(10, 40), k=chance.randint(2, 9))
        ids = [1, 2 + number % 3, *noise]
        made.append(Row(ids, [0] * len(ids), targets[number % 3]))
    return made


def trained(plan: Plan = PLAN) -> FineTuning:
    training = FineTuning(tiny(), rows(), plan, pad_id=0)
    training.run()
    return training


def test_training_learns_and_leaves_the_lower_layers_and_embeddings_as_they_were() -> None:
    training, before = trained(), tiny().state_dict()
    stated = probabilities(training.model, rows(), 0)
    right = [
        p.index(max(p)) == row.target.index(1.0) for p, row in zip(stated, rows(), strict=True)
    ]
    assert sum(right) / len(right) > 0.9
    after = training.model.state_dict()
    for name, weight in before.items():
        still = "embeddings" in name or ".layer.0." in name
        assert torch.equal(after[name], weight.bfloat16()) == still, name


def test_what_was_trained_is_kept_in_fp32_and_is_what_the_model_computes_with() -> None:
    training = trained(replace(PLAN, epochs=1))
    live = dict(training.model.named_parameters())
    kept = training.trained()
    assert {name for name in live if rate_of(name, PLAN, 3) > 0} == set(kept)
    for name, weight in kept.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight.bfloat16(), live[name])


def test_training_twice_gives_the_same_weights() -> None:
    short = replace(PLAN, epochs=1)
    one, other = trained(short).trained(), trained(short).trained()
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_a_part_of_an_epoch_is_so_many_batches(capsys: pytest.CaptureFixture[str]) -> None:
    training = FineTuning(tiny(), rows(), Plan(epochs=6.3, batch_size=6, rate=1e-3), pad_id=0)
    training.run()
    assert "step 50/51 " in capsys.readouterr().out


def test_each_layer_learns_slower_than_the_one_above_it() -> None:
    rates = [rate_of(f"bert.encoder.layer.{at}.output.dense.weight", PLAN, 3) for at in range(3)]
    assert rates == [0.0, pytest.approx(PLAN.rate * PLAN.by_layer), PLAN.rate]
    assert rate_of("classifier.weight", PLAN, 3) == PLAN.head_rate
    assert rate_of("bert.embeddings.word_embeddings.weight", PLAN, 3) == 0.0


def test_opinions_are_in_the_order_of_the_rows_whatever_their_lengths() -> None:
    model = tiny().eval()
    together = probabilities(model, rows(), 0, batch_size=5)
    for row, found in zip(rows(), together, strict=True):
        with torch.no_grad():
            alone = logits(model, [row], 0).softmax(-1)[0].tolist()
        assert found == pytest.approx(alone, abs=1e-5)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FineTuning, Path]:
    """A tiny MPNet in a folder, and an adapter that was trained over it and saved beside it."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("mpnet")
    config = MPNetConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=12,
        num_attention_heads=4,
        num_labels=3,
    )
    MPNetForSequenceClassification(config).save_pretrained(folder)
    plain = [replace(row, segments=None) for row in rows()]
    quick = replace(train.PLAN, epochs=8, rate=1e-2, head_rate=1e-2)
    training = FineTuning(train.build(folder), plain, quick, pad_id=1)
    training.run()
    train.save(training, folder / "adapter")
    return training, folder


def test_only_the_adapter_and_the_head_are_trained(adapted: tuple[FineTuning, Path]) -> None:
    training, folder = adapted
    before = MPNetForSequenceClassification.from_pretrained(folder).state_dict()
    after = training.model.base_model.model.state_dict()
    kept = {name.replace(".base_layer", ""): weight for name, weight in after.items()}
    for name, weight in before.items():
        if "classifier" not in name:
            assert torch.equal(kept[name], weight.bfloat16()), name
    layers = {int(name.split("layer.")[1].split(".")[0]) for name in after if "lora_A" in name}
    assert layers == set(train.LAYERS)
    assert {"lora_A" in name or "lora_B" in name for name in training.names} == {True, False}


def test_the_adapter_that_is_saved_is_the_one_that_was_trained(
    adapted: tuple[FineTuning, Path],
) -> None:
    training, folder = adapted
    base, bare = (MPNetForSequenceClassification.from_pretrained(folder) for _ in range(2))
    loaded = PeftModel.from_pretrained(base, str(folder / "adapter"))
    plain = [replace(row, segments=None) for row in rows()]
    again, own = probabilities(loaded, plain, 1), probabilities(training.model, plain, 1)
    for one, other in zip(again, own, strict=True):
        assert one == pytest.approx(other, abs=0.02)
    untrained = probabilities(bare, plain, 1)
    assert any(abs(one[0] - other[0]) > 0.05 for one, other in zip(again, untrained, strict=True))


def test_the_config_of_an_adapter_names_no_folder(adapted: tuple[FineTuning, Path]) -> None:
    folder = adapted[1] / "adapter"
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == train.MPNET
    assert config["target_modules"] == sorted(config["target_modules"])
    assert str(adapted[1]) not in json.dumps(config)


def test_a_target_is_partly_the_teachers_and_partly_the_labels() -> None:
    target = mixed([0.5, 0.3, 0.2], (0.0, 1.0, 0.0))
    assert target == pytest.approx([TRUST * 0.5, TRUST * 0.3 + 1 - TRUST, TRUST * 0.2])
    assert sum(target) == pytest.approx(1.0)
