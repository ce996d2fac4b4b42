"""Observations of items: labels, what counts as invalid, and the text that is measured."""

from typing import Any

import pytest
from support.scoring_requests import item_result

from assay.runs.measures import PolicyResponse, observation, response_text
from assay.types import ItemFailure


@pytest.mark.parametrize(
    ("details", "labels"),
    [
        ({"label": "neutral", "probabilities": {}}, {"neutral": 1}),
        ({"claims": [{"label": "neutral"}, {"label": "entailment"}, {"label": "neutral"}]},
         {"neutral": 2, "entailment": 1}),
        ({"extraction": "ok", "language": "python"}, {}),
    ],
)  # fmt: skip
def test_labels_of_pairs_and_claims_are_recorded(
    details: dict[str, Any], labels: dict[str, int]
) -> None:
    assert observation(PolicyResponse("text"), item_result(details=details)).labels == labels


def test_a_response_with_nothing_to_score_is_recorded_as_invalid() -> None:
    failed = {"status": "error", "score": None, "source": None}
    assert observation(PolicyResponse("x"), item_result(flags=["invalid_code"])).invalid
    nothing = ItemFailure("no_claims", "")
    assert observation(PolicyResponse("x"), item_result(error=nothing, **failed)).invalid
    too_long = ItemFailure("input_too_long", "")
    assert not observation(PolicyResponse("x"), item_result(error=too_long, **failed)).invalid


def test_the_items_tokens_are_not_recorded_as_the_responses() -> None:
    recorded = observation(PolicyResponse("ответ"), item_result())
    assert (recorded.tokens, recorded.characters, recorded.script) == (None, 5, "cyrillic")
    assert observation(PolicyResponse(None), item_result()).characters is None


@pytest.mark.parametrize(
    ("fields", "response"),
    [
        ({"prompt": "p", "response": "r"}, "r"),
        ({"premise": "p", "hypothesis": "h"}, "h"),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "a", "content": "r"}]}, "r"),
        ({"text": "t", "text_pair": "u"}, None),
        ({"evidence": "e", "claims": ["c"]}, None),
    ],
)
def test_the_response_text_is_taken_from_the_items_fields(
    fields: dict[str, Any], response: str | None
) -> None:
    assert response_text(fields, "hypothesis") == response
