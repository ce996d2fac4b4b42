"""Conversion of texts and messages to item fields, family by family."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from assay.api.dialects._items import conversation_item, pair_item, response_item, text_item
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
def test_a_prompt_and_a_response_become_the_familys_fields(
    family: str, prompt: Any, expected: dict[str, Any]
) -> None:
    assert response_item(model(family), prompt, "r") == expected
    if isinstance(prompt, list):
        assert conversation_item(model(family), [*prompt, ASSISTANT]) == expected


@pytest.mark.parametrize(
    ("family", "label", "added"),
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
def test_a_label_adds_only_context_fields(
    family: str, label: object, added: dict[str, Any]
) -> None:
    plain = response_item(model(family), "p", "r")
    assert response_item(model(family), "p", "r", label) == {**plain, **added}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("sequence_classifier", {"text": "a", "text_pair": "b"}),
        ("nli", {"premise": "a", "hypothesis": "b"}),
        ("code", {"prompt": "a", "response": "b"}),
    ],
)
def test_a_pair_of_texts_becomes_the_familys_fields(family: str, expected: dict[str, str]) -> None:
    assert pair_item(model(family), "a", "b") == expected


def test_a_bare_text_becomes_the_familys_field() -> None:
    assert text_item(model("sequence_classifier"), "a") == {"text": "a"}
    assert text_item(model("video_qpp"), "a") == {"query": "a"}


@pytest.mark.parametrize("family", ["code", "nli", "code_exec"])
def test_a_bare_text_for_a_family_of_pairs_is_rejected(family: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot score a bare text") as error:
        text_item(model(family), "a")
    assert "/v1/score" in str(error.value.hint)


def test_a_pair_for_a_family_of_queries_is_rejected() -> None:
    with pytest.raises(InvalidRequest, match="cannot score a pair of texts"):
        pair_item(model("video_qpp"), "a", "b")


@pytest.mark.parametrize("messages", [[], [USER], [ASSISTANT], [USER, ASSISTANT, USER]])
def test_a_conversation_without_a_response_is_rejected(messages: list[dict[str, str]]) -> None:
    with pytest.raises(InvalidRequest, match="no answer"):
        conversation_item(model("code"), messages)
