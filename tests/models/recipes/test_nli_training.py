"""The training of `nli` on a tiny encoder: trained weights, learning rates, and targets."""

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
from recipes.nli.backbones import MPNET
from recipes.nli.finetune import (
    FineTuning,
    Row,
    Target,
    TrainConfig,
    learning_rate_of,
    logits,
    probabilities,
)
from recipes.nli.teacher import TEACHER_WEIGHT, mix_with_label

pytestmark = [
    pytest.mark.slow,
    pytest.mark.weights,
    # peft asks Transformers for an attribute that has a new name.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """One thread: for tensors of this size, waiting for threads takes longer than computing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


CONFIG = TrainConfig(
    epochs=12,
    batch_size=8,
    learning_rate=1e-2,
    head_learning_rate=1e-2,
    first_layer=1,
    label_smoothing=0.0,
)


def tiny() -> Any:
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config.num_labels = 3
    return BertForSequenceClassification(config)


def rows(count: int = 48) -> list[Row]:
    """Return rows whose second token determines the label; the rest is noise."""
    chance = random.Random(5)
    targets: list[Target] = [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)]
    made = []
    for number in range(count):
        noise = chance.choices(range(10, 40), k=chance.randint(2, 9))
        ids = [1, 2 + number % 3, *noise]
        made.append(Row(ids, [0] * len(ids), targets[number % 3]))
    return made


def trained(config: TrainConfig = CONFIG) -> FineTuning:
    training = FineTuning(tiny(), rows(), config, pad_id=0)
    training.run()
    return training


def test_training_learns_and_freezes_the_lower_layers_and_embeddings() -> None:
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


def test_trained_weights_are_kept_in_fp32_and_the_model_computes_with_them() -> None:
    training = trained(replace(CONFIG, epochs=1))
    live = dict(training.model.named_parameters())
    kept = training.trained()
    assert {name for name in live if learning_rate_of(name, CONFIG, 3) > 0} == set(kept)
    for name, weight in kept.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight.bfloat16(), live[name])


def test_training_twice_gives_the_same_weights() -> None:
    short = replace(CONFIG, epochs=1)
    first, second = trained(short).trained(), trained(short).trained()
    assert all(torch.equal(weight, second[name]) for name, weight in first.items())


def test_a_fractional_epoch_is_rounded_up_to_whole_batches(
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = TrainConfig(epochs=6.3, batch_size=6, learning_rate=1e-3)
    training = FineTuning(tiny(), rows(), config, pad_id=0)
    training.run()
    assert "step 50/51 " in capsys.readouterr().out


def test_each_layer_learns_slower_than_the_one_above_it() -> None:
    layers = [f"bert.encoder.layer.{at}.output.dense.weight" for at in range(3)]
    rates = [learning_rate_of(layer, CONFIG, 3) for layer in layers]
    lower = pytest.approx(CONFIG.learning_rate * CONFIG.layer_decay)
    assert rates == [0.0, lower, CONFIG.learning_rate]
    assert learning_rate_of("classifier.weight", CONFIG, 3) == CONFIG.head_learning_rate
    assert learning_rate_of("bert.embeddings.word_embeddings.weight", CONFIG, 3) == 0.0


def test_probabilities_are_in_the_order_of_the_rows() -> None:
    model = tiny().eval()
    together = probabilities(model, rows(), 0, batch_size=5)
    for row, found in zip(rows(), together, strict=True):
        with torch.no_grad():
            alone = logits(model, [row], 0).softmax(-1)[0].tolist()
        assert found == pytest.approx(alone, abs=1e-5)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> tuple[FineTuning, Path]:
    """A trained adapter of a tiny MPNet, and the folder where both are saved."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("mpnet")
    config = MPNetConfig(
        vocab_size=40,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=12,
        num_attention_heads=4,
    )
    config.num_labels = 3
    MPNetForSequenceClassification(config).save_pretrained(folder)
    plain = [replace(row, segments=None) for row in rows()]
    quick = replace(train.CONFIG, epochs=8, learning_rate=1e-2, head_learning_rate=1e-2)
    training = FineTuning(train.build_model(folder), plain, quick, pad_id=1)
    training.run()
    train.save_adapter(training, folder / "adapter")
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


def test_the_saved_adapter_gives_the_trained_probabilities(
    adapted: tuple[FineTuning, Path],
) -> None:
    training, folder = adapted
    base, bare = (MPNetForSequenceClassification.from_pretrained(folder) for _ in range(2))
    loaded = PeftModel.from_pretrained(base, str(folder / "adapter"))
    plain = [replace(row, segments=None) for row in rows()]
    again, own = probabilities(loaded, plain, 1), probabilities(training.model, plain, 1)
    for row, expected in zip(again, own, strict=True):
        assert row == pytest.approx(expected, abs=0.02)
    untrained = probabilities(bare, plain, 1)
    both = zip(again, untrained, strict=True)
    assert any(abs(row[0] - plain_row[0]) > 0.05 for row, plain_row in both)


def test_the_config_of_a_saved_adapter_contains_no_local_path(
    adapted: tuple[FineTuning, Path],
) -> None:
    folder = adapted[1] / "adapter"
    assert sorted(path.name for path in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == MPNET
    assert config["target_modules"] == sorted(config["target_modules"])
    assert str(adapted[1]) not in json.dumps(config)


def test_a_mixed_target_weighs_the_teacher_and_the_label() -> None:
    target = mix_with_label([0.5, 0.3, 0.2], (0.0, 1.0, 0.0))
    assert target == pytest.approx(
        [TEACHER_WEIGHT * 0.5, TEACHER_WEIGHT * 0.3 + 1 - TEACHER_WEIGHT, TEACHER_WEIGHT * 0.2]
    )
    assert sum(target) == pytest.approx(1.0)
