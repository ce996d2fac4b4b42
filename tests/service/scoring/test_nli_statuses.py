"""The statuses of hard NLI inputs: each has its own, and none is neutral by default."""

from pathlib import Path
from typing import Any

import pytest
from support.marked_checker import DENIES, SUPPORTS, build_marked, prose
from support.servers import Served

from assay.settings import Settings
from assay_monitors.history import RunHistory, Stream
from assay_monitors.summaries import Summary

FERRY = "The ferry to the island leaves at nine."
HARBOUR = "The harbour is closed to ships in winter."
CHINESE = "渡轮每天早上九点离开港口前往岛屿。"
GERMAN = "Die kleine Fähre verlässt den Hafen jeden Morgen um neun Uhr."

# The item's fields, its status or error code, and its flags.
HARD: dict[str, tuple[dict[str, Any], str, set[str]]] = {
    "empty response": ({"response": ""}, "no_claims", set()),
    "white space": ({"response": " \n\t\u3000 "}, "no_claims", set()),
    "one word": ({"response": "Yes."}, "no_claims", set()),
    "emoji": ({"response": "😀😀😀 👍🏽 🎉🎉"}, "no_claims", set()),
    "punctuation": ({"response": "?!... --- *** ((( )))"}, "no_claims", set()),
    "numbers": ({"response": "3.14159 2.71828 1.41421"}, "no_claims", set()),
    "link": ({"response": "https://example.com/ferry?to=island"}, "no_claims", set()),
    "questions": ({"response": "Does the ferry leave at nine? Or later?"}, "no_claims", set()),
    "headings": ({"response": "# The ferry to the island\n## When it leaves"}, "no_claims", set()),
    "code": ({"response": "```python\nferry = leaves(at=9)\n```"}, "no_claims", set()),
    "open fence": ({"response": "```\nferry = leaves(at=9)\n"}, "no_claims", set()),
    "thought": ({"response": f"<think>{FERRY} {HARBOUR}"}, "no_claims", set()),
    "short refusal": ({"response": "I don't know."}, "no_claims", set()),
    "long refusal": (
        {"response": "I'm sorry, but the passages do not mention a ferry, so I cannot answer."},
        "no_claims",
        set(),
    ),
    "citations only": ({"claims": ["[1]", "(Smith et al., 2020)"]}, "no_claims", set()),
    "one long word": ({"response": "a" * 5000}, "no_claims", set()),
    "null bytes": ({"response": "\x00\x00\x00\x00"}, "no_claims", set()),
    "no claims": ({"claims": []}, "no_claims", set()),
    "empty claims": ({"claims": ["", " ", "--"]}, "no_claims", set()),
    "no evidence": ({"evidence": [], "response": FERRY}, "no_evidence", set()),
    "empty evidence": ({"evidence": ["", "\u200b"], "response": FERRY}, "no_evidence", set()),
    "no search": ({"evidence": None, "response": FERRY, "searched": False}, "no_search", set()),
    "chinese": ({"response": CHINESE * 2}, "unsupported_language", set()),
    "chinese pair": (
        {"evidence": None, "premise": FERRY, "hypothesis": CHINESE},
        "unsupported_language",
        set(),
    ),
    "arabic": (
        {"response": "تغادر العبارة إلى الجزيرة في التاسعة."},
        "unsupported_language",
        set(),
    ),
    "german": ({"claims": [GERMAN]}, "unsupported_language", set()),
    "chinese evidence": ({"evidence": CHINESE, "response": FERRY}, "unsupported_language", set()),
    "mostly chinese": ({"claims": [FERRY, CHINESE, CHINESE]}, "unsupported_language", set()),
    "unknown letters": ({"claims": ["𓀀𓀁𓀂 𓀃𓀄𓀅"]}, "unsupported_language", set()),
    "too long": ({"claims": ["the ferry leaves the port " * 20]}, "input_too_long", set()),
    "too many": ({"claims": [f"Ferry {n} leaves." for n in range(40)]}, "too_many_pairs", set()),
    "both forms": ({"premise": FERRY, "hypothesis": FERRY}, "invalid_item", set()),
    "plain": ({"response": FERRY}, "ok", set()),
    "half chinese": ({"claims": [FERRY, CHINESE]}, "ok", {"unsupported_language"}),
    "chinese passage": (
        {"evidence": [HARBOUR, CHINESE], "claims": [FERRY]},
        "ok",
        {"unsupported_language"},
    ),
    "one character": ({"evidence": "9", "response": FERRY}, "ok", set()),
    "html": ({"response": f"<p>{FERRY}</p><br/>\n<b>{HARBOUR}</b>"}, "ok", set()),
    "contradictory": (
        {"evidence": [HARBOUR + SUPPORTS, HARBOUR + DENIES], "claims": [FERRY]},
        "ok",
        {"disputed_evidence"},
    ),
    "mixed scripts": (
        {"response": "The city of Москва has a ferry, says 王 to Ωmega."},
        "ok",
        set(),
    ),
    "zero width": (
        {"response": "The fer\u200bry lea\u200cves at\ufeff nine."},
        "ok",
        {"hidden_characters"},
    ),
    "right to left mark": ({"response": f"\u202e{FERRY}"}, "ok", {"hidden_characters"}),
    "control characters": ({"response": f"\x07{FERRY}\x1b[0m \x00"}, "ok", set()),
    "list": ({"response": f"1. {FERRY}\n2) {HARBOUR}\n- {FERRY}"}, "ok", set()),
    "duplicates": ({"claims": [FERRY] * 5}, "ok", {"repetition"}),
    "names": ({"claims": ["Wolfgang Amadeus Mozart, Salzburg"]}, "ok", set()),
    "formula": ({"claims": ["E = mc^2 and a > b"]}, "ok", set()),
    "inline code": ({"claims": ["for i in range(10): print(i)"]}, "ok", set()),
    "prose in a fence": ({"response": f"```\n{FERRY}\n{HARBOUR}\n```"}, "ok", set()),
    "citation": ({"response": f"{FERRY} [1]"}, "ok", {"citations_removed"}),
    "citation in a claim": ({"claims": [f"{FERRY} [1]"]}, "ok", {"citations_removed"}),
    "unjudged question": (
        {"response": f"{FERRY} Does it carry ninety cars?"},
        "ok",
        {"unjudged_text"},
    ),
    "copied": ({"evidence": prose(9), "response": prose(4)}, "ok", {"copied"}),
    "unasked evidence": ({"response": FERRY, "searched": False}, "ok", {"no_search"}),
    "short": ({"response": "It leaves at nine."}, "ok", {"short_answer"}),
}
MAX_PAIRS = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_marked(tmp_path_factory.mktemp("marked"), options={"max_pairs": MAX_PAIRS})


@pytest.fixture
def settings(folder: Path, tmp_path: Path) -> Settings:
    return Settings(models=("tiny",), repository=(folder,), runs=tmp_path / "runs.db")


def claim_item(**fields: Any) -> dict[str, Any]:
    """Return an item. The default `evidence` is about ships; None leaves it out."""
    item = {"evidence": f"Ships sail to the island every day. {prose(2)}", **fields}
    return {name: value for name, value in item.items() if value is not None}


async def score_items(
    client: Any, items: list[dict[str, Any]], **more: Any
) -> list[dict[str, Any]]:
    body = {"model": "tiny", "items": items, **more}
    answer = await client.post("/v1/score", json=body)
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


async def test_each_hard_input_has_its_status(served: Served, settings: Settings) -> None:
    async with served(settings) as client:
        results = await score_items(
            client, [claim_item(**fields) for fields, _, _ in HARD.values()]
        )
    outcomes = {
        name: (
            result["error"]["code"] if result["error"] else result["status"],
            set(result["flags"]),
        )
        for name, result in zip(HARD, results, strict=True)
    }
    statuses = {name: status for name, (status, _) in outcomes.items()}
    assert statuses == {name: status for name, (_, status, _) in HARD.items()}
    flags = {name: flags - {"short_answer"} for name, (_, flags) in outcomes.items()}
    assert flags == {name: flags - {"short_answer"} for name, (_, _, flags) in HARD.items()}
    assert outcomes["short"][1] == {"short_answer"}


async def test_a_failed_item_has_no_score_and_no_channels(
    served: Served, settings: Settings
) -> None:
    async with served(settings) as client:
        results = await score_items(
            client, [claim_item(**fields) for fields, _, _ in HARD.values()]
        )
    failed = [result for result in results if result["status"] == "error"]
    assert len(failed) >= 25
    for result in failed:
        assert (result["score"], result["raw"], result["channels"]) == (None, None, {})


async def test_an_unread_claim_has_its_status_in_the_details(
    served: Served, settings: Settings
) -> None:
    async with served(settings) as client:
        fields = {"evidence": FERRY + SUPPORTS, "claims": [CHINESE, FERRY]}
        (result,) = await score_items(client, [fields])
    unread, read = result["details"]["claims"]
    assert unread == {"index": 0, "status": "unsupported_language"}
    assert (read["index"], read["status"], read["label"]) == (1, "ok", "entailment")
    assert result["channels"]["claims"] == 1.0
    assert result["details"]["unsupported_claims"] == 1


async def test_two_hundred_claims_in_one_item_are_refused_and_scored_in_parts(
    served: Served, folder: Path, settings: Settings
) -> None:
    claims = [f"Ferry {number} leaves the harbour." for number in range(200)]
    fields = {"evidence": FERRY + SUPPORTS, "claims": claims}
    async with served(settings) as client:
        (refused,) = await score_items(client, [fields])
        parts = [{**fields, "claims": claims[at : at + 25]} for at in range(0, 200, 25)]
        results = await score_items(client, parts)
    assert refused["error"]["code"] == "too_many_pairs"
    assert sum(result["channels"]["claims"] for result in results) == 200
    assert {result["channels"]["support"] for result in results} == {1.0}


async def test_a_request_may_set_the_weights_of_the_labels(
    served: Served, settings: Settings
) -> None:
    fields = {"evidence": FERRY + DENIES, "claims": [FERRY]}
    options = {"weights": {"contradiction": -0.5}}
    async with served(settings) as client:
        body = {"model": "tiny", "items": [fields]}
        plain = (await client.post("/v1/score", json=body)).json()
        weighted = (await client.post("/v1/score", json={**body, "options": options})).json()
    (before,), (after,) = plain["results"], weighted["results"]
    assert before["raw"] == pytest.approx(-1.5, abs=1e-3)
    assert (before["score"], before["channels"]["phi"]) == (-1.0, -1.0)
    assert after["raw"] == after["score"] == pytest.approx(-0.5, abs=1e-3)
    assert plain["fingerprint"] != weighted["fingerprint"]
    # The raws are cached, and weights are applied to them afterwards.
    assert weighted["usage"]["cached"] == 1


async def test_an_unsure_label_has_its_own_status_and_count(
    served: Served, settings: Settings
) -> None:
    fields = {"evidence": prose(1), "claims": [FERRY]}
    run = {"id": "exp-1", "step": 7}
    async with served(settings) as client:
        (sure,) = await score_items(client, [fields])
        (unsure,) = await score_items(client, [fields], options={"min_confidence": 0.99}, run=run)
        pair = {"premise": prose(1), "hypothesis": FERRY}
        (alone,) = await score_items(client, [pair], options={"min_confidence": 0.99}, run=run)
    assert sure["channels"]["neutral"] == 1.0
    assert unsure["channels"]["neutral"] == unsure["channels"]["support"] == 0.0
    assert "low_confidence" in unsure["flags"]
    assert unsure["details"]["claims"][0]["status"] == "low_confidence"
    assert unsure["details"]["low_confidence_claims"] == 1
    assert unsure["score"] == sure["score"]
    assert (alone["details"]["status"], alone["flags"]) == ("low_confidence", ["low_confidence"])
    summary = stored_summary(settings, "exp-1", 7)
    assert summary.labels == {"low_confidence": 2}
    assert summary.flags == {"low_confidence": 2}


async def test_failures_flags_and_searches_are_recorded_for_the_run(
    served: Served, settings: Settings
) -> None:
    items = [
        claim_item(claims=[FERRY] * 5, searched=True),
        claim_item(response=CHINESE),
        claim_item(evidence=None, response=FERRY, searched=False),
    ]
    async with served(settings) as client:
        await score_items(client, items, run={"id": "exp-1", "step": 7})
    summary = stored_summary(settings, "exp-1", 7)
    assert (summary.items, summary.nulls) == (3, 2)
    assert summary.flags == {
        "error:no_search": 1,
        "error:unsupported_language": 1,
        "repetition": 1,
    }
    assert summary.labels == {"neutral": 5}
    assert summary.calls == {"0": 1, "1": 1}
    assert set(summary.channels) == {
        "claims",
        "contradiction",
        "coverage",
        "evidence_overlap",
        "neutral",
        "phi",
        "support",
    }


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"weights": {"contradiction": "much"}}, "options.weights.contradiction"),
        ({"weights": {"contradicted": -1}}, "options.weights.contradicted"),
        ({"weights": {"neutral": 1e9}}, "options.weights.neutral"),
        ({"min_confidence": 1.5}, "options.min_confidence"),
    ],
)
async def test_malformed_options_are_rejected(
    served: Served, settings: Settings, options: dict[str, Any], field: str
) -> None:
    async with served(settings) as client:
        body = {"model": "tiny", "items": [claim_item(claims=[FERRY])], "options": options}
        answer = await client.post("/v1/score", json=body)
    assert answer.status_code == 422
    assert field in answer.text


async def test_another_family_rejects_these_options(
    served: Served, reference_settings: Settings
) -> None:
    body = {"model": "reference", "items": [{"prompt": "a", "response": "b"}]}
    async with served(reference_settings) as client:
        answer = await client.post(
            "/v1/score", json={**body, "options": {"weights": {"neutral": 0.5}}}
        )
    assert answer.status_code == 422
    assert "options.weights.neutral: reference@1 does not read it" in answer.json()["detail"]


def stored_summary(settings: Settings, run: str, step: int) -> Summary:
    assert isinstance(settings.runs, Path)
    series = RunHistory(settings.runs).series(run, Stream("tiny@1", "train"))
    (summary,) = [point.summary for point in series if point.step == step]
    return summary
