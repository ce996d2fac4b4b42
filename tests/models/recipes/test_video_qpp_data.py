"""The data of VQPP and PQPP: splits, targets, and the served model on them."""

import re
from pathlib import Path

import numpy as np
import pytest
from support.paths import DATA

pytestmark = pytest.mark.data

WORDS_ROW = {
    ("msrvtt", "gram.r10"): (0.270, 0.247),
    ("msrvtt", "gram.rr"): (0.255, 0.205),
    ("msrvtt", "vast.r10"): (0.222, 0.195),
    ("msrvtt", "vast.rr"): (0.224, 0.183),
    ("vatex", "gram.r10"): (-0.084, -0.058),
    ("vatex", "gram.rr"): (-0.046, -0.034),
    ("vatex", "vast.r10"): (-0.023, -0.031),
    ("vatex", "vast.rr"): (0.006, -0.020),
}
"""Published Pearson's r and Kendall's tau-b of the number of words."""

WORD = re.compile(r"n't|'\w+|\w+(?:[-./,]\w+)*|\"")
"""The benchmark's words: contractions in two parts, compounds in one, quotation marks too."""


@pytest.fixture(scope="module")
def data() -> Path:
    folder = DATA
    if not (folder / "vqpp" / "vqpp_queries.csv.gz").is_file():
        pytest.skip(f"no VQPP data under {folder}: set DATA to the data folder")
    return folder


@pytest.mark.parametrize(("collection", "target"), WORDS_ROW)
def test_the_number_of_words_correlates_as_published(
    data: Path, collection: str, target: str
) -> None:
    from scipy.stats import kendalltau, pearsonr

    from recipes.video_qpp.data import COLUMNS, read_queries

    queries = read_queries(data, collection)[1]
    true = queries.targets[:, list(COLUMNS[collection]).index(target)]
    words = [len(WORD.findall(text.replace("n't", " n't"))) for text in queries.texts]
    pearson, kendall = WORDS_ROW[collection, target]
    assert pearsonr(words, true).statistic == pytest.approx(pearson, abs=0.002)
    assert kendalltau(words, true).statistic == pytest.approx(kendall, abs=0.002)


@pytest.mark.parametrize(
    ("collection", "train", "test", "shared"),
    [("msrvtt", 36_863, 879, 55), ("vatex", 17_341, 713, 0), ("coco", 8_000, 2_000, 0)],
)
def test_the_splits_have_the_official_sizes(
    data: Path, collection: str, train: int, test: int, shared: int
) -> None:
    from recipes.video_qpp.data import read_queries

    learn, tested = read_queries(data, collection)
    assert (len(learn), len(tested)) == (train, test)
    assert (learn.leaked.sum(), tested.leaked.sum()) == (shared, shared)
    assert not set(learn.without_leaked().texts) & set(tested.texts)


@pytest.mark.weights
def test_the_served_model_predicts_gram_recall_on_msrvtt(data: Path) -> None:
    from recipes.measure import load_model
    from recipes.video_qpp.data import read_queries
    from recipes.video_qpp.evaluate import score_queries

    _, model = load_model("video-qpp@2")
    queries = read_queries(data, "msrvtt")[1]
    scores = score_queries(model, queries.texts, "msrvtt", "gram")
    predicted = [score.channels["r10"] for score in scores]
    assert np.corrcoef(predicted, queries.targets[:, 1])[0, 1] >= 0.42
