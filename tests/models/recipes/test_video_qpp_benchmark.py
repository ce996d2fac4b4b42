"""The benchmark of query performance: its features, statistics, page and check."""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from support.paths import ROOT

from recipes.video_qpp.studies.benchmark_page import (
    ResultRow,
    page,
    read_figures,
    write_figures,
    write_page,
)
from recipes.video_qpp.studies.correlations import Coefficient, draw_resamples, kendall, pearson
from recipes.video_qpp.studies.handmade import STOPWORDS, handmade_features, load_tokenizer
from recipes.video_qpp.studies.wordnet import ENDINGS, WordNet

FOLDER = ROOT / "models" / "recipes" / "video_qpp" / "benchmark"
PAGE = FOLDER / "query-performance-benchmark.md"

INDEX = {
    "noun": "  1 a licence\nrun n 16 1 @\ndog n 7 1 @\nfox n 2 1 @\nman n 11 1 @\ncity n 3 1 @\n",
    "verb": "run v 41 1 @\ndog v 1 1 @\nbake v 4 1 @\ngo v 30 1 @\n",
    "adj": "red a 3 1 &\nlarge a 7 1 &\n",
    "adv": "well r 13 1 @\n",
}
IRREGULAR = {"verb": "went go\nran run\nrunning run\n", "noun": "geese goose\n"}


@pytest.fixture(scope="module")
def wordnet(tmp_path_factory: pytest.TempPathFactory) -> WordNet:
    folder = tmp_path_factory.mktemp("wordnet")
    for part in ENDINGS:
        (folder / f"index.{part}").write_text(INDEX[part])
        (folder / f"{part}.exc").write_text(IRREGULAR.get(part, ""))
    return WordNet(folder)


@pytest.mark.parametrize(
    ("word", "count"),
    [
        ("run", 16 + 41),
        ("Dogs", 7 + 1),  # noun and verb
        ("foxes", 2),
        ("cities", 3),
        ("firemen", 0),
        ("men", 11),
        ("baking", 4),
        ("baked", 4),
        ("running", 41),  # irregular, and no rule gives the noun
        ("went", 30),
        ("larger", 7),
        ("geese", 0),  # the irregular base is not in the index
        ("well", 13),
        ("", 0),
        ("qwerty", 0),
    ],
)
def test_synsets_of_a_form_are_those_of_its_base_forms(
    wordnet: WordNet, word: str, count: int
) -> None:
    assert wordnet.synsets(word) == count


def test_handmade_features_of_two_texts(wordnet: WordNet) -> None:
    texts = ("A dog and 2 red foxes run to the BBC, don't they?", "well")
    tagged = {"BBC": "NNP", "foxes": "NNS"}
    found = handmade_features(
        texts, load_tokenizer(), wordnet, lambda words: [(w, tagged.get(w, "NN")) for w in words]
    )
    # A dog and 2 red foxes run to the BBC do n't they: 13 tokens that are no punctuation
    assert found["words"].tolist() == [13, 1]
    assert found["distinct words"].tolist() == [13, 1]
    assert found["synsets"].tolist() == [8 + 3 + 2 + 57, 13]
    assert found["characters"].tolist() == [len(texts[0]), 4]
    assert found["mean word length"][0] == pytest.approx(len("".join(texts[0].split())) / 12)
    for name in ("acronyms", "numerals", "conjunctions", "prepositions", "proper nouns"):
        assert found[f"{name} per word"] == pytest.approx([1 / 13, 0]), name
    bare = handmade_features(texts, load_tokenizer(), None, None)
    assert set(found) - set(bare) == {"synsets", "proper nouns per word"}
    assert "the" in STOPWORDS
    assert "dog" not in STOPWORDS


def test_coefficients_and_intervals_equal_those_of_scipy_on_each_resample() -> None:
    chance = np.random.default_rng(2)
    predicted = chance.integers(5, size=60).astype(float)
    true = predicted + chance.integers(4, size=60).astype(float)
    counts = draw_resamples(60, seed=3, resamples=50)
    assert (counts.sum(axis=1) == 60).all()
    for ours, reference in ((pearson, stats.pearsonr), (kendall, stats.kendalltau)):
        expected = reference(predicted, true)
        resampled = []
        for times in counts:
            rows = np.repeat(np.arange(60), times.astype(int))
            resampled.append(reference(predicted[rows], true[rows]).statistic)
        found = ours(predicted, true, counts)
        assert found is not None
        assert found.value == pytest.approx(expected.statistic)
        assert found.p == pytest.approx(expected.pvalue)
        bounds = np.percentile(resampled, [2.5, 97.5])
        assert (found.low, found.high) == pytest.approx(tuple(bounds), abs=1e-5)
        assert ours(np.ones(60), true, counts) is None
    again = draw_resamples(60, seed=3, resamples=50)
    assert (again == counts).all()


def result_row(
    collection: str, predictor: str, n: int, r: Coefficient | None, tau: Coefficient | None
) -> ResultRow:
    target = "retrieval_avg_rr" if collection == "coco" else "gram.r10"
    return ResultRow(
        collection=collection,
        part="all",
        predictor=predictor,
        target=target,
        n=n,
        r=r,
        tau=tau,
    )


def test_written_figures_are_read_back_and_shown_on_the_page(tmp_path: Path) -> None:
    sure, unsure = Coefficient(0.25, 0.001, 0.2, 0.3), Coefficient(-0.0421, 0.4, -0.1, 0.02)
    rows = [
        result_row("msrvtt", "words", 9, sure, unsure),
        result_row("msrvtt", "acronyms per word", 9, None, None),
        result_row("vatex", "words", 8, sure, sure),
        result_row("coco", "words", 7, unsure, sure),
    ]
    write_page(rows, tmp_path / "a-page.md")
    assert read_figures(tmp_path / "a-page.csv") == rows
    text = (tmp_path / "a-page.md").read_text()
    assert "| words | .250 [.200, .300] |" in text
    assert "| words | -.042° [-.100, .020] |" in text
    assert "| acronyms per word | constant |" in text
    assert "Left out: synsets" in text
    assert "fine-tuned BERT (published) | .263 |" in text
    assert "<svg" in (tmp_path / "images" / "a-page.svg").read_text()
    write_figures(rows[:1], tmp_path / "one.csv")
    assert read_figures(tmp_path / "one.csv") == rows[:1]


def test_the_page_in_the_docs_is_generated_from_its_figures() -> None:
    rows = read_figures(PAGE.with_suffix(".csv"))
    assert PAGE.read_text(encoding="utf-8") == "\n".join(page(rows)) + "\n"
    assert {row.collection for row in rows} == {"msrvtt", "vatex", "coco"}


@pytest.fixture(scope="module")
def data() -> Path:
    folder = Path(os.environ.get("DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "vqpp" / "vqpp_queries.csv.gz").is_file():
        pytest.skip(f"no VQPP data under {folder}: set DATA to the data folder")
    return folder


@pytest.mark.data
def test_handmade_predictors_have_the_expected_figures(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from recipes.video_qpp.studies import benchmark

    # The result must not depend on whether NLTK's data are on this machine.
    monkeypatch.setattr(benchmark, "load_tagger", lambda: None)
    handmade = benchmark.HandmadePredictors()
    assert "proper nouns per word" in handmade.left_out
    monkeypatch.setattr(benchmark, "HandmadePredictors", lambda: handmade)
    monkeypatch.setattr("sys.argv", ["benchmark", "--data", str(data), "--check"])
    benchmark.main()
    assert "within 0.002 of what they must be" in capsys.readouterr().out
    wrong = {"vatex": {"words": ((-0.084, -0.058), (-0.046, 0.034))}}
    monkeypatch.setattr(benchmark, "HANDMADE", wrong)
    with pytest.raises(
        SystemExit, match=r"vatex, words, gram\.rr: kendall -0\.0336, must be 0\.034"
    ):
        benchmark.main()
