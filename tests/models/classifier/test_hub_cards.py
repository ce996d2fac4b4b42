"""The cards of published checkpoints: pinned or marked as not pinned, and loaded like any other."""

from pathlib import Path

import pytest
from support.checkpoints import PlainTransformers, build_checkpoint

from assay_models.base import Options
from assay_models.card import CardError, Golden, ModelCard
from assay_models.families.code.model import CodeModel
from assay_models.items import CodeItem
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelRepository, embedded_root

from .test_control_tokens import QWEN3_LIKE

REPOSITORY = ModelRepository([embedded_root()])
CARDS = [card for card in REPOSITORY.cards() if card.weights.source == "hub"]
CODE = [card for card in CARDS if card.family == "code"]
PROGRAM = "def double(x):\n    return 2 * x"
ITEM = CodeItem(prompt="Double x.", response=f"So:\n```python\n{PROGRAM}\n```\nDone.")


def by_id(card: ModelCard) -> str:
    return card.id


def on_random_weights(card: ModelCard, folder: Path, template: str = QWEN3_LIKE) -> CodeModel:
    """Load the card with small random Qwen3 weights in place of its own."""
    build_checkpoint("qwen3", folder, family="code", template=template, max_tokens=500)
    entry = ModelRepository([folder]).find("tiny")
    fewer = card.limits.model_copy(update={"max_tokens": 500})
    others = {"weights": entry.card.weights, "limits": fewer, "golden": None}
    here = card.model_copy(update=others)
    model = family_of(here).load(here, REPOSITORY.locate(entry), Runtime())
    assert isinstance(model, CodeModel)
    return model


def test_the_published_models_have_cards() -> None:
    assert len(CODE) == 3
    assert {card.weights.hub for card in CARDS} == {
        *(f"LARK-Lab/CodeScaler-{size}" for size in ("1.7B", "4B", "8B")),
        *(f"Skywork/Skywork-Reward-V2-Qwen3-{size}" for size in ("1.7B", "4B", "8B")),
        "MoritzLaurer/DeBERTa-v3-base-mnli-fever-anli",
        "microsoft/deberta-large-mnli",
        "cnut1648/biolinkbert-mednli",
    }


@pytest.mark.parametrize("card", CARDS, ids=by_id)
def test_published_models_are_not_embedded_and_state_no_unmeasured_figures(card: ModelCard) -> None:
    assert not card.embedded
    assert card.quality == ()
    assert card.bounds == {}
    assert card.weights.revision or any(
        "No revision is pinned" in limitation for limitation in card.limitations
    )


@pytest.mark.parametrize("card", [card for card in CARDS if not card.weights.revision], ids=by_id)
def test_a_card_without_a_pinned_revision_is_refused(card: ModelCard) -> None:
    entry = REPOSITORY.find(card.id)
    with pytest.raises(CardError, match="pin the commit you trust"):
        family_of(card).load(card, REPOSITORY.locate(entry), Runtime())


@pytest.mark.parametrize("card", CODE, ids=by_id)
def test_the_bare_program_scores_as_in_plain_transformers(card: ModelCard, tmp_path: Path) -> None:
    model = on_random_weights(card, tmp_path)
    prepared = model.prepare([ITEM], Options())
    (raw,) = model.predict(prepared.inputs)
    plain = PlainTransformers(tmp_path)
    messages = [
        {"role": "user", "content": "Double x."},
        {"role": "assistant", "content": PROGRAM},
    ]
    (expected,) = plain.chat(messages)
    assert raw[0] == pytest.approx(expected, abs=1e-5)


def test_another_template_is_refused(tmp_path: Path) -> None:
    other = QWEN3_LIKE.replace("<think>\n", "<think>")
    assert other != QWEN3_LIKE
    with pytest.raises(CardError, match=r"the chat template makes .* options\.rendering says"):
        on_random_weights(CODE[0], tmp_path, other)


def test_a_template_that_refuses_the_conversation_is_named_in_the_error(tmp_path: Path) -> None:
    refusing = "{{ raise_exception('no') }}"
    with pytest.raises(CardError, match=r"options\.rendering: the chat template refuses"):
        on_random_weights(CODE[0], tmp_path, refusing)


README = f"""Scores:
````python
question = "Double x."
right = '''{PROGRAM}
```
'''
score(question, right)
````
"""


@pytest.fixture
def golden(tmp_path: Path) -> ModelCard:
    """A card whose publisher printed the scores of its weights."""
    build_checkpoint("qwen3", tmp_path, family="code", template=QWEN3_LIKE, max_tokens=500)
    (tmp_path / "weights" / "README.md").write_text(README, encoding="utf-8")
    messages = [
        {"role": "user", "content": "Double x."},
        {"role": "assistant", "content": f"{PROGRAM}\n```\n"},
    ]
    (expected,) = PlainTransformers(tmp_path).chat(messages)
    card = ModelRepository([tmp_path]).find("tiny").card
    golden = Golden(file="README.md", prompt="question", raws={"right": expected}, tolerance=1e-4)
    return card.model_copy(update={"golden": golden})


def load(card: ModelCard, folder: Path) -> object:
    files = REPOSITORY.locate(ModelRepository([folder]).find("tiny"))
    return family_of(card).load(card, files, Runtime())


def test_a_checkpoint_with_the_publishers_numbers_loads(golden: ModelCard, tmp_path: Path) -> None:
    assert isinstance(load(golden, tmp_path), CodeModel)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"raws": {"right": 77.0}}, r"right scores -?\d.* its publisher printed 77\.0000"),
        ({"raws": {"wrong": 1.0}}, "sets no text 'wrong'"),
        ({"file": "NOTES.md"}, r"NOTES\.md cannot be read"),
    ],
)
def test_golden_values_that_do_not_fit_are_refused(
    golden: ModelCard, tmp_path: Path, other: dict[str, object], message: str
) -> None:
    assert golden.golden is not None
    changed = golden.golden.model_copy(update=other)
    with pytest.raises(CardError, match=message):
        load(golden.model_copy(update={"golden": changed}), tmp_path)
