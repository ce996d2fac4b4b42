"""From what clients send to the fields of an item, family by family."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from assay.api.dialects._items import answer, conversation, pair, single
from assay.errors import InvalidRequest
from assay.served_model import ServedModel
from assay_models.registry import FAMILIES

SYSTEM = {"role": "system", "content": "Be brief."}
USER = {"role": "user", "content": "p"}
ASSISTANT = {"role": "assistant", "content": "r"}


def model(family: str) -> ServedModel:
    return cast(ServedModel, SimpleNamespace(id=f"{family}@1", family=FAMILIES[family]))


@pytest.mark.parametrize(
    ("family", "prompt", "expected"),
    [
        ("code", "p", {"prompt": "p", "response": "r"}),
        ("code", [USER], {"prompt": "p", "response": "r"}),
        ("code", [SYSTEM, USER], {"prompt": [SYSTEM, USER], "response": "r"}),
        ("sequence_classifier", "p", {"prompt": "p", "response": "r"}),
        ("code_exec", "p", {"prompt": "p", "response": "r"}),
        ("nli", "p", {"evidence": "p", "response": "r"}),
        ("nli", [SYSTEM, USER], {"evidence": ["p"], "response": "r"}),
        ("video_qpp", "p", {"query": "r"}),
    ],
)
def test_an_answer(family: str, prompt: Any, expected: dict[str, Any]) -> None:
    assert answer(model(family), prompt, "r") == expected
    if isinstance(prompt, list):
        assert conversation(model(family), [*prompt, ASSISTANT]) == expected


@pytest.mark.parametrize(
    ("family", "label", "joined"),
    [
        ("code_exec", {"tests": ["assert f"], "ground_truth": 4}, {"tests": ["assert f"]}),
        ("nli", {"evidence": "e", "tests": []}, {"evidence": "e"}),
        ("video_qpp", {"collection": "vatex"}, {"collection": "vatex"}),
        ("code", {"response": "not this", "id": 7, "prompt": "nor this"}, {}),
        ("sequence_classifier", {"text": "nor this", "messages": []}, {}),
        ("code", "4", {}),
        ("code", ["4"], {}),
        ("code", None, {}),
    ],
)
def test_a_label_gives_what_the_answer_is_held_against(
    family: str, label: object, joined: dict[str, Any]
) -> None:
    plain = answer(model(family), "p", "r")
    assert answer(model(family), "p", "r", label) == {**plain, **joined}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("sequence_classifier", {"text": "a", "text_pair": "b"}),
        ("nli", {"premise": "a", "hypothesis": "b"}),
        ("code", {"prompt": "a", "response": "b"}),
    ],
)
def test_a_pair(family: str, expected: dict[str, str]) -> None:
    assert pair(model(family), "a", "b") == expected


def test_a_text_alone() -> None:
    assert single(model("sequence_classifier"), "a") == {"text": "a"}
    assert single(model("video_qpp"), "a") == {"query": "a"}


@pytest.mark.parametrize("family", ["code", "nli", "code_exec"])
def test_a_text_alone_is_too_little_for_some(family: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot score a bare text") as caught:
        single(model(family), "a")
    assert "/v1/score" in str(caught.value.hint)


def test_a_query_has_no_second_side() -> None:
    with pytest.raises(InvalidRequest, match="cannot score a pair of texts"):
        pair(model("video_qpp"), "a", "b")


@pytest.mark.parametrize("turns", [[], [USER], [ASSISTANT], [USER, ASSISTANT, USER]])
def test_a_conversation_without_an_answer(turns: list[dict[str, str]]) -> None:
    with pytest.raises(InvalidRequest, match="no answer"):
        conversation(model("code"), turns)
