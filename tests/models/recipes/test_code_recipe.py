"""The recipe of the code model: packs, the packed forward pass, the loss, the evaluation."""

import gzip
import json
import math
import random
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForSequenceClassification

from assay_models.base import Score
from assay_models.card import ModelCard, Quality
from assay_models.families.classifier.surprisal import Surprisal, prediction_layer
from recipes.code.data import (
    MixturePart,
    Pack,
    Packer,
    Pair,
    Program,
    is_withheld_pair,
    read_pairs,
)
from recipes.code.evaluate import (
    DATASETS,
    DatasetResult,
    differences_from_card,
    evaluate_pairs,
)
from recipes.code.excess_surprisal import excess_surprisal
from recipes.code.packed_model import AdapterConfig, PackedModel, add_adapter, bradley_terry
from recipes.code.samples import rewrite, sampled_pairs
from recipes.code.train import TrainConfig, training_steps
from recipes.measure import Estimate

PAIRS = [
    Pair("p", "Add.", "return a + b", "return a - b"),
    Pair("p", "Add.", "return a + b", "return a"),
    Pair("p", "Add.", "return b + a", "return a - b"),
    Pair("q", "Stop.", "return", "raise" * 100),
]


def encode_letters(text: str) -> list[int]:
    return [ord(letter) % 90 + 3 for letter in text]


def test_a_program_of_several_pairs_is_packed_once() -> None:
    (pack,) = Packer(encode_letters, max_tokens=120, pack_tokens=1_000).packs(PAIRS)
    assert sorted((program.text, program.is_chosen) for program in pack.programs) == [
        ("return a", False),
        ("return a + b", True),
        ("return a - b", False),
        ("return b + a", True),
    ]
    assert list(pack.prompt) == encode_letters(
        "<|im_start|>user\nAdd.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert list(pack.programs[0].ids) == encode_letters("return a + b<|im_end|>\n")


def test_a_pack_is_closed_at_its_budget() -> None:
    packs = list(Packer(encode_letters, max_tokens=120, pack_tokens=10).packs(PAIRS))
    assert [len(pack.programs) for pack in packs] == [2, 2, 2]
    assert all({program.is_chosen for program in pack.programs} == {True, False} for pack in packs)


def test_rows_of_a_withheld_collection_are_left_out() -> None:
    assert is_withheld_pair({"chosen_by": ["gpt"], "rejected_by": ["codegen", "wizardcoder"]})
    assert not is_withheld_pair({"chosen_by": None, "rejected_by": ["codegen"]})


@pytest.fixture
def model() -> PeftModel:
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=99,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    config.num_labels = 1
    adapter = AdapterConfig(rank=2, first_layer=1)
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):
        model = add_adapter(LlamaForSequenceClassification(config), adapter)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return model


def random_pack() -> Pack:
    draw = random.Random(3)
    programs = tuple(
        Program(str(size), tuple(draw.choices(range(3, 99), k=size)), size > 5)
        for size in (4, 9, 6)
    )
    return Pack(tuple(draw.choices(range(3, 99), k=7)), programs)


def test_each_program_of_a_pack_scores_as_a_row_of_its_own(model: PeftModel) -> None:
    pack = random_pack()
    rows = [torch.tensor([pack.prompt + program.ids]) for program in pack.programs]
    with torch.no_grad():
        alone = [float(model(row).logits) for row in rows]
        packed = PackedModel(model, frozen_layers=1)
        first, again = (packed.score(pack)[0].tolist() for _ in range(2))
    assert max(alone) - min(alone) > 0.3
    assert first == again == pytest.approx(alone, abs=0.05)


def test_the_surprisal_in_training_equals_the_served_one(model: PeftModel) -> None:
    pack, size = random_pack(), 7
    plain = model.get_base_model()
    assert isinstance(plain, LlamaForSequenceClassification)
    served = Surprisal(
        1.0, pack.prompt[-2:], prediction_layer(plain.model.embed_tokens), torch.float32
    )
    with torch.no_grad():
        expected = []
        for program in pack.programs:
            ids = [*pack.prompt, *program.ids]
            assert served.answer_start(ids) == size
            states = plain.model(torch.tensor([ids])).last_hidden_state[0]
            answer = (states[size - 1 : -1], program.ids)
            expected.append(served.penalty([answer], is_row_wise=False))
        logits, excess = PackedModel(model, frozen_layers=1).score(pack)
    assert excess.tolist() == pytest.approx(torch.cat(expected)[:, 0].tolist(), abs=0.05)
    assert len(logits) == len(pack.programs)


def test_the_gradient_of_the_surprisal_equals_autograd() -> None:
    torch.manual_seed(5)
    states, embeddings = torch.randn(6, 16, requires_grad=True), torch.randn(40, 16).bfloat16()
    tokens, weights = torch.randint(0, 40, (6,)), torch.linspace(-1, 2, 6)
    (weights @ excess_surprisal(states, embeddings, tokens)).backward()
    found, states.grad = states.grad, None
    predicted = torch.distributions.Categorical(logits=states @ embeddings.float().T)
    (weights @ (-predicted.log_prob(tokens) - predicted.entropy())).backward()
    assert found is not None
    assert states.grad is not None
    assert torch.allclose(found, states.grad, atol=0.05 * float(states.grad.abs().max()))


def test_sampled_programs_are_rewritten_without_comments_docstrings_and_calls() -> None:
    program = '# mine\nimport math\ndef f(x):\n  """Doc."""\n  return  x*2 # twice\nprint(f(2))\n'
    assert rewrite(program) == "import math\n\ndef f(x):\n    return x * 2"
    with pytest.raises(SyntaxError):
        rewrite("def f(:")


def test_a_failing_sample_gets_a_passing_partner_of_its_own_collection(tmp_path: Path) -> None:
    folder = tmp_path / "code"
    folder.mkdir()
    row = {"problem": "p", "variant": "v", "split": "train", "missing_import": False}
    programs = [
        ("def f(): return 1", "pass", "one"),
        ("def f(): return 2", "pass", "two"),
        ("def f(): return 3", "fail", "two"),
        ("def f(): return 4", "fail", "wizardcoder"),
        ("def f(): return 5", "timeout", "two"),
        ("def f(:", "fail", "two"),
    ]
    samples = [{**row, "code": c, "label": label, "sources": [s]} for c, label, s in programs]
    wording = {**row, "prompt": "Do.", "chosen": "", "rejected": ""}
    files = {"samples_humaneval": samples, "samples_mbpp": [], "pairs_natural_train": [wording]}
    for name, rows in {**files, "pairs_mutation_train": []}.items():
        with gzip.open(folder / f"{name}.jsonl.gz", "wt") as file:
            file.writelines(f"{json.dumps(entry)}\n" for entry in rows)
    (pair,) = sampled_pairs(tmp_path)
    assert pair == Pair("p", "Do.", "def f():\n    return 2", "def f():\n    return 3")


def test_the_loss_is_that_of_bradley_and_terry() -> None:
    loss, won = bradley_terry(torch.tensor([1.0, 0.0, 3.0]), [True, False, False])
    expected = [-math.log(1 / (1 + math.exp(-margin))) for margin in (1.0, -2.0)]
    assert float(loss) == pytest.approx(sum(expected) / 2)
    assert float(won) == 0.5


def test_the_same_config_trains_on_the_same_packs() -> None:
    packer = Packer(encode_letters, max_tokens=120, pack_tokens=10)
    parts = [(MixturePart("pairs", 2), PAIRS[:3])]
    runs = [
        [next(run) for _ in range(4)]
        for run in (
            training_steps(
                TrainConfig(step_tokens=1), lambda generator: packer.epoch(parts, generator)
            )
            for _ in range(2)
        )
    ]
    assert runs[0] == runs[1]
    assert [seen for seen, _ in runs[0]] == sorted({seen for seen, _ in runs[0]})


def served(score: float) -> Score:
    return Score(score, score, channels={"reward": score})


def test_pairs_that_could_not_be_scored_are_counted_and_left_out() -> None:
    scores = {
        ("Add.", "return a + b"): served(2.0),
        ("Add.", "return a - b"): served(1.0),
        ("Add.", "return a"): None,
        ("Add.", "return b + a"): Score(0.0, None, channels={"reward": 0.0}),
    }
    found = evaluate_pairs(PAIRS[:3], scores)
    assert (found.accuracy.value, found.accuracy.n) == (0.5, 2)
    assert (found.longer.value, found.shorter.value, found.gain.value) == (0.5, 0.5, 0.0)
    assert (found.unscored, found.invalid) == (1, 1)


@pytest.mark.parametrize(
    ("measured", "low", "is_reported"),
    [(0.604, 0.504, False), (0.606, 0.5, True), (0.59, 0.5, True), (0.6, 0.51, True)],
)
def test_figures_beyond_the_tolerance_of_the_card_are_reported(
    measured: float, low: float, is_reported: bool
) -> None:
    name = DATASETS[0].name
    quality = Quality(
        dataset=name, metric="pair accuracy", value=0.6, low=0.5, high=0.7, n=9, command="-"
    )
    card = ModelCard(name="code", version=1, family="code", quality=(quality,))
    estimate = Estimate(measured, low, 0.7, 9)
    estimates = dict.fromkeys(("accuracy", "longer", "shorter", "gain"), estimate)
    results = {name: DatasetResult(**estimates, unscored=0, invalid=0)}
    assert bool(differences_from_card(card, results)) is is_reported
    assert differences_from_card(ModelCard(name="code", version=1, family="code"), results)


def test_reading_pairs_keeps_only_the_split(tmp_path: Path) -> None:
    rows = [
        {"problem": split, "prompt": "?", "chosen": "1", "rejected": "2", "split": split}
        for split in ("train", "dev", "train")
    ]
    (tmp_path / "code").mkdir()
    with gzip.open(tmp_path / "code" / "some.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    found = read_pairs(tmp_path, "some", "train")
    assert [pair.problem for _, pair in found] == ["train", "train"]
