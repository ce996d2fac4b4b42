"""How the code model is made and measured: packs, the packed forward pass, the loss, the check."""

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
from assay_models.families.classifier.surprisal import Surprisal, _prediction
from recipes.code.data import Pack, Packer, Pair, Program, Share, _withheld, read_pairs
from recipes.code.evaluate import DATASETS, Measured, check, measure
from recipes.code.excess import excess_surprisal
from recipes.code.packed import Adapter, PackedModel, adapted, bradley_terry
from recipes.code.samples import rewritten, sampled_pairs
from recipes.code.train import Plan, steps
from recipes.measure import Figure

PAIRS = [
    Pair("p", "Add.", "return a + b", "return a - b"),
    Pair("p", "Add.", "return a + b", "return a"),
    Pair("p", "Add.", "return b + a", "return a - b"),
    Pair("q", "Stop.", "return", "raise" * 100),
]


def letters(text: str) -> list[int]:
    return [ord(letter) % 90 + 3 for letter in text]


def test_a_program_of_several_pairs_is_packed_once() -> None:
    (pack,) = Packer(letters, longest=120, budget=1_000).packs(PAIRS)
    assert sorted((program.text, program.good) for program in pack.programs) == [
        ("return a", False),
        ("return a + b", True),
        ("return a - b", False),
        ("return b + a", True),
    ]
    assert list(pack.prompt) == letters("<|im_start|>user\nAdd.<|im_end|>\n<|im_start|>assistant\n")
    assert list(pack.programs[0].ids) == letters("return a + b<|im_end|>\n")


def test_a_pack_is_closed_at_its_budget() -> None:
    packs = list(Packer(letters, longest=120, budget=10).packs(PAIRS))
    assert [len(pack.programs) for pack in packs] == [2, 2, 2]
    assert all({program.good for program in pack.programs} == {True, False} for pack in packs)


def test_rows_of_a_withheld_collection_are_left_out() -> None:
    assert _withheld({"chosen_by": ["gpt"], "rejected_by": ["codegen", "wizardcoder"]})
    assert not _withheld({"chosen_by": None, "rejected_by": ["codegen"]})


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
        num_labels=1,
        pad_token_id=0,
        tie_word_embeddings=True,
    )
    with pytest.warns(FutureWarning, match="is_gradient_checkpointing"):
        model = adapted(LlamaForSequenceClassification(config), Adapter(rank=2, first_layer=1))
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    return model


def drawn_pack() -> Pack:
    draw = random.Random(3)
    programs = tuple(
        Program(str(size), tuple(draw.choices(range(3, 99), k=size)), size > 5)
        for size in (4, 9, 6)
    )
    return Pack(tuple(draw.choices(range(3, 99), k=7)), programs)


def test_each_program_of_a_pack_scores_as_a_row_of_its_own(model: PeftModel) -> None:
    pack = drawn_pack()
    rows = [torch.tensor([pack.prompt + program.ids]) for program in pack.programs]
    with torch.no_grad():
        alone = [float(model(row).logits) for row in rows]
        packed = PackedModel(model, frozen=1)
        first, again = (packed.judged(pack)[0].tolist() for _ in range(2))
    assert max(alone) - min(alone) > 0.3
    assert first == again == pytest.approx(alone, abs=0.05)


def test_what_is_trained_is_the_surprisal_that_is_served(model: PeftModel) -> None:
    pack, size = drawn_pack(), 7
    plain = model.get_base_model()
    served = Surprisal(1.0, pack.prompt[-2:], _prediction(plain.model.embed_tokens), torch.float32)
    with torch.no_grad():
        expected = []
        for program in pack.programs:
            ids = [*pack.prompt, *program.ids]
            assert served.answer(ids) == size
            states = plain.model(torch.tensor([ids])).last_hidden_state[0]
            expected.append(served.malus([(states[size - 1 : -1], program.ids)], by_row=False))
        logits, excess = PackedModel(model, frozen=1).judged(pack)
    assert excess.tolist() == pytest.approx(torch.cat(expected)[:, 0].tolist(), abs=0.05)
    assert len(logits) == len(pack.programs)


def test_the_gradient_of_the_surprisal_is_autograds() -> None:
    torch.manual_seed(5)
    states, embeddings = torch.randn(6, 16, requires_grad=True), torch.randn(40, 16).bfloat16()
    told, weights = torch.randint(0, 40, (6,)), torch.linspace(-1, 2, 6)
    (weights @ excess_surprisal(states, embeddings, told)).backward()
    found, states.grad = states.grad, None
    predicted = torch.distributions.Categorical(logits=states @ embeddings.float().T)
    (weights @ (-predicted.log_prob(told) - predicted.entropy())).backward()
    assert found is not None
    assert states.grad is not None
    assert torch.allclose(found, states.grad, atol=0.05 * float(states.grad.abs().max()))


def test_sampled_programs_are_written_anew_without_what_gives_them_away() -> None:
    program = '# mine\nimport math\ndef f(x):\n  """Doc."""\n  return  x*2 # twice\nprint(f(2))\n'
    assert rewritten(program) == "import math\n\ndef f(x):\n    return x * 2"
    with pytest.raises(SyntaxError):
        rewritten("def f(:")


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
            file.writelines(f"{json.dumps(one)}\n" for one in rows)
    (pair,) = sampled_pairs(tmp_path)
    assert pair == Pair("p", "Do.", "def f():\n    return 2", "def f():\n    return 3")


def test_the_loss_is_bradley_terrys() -> None:
    loss, won = bradley_terry(torch.tensor([1.0, 0.0, 3.0]), [True, False, False])
    expected = [-math.log(1 / (1 + math.exp(-margin))) for margin in (1.0, -2.0)]
    assert float(loss) == pytest.approx(sum(expected) / 2)
    assert float(won) == 0.5


def test_the_same_plan_trains_on_the_same_packs() -> None:
    packer = Packer(letters, longest=120, budget=10)
    shares = [(Share("pairs", 2), PAIRS[:3])]
    runs = [
        [next(run) for _ in range(4)]
        for run in (
            steps(Plan(step_tokens=1), lambda generator: packer.epoch(shares, generator))
            for _ in range(2)
        )
    ]
    assert runs[0] == runs[1]
    assert [seen for seen, _ in runs[0]] == sorted({seen for seen, _ in runs[0]})


def served(score: float) -> Score:
    return Score(score, score, {"reward": score})


def test_pairs_that_could_not_be_scored_are_counted_and_left_out() -> None:
    scores = {
        ("Add.", "return a + b"): served(2.0),
        ("Add.", "return a - b"): served(1.0),
        ("Add.", "return a"): None,
        ("Add.", "return b + a"): Score(0.0, None, {"reward": 0.0}),
    }
    found = measure(PAIRS[:3], scores)
    assert (found.figure.value, found.figure.n) == (0.5, 2)
    assert (found.longer.value, found.shorter.value, found.gain.value) == (0.5, 0.5, 0.0)
    assert (found.unscored, found.invalid) == (1, 1)


@pytest.mark.parametrize(
    ("measured", "low", "complains"),
    [(0.604, 0.504, False), (0.606, 0.5, True), (0.59, 0.5, True), (0.6, 0.51, True)],
)
def test_the_check_holds_the_card_to_its_figures(
    measured: float, low: float, complains: bool
) -> None:
    name = DATASETS[0].name
    quality = Quality(
        dataset=name, metric="pair accuracy", value=0.6, low=0.5, high=0.7, n=9, command="-"
    )
    card = ModelCard(name="code", version=1, family="code", quality=(quality,))
    figure = Figure(measured, low, 0.7, 9)
    results = {name: Measured(figure, figure, figure, figure, 0, 0)}
    assert bool(check(card, results)) is complains
    assert check(ModelCard(name="code", version=1, family="code"), results)


def test_the_recipe_reads_only_its_split(tmp_path: Path) -> None:
    rows = [
        {"problem": split, "prompt": "?", "chosen": "1", "rejected": "2", "split": split}
        for split in ("train", "dev", "train")
    ]
    (tmp_path / "code").mkdir()
    with gzip.open(tmp_path / "code" / "some.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    found = read_pairs(tmp_path, "some", "train")
    assert [pair.problem for _, pair in found] == ["train", "train"]
