"""The meaning of a head's outputs, by the checkpoint's `problem_type` and the card's choice."""

import logging
import math
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import PlainTransformers, build_checkpoint, load_model
from support.servers import Served
from transformers import pipeline

from assay.api.dialects._service import probability
from assay.settings import Settings
from assay.types import ItemResult
from assay_models.base import Options, Score
from assay_models.card import CardError
from assay_models.families.sequence_classifier import SequenceClassifier
from assay_models.items import TextItem

pytestmark = pytest.mark.weights

TEXT = "well done, indeed"
LABELS = ("toxic", "neutral", "kind")
ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
SINGLE, MULTI, REGRESSION = (
    "single_label_classification",
    "multi_label_classification",
    "regression",
)


def score(folder: Path, options: Options = Options()) -> Score:  # noqa: B008
    model = load_model(folder)
    assert isinstance(model, SequenceClassifier)
    prepared = model.prepare([TextItem(text=TEXT)], options)
    (served,) = model.finish(prepared, model.predict(prepared.inputs), options)
    return served


def activated(served: Score) -> float:
    """Return the score as the routes of engines return it."""
    result = ItemResult(
        index=0,
        id=None,
        group=None,
        status="ok",
        score=served.score,
        raw=served.raw,
        channels=dict(served.channels),
        flags=[],
        tokens=1,
        source="computed",
        details=dict(served.details),
        error=None,
    )
    return probability(result)


def by_pipeline(folder: Path) -> dict[str, float]:
    """Return the score of each label as Transformers' own pipeline computes it."""
    classify = pipeline("text-classification", model=str(folder / "weights"), device="cpu")
    return {entry["label"]: entry["score"] for entry in classify(TEXT, top_k=None)}


def close(expected: Any) -> Any:
    return pytest.approx(expected, abs=1e-5, rel=0)


@pytest.mark.parametrize("problem_type", [None, SINGLE, MULTI, REGRESSION])
@pytest.mark.parametrize("label", LABELS)
def test_several_outputs_are_served_as_by_transformers_pipeline(
    tmp_path: Path, problem_type: str | None, label: str
) -> None:
    folder = build_checkpoint(
        "bert",
        tmp_path,
        labels=LABELS,
        config={"problem_type": problem_type},
        options={"score_label": label},
    )
    served, expected = score(folder), by_pipeline(folder)
    assert served.channels == close(expected)
    assert next(iter(served.channels)) == label
    assert activated(served) == close(expected[label])
    assert served.score == served.raw
    if problem_type == REGRESSION:
        assert served.raw == close(expected[label])
    else:
        assert served.raw == close(math.log(expected[label] / (1 - expected[label])))


@pytest.mark.parametrize("problem_type", [None, MULTI, REGRESSION])
def test_a_single_output_is_served_raw_and_activated_as_by_transformers_pipeline(
    tmp_path: Path, problem_type: str | None
) -> None:
    folder = build_checkpoint("qwen3", tmp_path, config={"problem_type": problem_type})
    served = score(folder)
    assert served.raw == close(PlainTransformers(folder).text(TEXT)[0])
    assert served.channels == {"reward": served.raw}
    assert activated(served) == close(by_pipeline(folder)["LABEL_0"])


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI, REGRESSION])
@pytest.mark.parametrize("stated_by", ["config", "card"])
def test_a_weighted_sum_is_over_the_values_of_transformers_pipeline(
    tmp_path: Path, problem_type: str, stated_by: str
) -> None:
    weights = {"helpfulness": 0.65, "verbosity": -0.4}
    stated = {"problem_type": problem_type}
    folder = build_checkpoint(
        "llama",
        tmp_path,
        labels=ATTRIBUTES,
        config=stated,
        options={"weights": weights},
    )
    expected = by_pipeline(folder)
    if stated_by == "card":
        folder = build_checkpoint(
            "llama",
            tmp_path / "bare",
            labels=ATTRIBUTES,
            options={"weights": weights, **stated},
        )
    served = score(folder)
    total = 0.65 * expected["helpfulness"] - 0.4 * expected["verbosity"]
    assert served.score == served.raw == close(total)
    assert served.channels == close({"reward": total, **expected})
    assert next(iter(served.channels)) == "reward"
    assert activated(served) == served.score


@pytest.mark.parametrize("problem_type", [SINGLE, MULTI, REGRESSION])
async def test_the_routes_of_engines_return_what_transformers_pipeline_returns(
    tmp_path: Path, served: Served, problem_type: str
) -> None:
    folder = build_checkpoint(
        "bert",
        tmp_path,
        labels=LABELS,
        config={"problem_type": problem_type},
        options={"score_label": "neutral"},
    )
    expected = by_pipeline(folder)
    texts = {"inputs": TEXT}, {"input": TEXT, "use_activation": True}
    async with served(Settings(models=("tiny",), repository=(folder,))) as client:
        tei = (await client.post("/compat/tei/tiny/predict", json=texts[0])).json()
        vllm = (await client.post("/compat/vllm/tiny/classify", json=texts[1])).json()
    entries = {entry["label"]: entry["score"] for entry in tei}
    wanted = {"neutral": expected["neutral"]} if problem_type == REGRESSION else expected
    assert entries == close(wanted)
    (entry,) = vllm["data"]
    assert (entry["label"], entry["probs"]) == ("neutral", [close(expected["neutral"])])


def test_the_problem_type_of_the_card_comes_before_the_checkpoints(tmp_path: Path) -> None:
    options = {"score_label": "correctness", "problem_type": REGRESSION}
    folder = build_checkpoint("llama", tmp_path, labels=ATTRIBUTES, options=options)
    served = score(folder)
    logits = PlainTransformers(folder).text(TEXT)
    assert served.channels == close(dict(zip(ATTRIBUTES, logits, strict=True)))
    assert served.score == close(logits[1])


def test_shaping_applies_to_the_raw_of_the_chosen_output(tmp_path: Path) -> None:
    options = {"score_label": "kind", "shaping": "sigmoid"}
    folder = build_checkpoint(
        "bert", tmp_path, labels=LABELS, config={"problem_type": MULTI}, options=options
    )
    served, expected = score(folder), by_pipeline(folder)["kind"]
    assert served.score == activated(served) == close(expected)
    raw = score(folder, Options(raw=True))
    assert raw.score == raw.raw == served.raw
    assert raw.channels == served.channels


UNNAMED = r"no score is named among its 5 outputs \({}\): helpfulness, .*options\.weights \(as"


@pytest.mark.parametrize(
    ("stated", "options", "problem"),
    [
        (REGRESSION, {}, UNNAMED.format(REGRESSION)),
        (MULTI, {}, UNNAMED.format(MULTI)),
        (None, {}, UNNAMED.format("problem_type not stated")),
        (REGRESSION, {"weights": {}}, UNNAMED.format(REGRESSION)),
        (REGRESSION, {"score_label": "honesty"}, "no choice of 'honesty' among its 5 outputs"),
        (REGRESSION, {"weights": {"honesty": 1.0}}, "no choice of 'honesty' among its 5 outputs"),
        (
            REGRESSION,
            {"weights": {"coherence": 1.0}, "score_label": "coherence"},
            "not both",
        ),
        (None, {"weights": {"coherence": 1.0}}, r"needs options\.problem_type.*regression"),
        ("odd", {"score_label": "coherence"}, r"problem_type 'odd'.*options\.problem_type"),
        (None, {"problem_type": "odd"}, r"options\.problem_type"),
        (
            REGRESSION,
            {"weights": {"a": 1.0}, "labels": ["reward", "a", "b", "c", "d"]},
            "rename the outputs",
        ),
    ],
)
def test_several_outputs_without_a_stated_score_are_refused(
    tmp_path: Path, stated: str | None, options: dict[str, object], problem: str
) -> None:
    folder = build_checkpoint(
        "bert", tmp_path, labels=ATTRIBUTES, config={"problem_type": stated}, options=options
    )
    with pytest.raises(CardError, match=problem):
        load_model(folder)


def test_a_softmax_that_no_file_states_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = build_checkpoint("bert", tmp_path, labels=LABELS, options={"score_label": "kind"})
    with caplog.at_level(logging.WARNING):
        load_model(folder)
    assert "tiny@1: its config states no problem_type; its 3 outputs" in caplog.text


@pytest.mark.parametrize("options", [{"score_label": "LABEL_0"}, {"weights": {"LABEL_0": 2.0}}])
def test_a_choice_of_a_single_output_is_refused(tmp_path: Path, options: dict[str, object]) -> None:
    folder = build_checkpoint("bert", tmp_path, options=options)
    with pytest.raises(CardError, match="LABEL_0 is the only one"):
        load_model(folder)


NLI = ("entailment", "neutral", "contradiction")


@pytest.mark.parametrize(
    ("labels", "problem_type", "remedy"),
    [
        (NLI, MULTI, SINGLE),
        (NLI, REGRESSION, SINGLE),
        (NLI[:1], REGRESSION, MULTI),
        (("entailment", "not_entailment"), MULTI, SINGLE),
    ],
)
def test_an_nli_head_whose_labels_do_not_exclude_each_other_is_refused(
    tmp_path: Path, labels: tuple[str, ...], problem_type: str, remedy: str
) -> None:
    folder = build_checkpoint(
        "bert",
        tmp_path,
        labels=labels,
        family="nli",
        config={"problem_type": problem_type},
        options={"probes": False},
    )
    with pytest.raises(CardError, match=f"{problem_type}.*options.problem_type = '{remedy}'"):
        load_model(folder)


@pytest.mark.parametrize(
    ("labels", "problem_type"), [(NLI, SINGLE), (NLI, None), (NLI[:1], MULTI), (NLI[:1], None)]
)
def test_an_nli_head_of_one_softmax_or_one_logit_loads(
    tmp_path: Path, labels: tuple[str, ...], problem_type: str | None
) -> None:
    folder = build_checkpoint(
        "bert",
        tmp_path,
        labels=labels,
        family="nli",
        config={"problem_type": problem_type},
        options={"probes": False},
    )
    assert load_model(folder)


def test_a_code_model_of_several_outputs_is_refused(tmp_path: Path) -> None:
    folder = build_checkpoint("qwen3", tmp_path, num_labels=2, family="code")
    with pytest.raises(CardError, match="a code model has one output, and its checkpoint has 2"):
        load_model(folder)
