"""`code@2` as it is served: its example, its limits, and scores independent of the batch."""

from pathlib import Path

import pytest
from support.paths import DATA
from support.tiers import only_nightly

from assay_models.base import ItemError, Options, Score
from assay_models.card import CardError
from assay_models.families.code.model import CodeModel
from assay_models.items import CodeItem
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelRepository, embedded_root
from recipes.code.data import Pair

pytestmark = pytest.mark.weights

PROMPT = "Write count_vowels(text): how many letters of the text are vowels, in either case."
PROGRAMS = (
    "def count_vowels(text):\n    return sum(c in 'aeiou' for c in text.lower())",
    "def count_vowels(text):\n    vowels = 0\n    for letter in text:\n"
    "        if letter in 'aeiouAEIOU':\n            vowels += 1\n    return vowels",
    "pass",
    "def count_vowels(text):\n    return len(text)",
)
ENTRY = ModelRepository([embedded_root()]).find("code@2")


@pytest.fixture(scope="module")
def model() -> CodeModel:
    repository = ModelRepository([embedded_root()])
    try:
        files = repository.locate(ENTRY)
    except CardError as error:
        pytest.skip(str(error))
    model = family_of(ENTRY.card).load(ENTRY.card, files, Runtime())
    assert isinstance(model, CodeModel)
    return model


def score(model: CodeModel, item: CodeItem, options: Options = Options()) -> Score:  # noqa: B008
    prepared = model.prepare([item], options)
    raws = model.predict(prepared.inputs) if prepared.inputs else []
    (result,) = model.finish(prepared, raws, options)
    return result


def fenced(program: str) -> CodeItem:
    return CodeItem(prompt=PROMPT, response=f"```python\n{program}\n```")


def test_the_example_of_the_card_has_its_score(model: CodeModel) -> None:
    example = ENTRY.card.example
    assert example is not None
    result = score(model, CodeItem.model_validate(example.item))
    assert result.score == pytest.approx(example.score, abs=example.tolerance)


def test_raws_are_the_same_alone_and_in_a_batch(model: CodeModel) -> None:
    inputs = [model.prepare([fenced(program)], Options()).inputs[0] for program in PROGRAMS]
    together = [raw for (raw,) in model.predict(inputs)]
    alone = [model.predict([row])[0][0] for row in inputs]
    assert together == pytest.approx(alone, abs=1e-5, rel=2e-6)  # `pass` has a raw of -13
    assert len(set(alone)) == len(alone)


def test_a_good_program_scores_above_a_trivial_one_and_an_invalid_one_gets_zero(
    model: CodeModel,
) -> None:
    good, *_, trivial, _ = (score(model, fenced(program)) for program in PROGRAMS)
    invalid = score(model, fenced("def count_vowels(text:"))
    assert good.score > trivial.score > invalid.score == 0.0
    assert invalid.raw is None


def test_a_program_over_the_limit_of_the_card_is_refused_or_truncated(model: CodeModel) -> None:
    limit = ENTRY.card.limits.max_tokens
    longer = fenced("x = 1\n" * limit)
    with pytest.raises(ItemError, match=str(limit)):
        model.prepare([longer], Options())
    truncated = model.prepare([longer], Options(truncation="middle"))
    assert truncated.inputs[0].tokens == limit
    assert truncated.flags == ("truncated",)


def test_the_template_adds_no_system_message(model: CodeModel) -> None:
    (row,) = model.prepare([fenced(PROGRAMS[0])], Options()).inputs
    text = model.classifier.tokenizer.decode(row.payload.ids)
    assert text == (
        f"<|im_start|>user\n{PROMPT}<|im_end|>\n<|im_start|>assistant\n{PROGRAMS[0]}<|im_end|>\n"
    )


@pytest.fixture(scope="module")
def data() -> Path:
    folder = DATA
    if not (folder / "code" / "pairs_natural_dev.jsonl.gz").is_file():
        pytest.skip(f"no code pairs under {folder}: set DATA to the data folder")
    return folder


@pytest.mark.data
@only_nightly
def test_held_out_problems_are_ranked_as_on_the_card(model: CodeModel, data: Path) -> None:
    from recipes.code.evaluate import DATASETS, evaluate_pairs, read_dataset, score_programs

    first: dict[str, Pair] = {}
    for pair in read_dataset(DATASETS[0], data):
        if len(pair.prompt + pair.chosen + pair.rejected) < 900:
            first.setdefault(pair.problem, pair)
    pairs = list(first.values())[:40]
    found = evaluate_pairs(pairs, score_programs(model, pairs, batch_size=1))
    assert found.accuracy.n == 40
    assert found.accuracy.value == pytest.approx(0.65, abs=0.03)  # what code@2 does on these forty
