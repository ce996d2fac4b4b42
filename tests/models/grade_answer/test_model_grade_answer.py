"""The family of graded answers: extraction, verdicts, inputs, and each text read once."""

import asyncio
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest
from pydantic import ValidationError

from assay_models.answers import packages
from assay_models.answers.canonical import Query
from assay_models.answers.extraction import AnswerPlace, extract_answer
from assay_models.answers.pool import FORM, LIMIT, UNREADABLE, MathForms
from assay_models.base import ItemError, Options, Prepared, Score
from assay_models.card import CardError, ModelCard
from assay_models.families.grade_answer.model import GradeAnswerModel
from assay_models.items import GradeAnswerItem
from assay_models.registry import FAMILIES, Runtime
from assay_models.repository import ModelRepository, embedded_root
from assay_models.workers.pool import LimitExceeded, WorkerPool, WorkerUnavailable

REPOSITORY = ModelRepository([embedded_root()])
ENTRY = REPOSITORY.find("grade-answer@1")


def load(card: ModelCard = ENTRY.card) -> GradeAnswerModel:
    return GradeAnswerModel.load(card, REPOSITORY.locate(ENTRY), Runtime())


def card_with(**options: Any) -> ModelCard:
    return ENTRY.card.model_copy(update={"options": options})


class Reader:
    """Workers whose form of a text is the text without blanks; it counts what they are asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def ask(self, request: bytes) -> bytes:
        text = request.decode()
        self.asked.append(text)
        if "limit" in text:
            raise LimitExceeded
        if "busy" in text:
            raise WorkerUnavailable("no worker was free for 30 seconds")
        return UNREADABLE if "bad" in text else FORM + text.replace(" ", "").encode()


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Reader:
    reader = Reader()
    monkeypatch.setattr(WorkerPool, "ask", lambda pool, request: reader.ask(request))
    return reader


def item(response: str, gold: Any, kind: Any = "math", **more: Any) -> GradeAnswerItem:
    return GradeAnswerItem(response=response, gold=gold, answer_type=kind, **more)


async def grade(model: GradeAnswerModel, *items: GradeAnswerItem) -> list[Score | ItemError]:
    """Grade items as the service does, without its cache."""
    prepared: list[Prepared | ItemError] = []
    for given in items:
        try:
            prepared.append(model.prepare([given], Options()))
        except ItemError as error:
            prepared.append(error)
    inputs = [row for ready in prepared if isinstance(ready, Prepared) for row in ready.inputs]
    raws = iter(await model.predict(inputs))
    results: list[Score | ItemError] = []
    for ready in prepared:
        if isinstance(ready, ItemError):
            results.append(ready)
            continue
        own = [next(raws) for _ in ready.inputs]
        failed = next((raw for raw in own if isinstance(raw, ItemError)), None)
        numbers = [raw for raw in own if not isinstance(raw, ItemError)]
        results += [failed] if failed else model.finish(ready, numbers, Options())
    return results


def code_of(result: Score | ItemError) -> str:
    return result.code if isinstance(result, ItemError) else "ok"


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"So \boxed{\frac{1}{2}} it is, or \boxed{7}?", "7"),
        (r"\boxed{\text{a {b} c}}", r"\text{a {b} c}"),
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"\boxed{1}\boxed{2}", "1, 2"),
        (r"First \boxed{1}. After some thought: \boxed{2}", "2"),
        (r"\boxed{\boxed{3}}", r"\boxed{3}"),
        (r"\boxed{ 1 \boxed{4}", "4"),
        (r"\boxed 5", "5"),
        ("<answer> 6 </answer>", "6"),
        ("<answer>5</answer> no: <answer>6</answer>", "6"),
        ("Some words.\n\n**Answer:** 8\n", "8"),
        ("Long story.\nThe final answer is $9$. I hope it is correct.", "$9$"),
        ("6 * 3 = 18\n#### 18", "18"),
        ("10", "10"),
        ("Therefore $x = 11$ holds.", "x = 11"),
        ("<think>\\boxed{1}</think>\nIt is \\boxed{12}.", "12"),
        ("<think>\n\\boxed{1}", None),
        ("No idea.\nNone at all.", None),
        ("", None),
    ],
)
def test_the_last_answer_of_a_response_is_taken(response: str, answer: str | None) -> None:
    assert extract_answer(response) == answer


@pytest.mark.parametrize(
    ("place", "answer"),
    [
        ("last_boxed", "1"),
        ("answer_tag", "2"),
        ("answer_line", "3"),
        ("whole", "\\boxed{1}\n<answer>2</answer>\nAnswer: 3"),
    ],
)
def test_a_card_may_name_the_place_of_the_answer(place: AnswerPlace, answer: str) -> None:
    assert extract_answer("\\boxed{1}\n<answer>2</answer>\nAnswer: 3", place) == answer
    assert place == "whole" or extract_answer("4", place) is None


async def test_cheap_answers_are_graded_without_an_input(reader: Reader) -> None:
    model = load()
    right = item(r"\boxed{1{,}000}", "1e3", "number")
    prepared = model.prepare([right], Options())
    assert prepared.inputs == ()
    results = await grade(
        model,
        right,
        item(r"\boxed{x+1}", r"$x+1$"),
        item(r"\boxed{90^\circ}", "90"),
        item(r"\boxed{B}", ["C", "D"], "mcq"),
        item("Nothing.\nAt all.", "7"),
    )
    assert reader.asked == []
    scores = [result for result in results if isinstance(result, Score)]
    assert [(score.score, score.raw) for score in scores] == [
        *((1.0, None), (1.0, None), (1.0, None), (0.0, None), (0.0, None)),
    ]
    assert [score.channels["has_answer"] for score in scores] == [1.0, 1.0, 1.0, 1.0, 0.0]
    assert [score.details["path"] for score in scores][:3] == ["rule", "rule", "rule_relaxed"]
    assert scores[4].flags == ("no_answer",)
    assert scores[4].details["parsed_answer"] is None


async def test_ten_thousand_items_ask_once_for_each_distinct_text(reader: Reader) -> None:
    items = [
        item(rf"\boxed{{x + {number % 250}}}", f"x+{number % 50} + y") for number in range(10_000)
    ]
    results = await grade(load(), *items)
    assert all(isinstance(result, Score) for result in results)
    assert len(reader.asked) == len(set(reader.asked)) == 300


async def test_equal_questions_have_one_key(reader: Reader) -> None:
    def key(response: str, gold: Any, **more: Any) -> bytes:
        (row,) = load().prepare([item(response, gold, **more)], Options()).inputs
        return row.key

    one = key(r"So: \boxed{x+1}", ["a+b", "c+d"])
    assert key("<answer>$x+1$</answer>", ["c+d", "a+b"]) == one
    others = (
        key(r"\boxed{x+2}", ["a+b", "c+d"]),
        key(r"\boxed{x+1}", ["a+b"]),
        key(r"\boxed{x+1}", ["a+b", "c+d"], candidates={"positive": ["x"]}),
    )
    assert len({one, *others}) == 4


async def test_what_cannot_be_graded_is_an_error_and_never_a_number(reader: Reader) -> None:
    results = await grade(
        load(),
        item(r"\boxed{x+1}", "free", "free"),
        item(r"\boxed{x+1}", "bad + 1"),
        item(r"\boxed{x+1}", ["a+b", "bad + 1"]),
        item(r"\boxed{x+1}", "limit + 1"),
        item(r"\boxed{limit + x}", "a+b"),
        item(r"\boxed{busy + x}", "a+b"),
        item(r"\boxed{9^{9^{9^{9}}}}", "a+b"),
        item("Nothing.\nAt all.", "x+", "number"),
        item(r"\boxed{7}", "seven", "number"),
    )
    assert [code_of(result) for result in results] == [
        "judge_not_configured",
        *["unparsed_gold"] * 3,
        "grading_limit",
        "grader_unavailable",
        "grading_limit",
        *["unparsed_gold"] * 2,
    ]


async def test_one_matching_reference_decides_though_another_cannot_be_read(
    reader: Reader,
) -> None:
    (result,) = await grade(load(), item(r"\boxed{x + 1}", ["bad + 1", "x+1"]))
    assert isinstance(result, Score)
    assert result.score == 1.0


async def test_an_answer_that_is_no_mathematics_is_wrong_and_flagged(reader: Reader) -> None:
    bad, word = await grade(
        load(), item(r"\boxed{bad + x}", "a+b"), item(r"\boxed{many}", "7", "number")
    )
    for result in (bad, word):
        assert isinstance(result, Score)
        assert result.score == 0.0
        assert result.flags == ("unparsed_answer",)
        assert result.channels == {"correct": 0.0, "has_answer": 1.0}


async def test_the_matched_candidate_is_named(reader: Reader) -> None:
    candidates = {"positive": ["a+b"], "negative": ["a + c", "bad + 1"]}
    results = await grade(
        load(),
        *(item(rf"\boxed{{{text}}}", "a + b", candidates=candidates) for text in ("a+b", "a+c")),
        item(r"\boxed{7}", "a+b", candidates=candidates),
        item(r"\boxed{B}", "A", "mcq", candidates={"positive": ["A"], "negative": ["B"]}),
        item(r"\boxed{B}", "A", "mcq"),
    )
    scores = [result for result in results if isinstance(result, Score)]
    matched = [score.details["matched"] for score in scores]
    assert matched == ["positive", "negative", "other", "negative", None]
    assert [score.flags for score in scores[:3]] == [("unparsed_candidate",)] * 3


async def test_a_text_that_a_worker_dies_of_is_not_tried_again(reader: Reader) -> None:
    model = load()
    items = [item(r"\boxed{limit + x}", f"a+{number}") for number in range(40)]
    results = await grade(model, *items)
    assert {code_of(result) for result in results} == {"grading_limit"}
    assert reader.asked.count("limit + x") == 1


async def test_a_waiting_caller_takes_over_from_a_cancelled_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forms = MathForms()
    asked: list[bytes] = []
    release, began = asyncio.Event(), asyncio.Event()

    async def to_thread(ask: Any, request: bytes) -> bytes:
        asked.append(request)
        began.set()
        await release.wait()
        return FORM + request

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    first, second = (asyncio.create_task(forms.form(Query("x"))) for _ in range(2))
    await began.wait()
    first.cancel()
    release.set()
    assert (await second).exact == "x"
    assert asked == [b"x", b"x"]
    assert (await forms.form(Query("x", "cm"))).exact == "x|cm"


async def test_without_the_extra_mathematics_is_refused_and_the_rest_is_graded(
    monkeypatch: pytest.MonkeyPatch, reader: Reader
) -> None:
    def version(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(packages, "version", version)
    model = load()
    math, number = await grade(
        model, item(r"\boxed{x+1}", "1+x"), item(r"\boxed{7}", "7.0", "math")
    )
    assert isinstance(math, ItemError)
    assert math.code == "mathematics_unavailable"
    assert "pip install '.[answers]'" in str(math)
    assert isinstance(number, Score)
    assert model.fingerprint != load_with_versions(monkeypatch).fingerprint


def load_with_versions(monkeypatch: pytest.MonkeyPatch) -> GradeAnswerModel:
    monkeypatch.undo()
    return load()


def test_options_change_the_fingerprint_and_unknown_ones_are_refused() -> None:
    rounded = load(card_with(significant_digits=3))
    assert rounded.fingerprint != load().fingerprint == load().fingerprint
    prepared = rounded.prepare([item(r"\boxed{3.14159}", "3.14", "number")], Options())
    assert prepared.state.is_correct
    with pytest.raises(CardError, match="significant_digits"):
        load(card_with(significant_digits=0))


@pytest.mark.parametrize("fields", [{}, {"gold": []}, {"answer_type": "essay"}, {"gold": 7}])
def test_an_item_without_a_reference_or_of_an_unknown_type_is_refused(
    fields: dict[str, Any],
) -> None:
    given = {"response": "a", "answer_type": "short", **fields}
    with pytest.raises(ValidationError):
        GradeAnswerItem.model_validate(given)


def test_the_probe_of_the_family_and_an_oversized_answer() -> None:
    probe = GradeAnswerItem(**FAMILIES["grade_answer"].probe)
    assert load().prepare([probe], Options()).state.is_correct
    with pytest.raises(ItemError) as error:
        load().prepare([item("\\boxed{" + "9" * 30_000 + "}", "7", "number")], Options())
    assert error.value.code == "grading_limit"
    assert LIMIT
