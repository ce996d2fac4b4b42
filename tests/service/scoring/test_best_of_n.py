"""Best-of-n over HTTP: confidence and abstention."""

from typing import Any

import pytest
from support.servers import Served

from assay.settings import Settings


async def rank(served: Served, settings: Settings, model: str, **body: Any) -> Any:
    async with served(settings) as client:
        reply = await client.post("/v1/best-of-n", json={"model": model, **body})
        return reply.status_code, reply.json()


@pytest.mark.parametrize(("min_confidence", "best"), [(None, 1), (0.65, 1), (0.75, None)])
async def test_it_abstains_below_the_minimum_confidence(
    served: Served, scripted_settings: Settings, min_confidence: float | None, best: int | None
) -> None:
    body = {"candidates": ["a", "aaa", "aa"], "min_confidence": min_confidence}
    _, reply = await rank(served, scripted_settings, "scripted", **body)
    assert reply["ranking"][0]["index"] == 1
    assert reply["ranking"][0]["confidence"] == pytest.approx(0.7)
    assert (reply["best"], reply["abstained"]) == (best, best is None)


@pytest.mark.parametrize(
    "candidates",
    [["ruled", "ruled"], ["ruled"], ["a", "ruled"], ["a"], ["a", "poison"], ["poison"]],
)
async def test_it_abstains_if_the_confidence_is_unknown(
    served: Served, scripted_settings: Settings, candidates: list[str]
) -> None:
    body = {"candidates": candidates, "min_confidence": 0.5}
    _, reply = await rank(served, scripted_settings, "scripted", **body)
    assert reply["ranking"][0]["confidence"] is None
    assert (reply["best"], reply["abstained"]) == (None, True)


async def test_without_a_minimum_the_best_needs_no_confidence(
    served: Served, scripted_settings: Settings
) -> None:
    body = {"candidates": ["ruled", "a"], "abstain_below": 0.5}
    _, reply = await rank(served, scripted_settings, "scripted", **body)
    assert (reply["best"], reply["ranking"][0]["confidence"]) == (1, None)


@pytest.mark.parametrize(
    ("candidates", "tie_margin", "best"),
    [
        (["aa", "aa"], None, None),
        (["aaa", "a"], 2.0, None),
        (["aaa", "a"], 1.9, 0),
        (["aaaa", "a", "a"], None, 0),
    ],
)
async def test_with_a_minimum_confidence_it_abstains_from_a_tie_at_the_top(
    served: Served,
    scripted_settings: Settings,
    candidates: list[str],
    tie_margin: float | None,
    best: int | None,
) -> None:
    body = {"candidates": candidates, "tie_margin": tie_margin, "min_confidence": 0.5}
    _, reply = await rank(served, scripted_settings, "scripted", **body)
    assert (reply["best"], reply["abstained"]) == (best, best is None)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"candidates": ["a", 3]}, ["candidates.1", "candidates.1"]),
        ({"candidates": ["a", {"text": 3}]}, ["candidates.1.text"]),
        ({"candidates": [{"text": "a"}, {"text": "b", "a.typo": 1}]}, ["candidates.1.a.typo"]),
        ({"candidates": ["a", "b"], "typo": 1}, ["typo"]),
        ({"candidates": ["a", "b"], "text_pair": 3}, ["text_pair"]),
        ({"candidates": ["a", {"text": "b", "group": 3}], "group": "g"}, ["candidates.1.group"]),
    ],
)
async def test_a_problem_names_the_candidate_or_the_shared_field(
    served: Served, scripted_settings: Settings, body: dict[str, Any], fields: list[str]
) -> None:
    status, reply = await rank(served, scripted_settings, "scripted", **body)
    assert (status, reply["code"]) == (422, "invalid_request")
    assert [problem["field"] for problem in reply["errors"]] == fields
    assert reply["detail"].startswith(f"{fields[0]}: ")


async def test_a_missing_field_of_all_candidates_is_named_as_shared(
    served: Served,
) -> None:
    body = {"candidates": ["a", "b"]}
    settings = Settings(models=("code-exec",))
    status, reply = await rank(served, settings, "code-exec", **body)
    assert status == 422
    assert [problem["field"] for problem in reply["errors"]] == ["tests"]


async def test_confidence_of_an_uncalibrated_model_is_rejected_with_a_hint(
    served: Served,
) -> None:
    body = {"prompt": "a", "candidates": ["a", "b"], "min_confidence": 0.6}
    status, reply = await rank(served, Settings(models=("reference",)), "reference", **body)
    assert (status, reply["code"]) == (422, "invalid_request")
    assert "abstain_below" in reply["hint"]


@pytest.mark.parametrize("wrong", [0.4, 1.1, "much"])
async def test_a_malformed_confidence_is_rejected(
    served: Served, scripted_settings: Settings, wrong: object
) -> None:
    body = {"candidates": ["a"], "min_confidence": wrong}
    status, reply = await rank(served, scripted_settings, "scripted", **body)
    assert status == 422
    assert reply["errors"][0]["field"] == "min_confidence"
