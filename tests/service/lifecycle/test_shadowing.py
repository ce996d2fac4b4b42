"""Shadows: their numbers are those of direct scoring, and no reply depends on them."""

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

import httpx2
import pytest
from fastapi import FastAPI
from support.doubles import value

from assay.api.components import components_of
from assay.scoring import shadowing
from assay.scoring.comparison import Agreement, GroupAgreement, ScorePair

from .conftest import Gates

SHADOW = {"model": "scripted@2", "shadow_of": "scripted@1"}


async def score(client: httpx2.AsyncClient, texts: Sequence[str], **fields: Any) -> Any:
    items = [{"text": text, "group": "p"} for text in texts]
    body = {"model": "scripted", "items": items, **fields}
    return (await client.post("/v1/score", json=body)).json()


async def settled(app: FastAPI) -> None:
    """Wait until the shadow has scored what it admitted."""
    shadows = components_of(app).shadowing
    async with asyncio.timeout(30):
        await asyncio.sleep(0)
        while tasks := [task for shadow in shadows._shadows.values() for task in shadow.tasks]:
            await asyncio.wait(tasks)


def scores_of(reply: Any) -> list[tuple[str, float | None, Any]]:
    return [(result["status"], result["score"], result["error"]) for result in reply["results"]]


async def shadow_of(client: httpx2.AsyncClient) -> Any:
    return (await client.get("/v1/models/scripted@2")).json()["shadow"]


async def test_shadow_numbers_are_those_of_direct_scoring(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    await client.post("/v1/models?wait=30", json=SHADOW)
    texts = ["a", "bb", "cccc"]
    reply = await score(client, texts)
    await settled(app)
    direct = await score(client, texts, model="scripted@2")
    differences = [
        abs(served["score"] - other["score"])
        for served, other in zip(reply["results"], direct["results"], strict=True)
    ]
    assert await shadow_of(client) == {
        "compared": 3,
        "failed": 0,
        "dropped": 0,
        "mean_absolute_difference": sum(differences) / 3,
        "pair_agreement": 1.0,
    }
    assert {result["source"] for result in direct["results"]} == {"cache"}, "it uses the cache"
    metrics, label = components_of(app).metrics, {"model": "scripted@2"}
    total = value(metrics, "assay_shadow_absolute_difference_sum", **label)
    assert total == sum(differences)
    assert value(metrics, "assay_shadow_items_total", scored_by="both", **label) == 3
    assert value(metrics, "assay_shadow_pairs_total", order="concordant", **label) == 3
    queued = value(metrics, "assay_queue_seconds_count", lane="bulk", **label)
    assert queued == 3, "it has the lowest priority"


async def test_tokens_that_wait_for_a_shadow_add_no_replica(
    app: FastAPI, client: httpx2.AsyncClient, gates: Gates
) -> None:
    await client.post("/v1/models?wait=30", json=SHADOW)
    gates.predict.open.clear()
    gates.predict.entered.clear()
    await score(client, ["a", "bb"])
    await asyncio.to_thread(gates.predict.entered.wait, 30)
    metrics = components_of(app).metrics
    assert value(metrics, "assay_queue_tokens", model="scripted@2") > 0
    assert value(metrics, "assay_scaling_tokens") == 0
    await client.post("/v1/models/scripted@2/promote")
    assert value(metrics, "assay_scaling_tokens") > 0
    gates.predict.open.set()


@pytest.mark.parametrize(
    ("failure", "code"), [("raise", "inference_failed"), ("nan", "non_finite_score")]
)
async def test_a_shadow_that_fails_changes_no_reply(
    app: FastAPI,
    client: httpx2.AsyncClient,
    gates: Gates,
    failure: Literal["raise", "nan"],
    code: str,
) -> None:
    expected = scores_of(await score(client, ["fine", "other"]))
    await client.post("/v1/models?wait=30", json=SHADOW)
    gates.failure = failure
    reply = await score(client, ["fine", "other", "new"])
    await settled(app)
    assert scores_of(reply) == [*expected, ("ok", 3.0, None)]
    report = await shadow_of(client)
    assert (report["compared"], report["failed"]) == (0, 3)
    metrics = components_of(app).metrics
    assert value(metrics, "assay_item_errors_total", model="scripted@2", code=code) == 3
    assert (await client.get("/readyz")).status_code == 200


async def test_a_shadow_that_hangs_delays_no_reply_and_drops_items(
    app: FastAPI,
    client: httpx2.AsyncClient,
    gates: Gates,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shadowing, "MAX_ITEMS", 4)
    await client.post("/v1/models?wait=30", json=SHADOW)
    gates.predict.entered.clear()
    gates.predict.open.clear()
    events: list[str] = []
    for number in range(4):
        reply = await score(client, [f"text {number}", f"other {number}"])
        assert [result["score"] for result in reply["results"]] == [6, 7]
        events.append("reply")
    assert await asyncio.to_thread(gates.predict.entered.wait, 30), "the shadow computes"
    events.append("opened")
    gates.predict.open.set()
    await settled(app)
    assert events == ["reply"] * 4 + ["opened"]
    report = await shadow_of(client)
    assert (report["compared"], report["dropped"]) == (4, 4)
    dropped = value(
        components_of(app).metrics,
        "assay_shadow_dropped_total",
        model="scripted@2",
        reason="busy",
    )
    assert dropped == 4


async def test_a_shadow_that_hangs_can_be_unloaded_and_promoted_ones_shadow_no_more(
    app: FastAPI, client: httpx2.AsyncClient, gates: Gates
) -> None:
    await client.post("/v1/models?wait=30", json=SHADOW)
    await client.post("/v1/models/scripted@2/promote")
    await score(client, ["one"], model="scripted@1")
    await settled(app)
    assert await shadow_of(client) is None
    await client.post("/v1/models/scripted@1/promote")
    await client.delete("/v1/models/scripted@2?wait=30")
    await client.post("/v1/models?wait=30", json=SHADOW)
    gates.predict.entered.clear()
    gates.predict.open.clear()
    await score(client, ["two"])
    assert await asyncio.to_thread(gates.predict.entered.wait, 30)
    assert (await client.delete("/v1/models/scripted@2")).status_code == 202
    assert not components_of(app).lifecycle.table.shadowed
    gates.predict.open.set()


async def test_a_shadows_scores_have_a_stream_of_their_own(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    await client.post("/v1/models?wait=30", json=SHADOW)
    for step in range(3):
        await score(client, ["a", "bb", "bb"], run={"id": "exp", "step": step})
    await settled(app)
    chart: dict[str, Any] = {}
    async with asyncio.timeout(30):
        while len(chart.get("streams", ())) < 2:
            reply = await client.get("/v1/runs/exp/health")
            chart = reply.json() if reply.status_code == 200 else {}
            await asyncio.sleep(0.05)
    streams = {(stream["model"], stream["split"]): stream for stream in chart["streams"]}
    assert set(streams) == {("scripted@1", "train"), ("scripted@2", "shadow/train")}
    served, other = streams.values()
    assert served["channels"]["score"]["mean"] == pytest.approx(5 / 3)
    assert other["channels"]["score"]["mean"] == pytest.approx(10 / 3)


async def test_the_death_of_a_shadow_does_not_stop_the_server(
    app: FastAPI, client: httpx2.AsyncClient
) -> None:
    await client.post("/v1/models?wait=30", json=SHADOW)
    served = components_of(app).service.find("scripted@2")
    ready = served.require_ready()
    assert ready.batcher._task is not None
    ready.batcher._task.cancel()
    await asyncio.wait({ready.batcher._task})
    await asyncio.sleep(0)
    model = (await client.get("/v1/models/scripted@2")).json()
    assert (model["state"], "can compute no more" in model["failure"]) == ("failed", True)
    assert (await client.get("/readyz")).status_code == 200
    assert (await score(client, ["four"]))["results"][0]["score"] == 4


def pairs(group: str | None, *scores: tuple[float | None, float | None]) -> list[ScorePair]:
    return [ScorePair(primary, shadow, group) for primary, shadow in scores]


def test_the_size_of_items_counts_their_numbers_and_ends_at_the_bound() -> None:
    items: list[dict[str, Any]] = [{"text": "four", "calls": [1, 2, {"a": "b"}]}]
    assert shadowing._size(items) == len("text") + len("four") + len("calls") + 3 * 8 + 2
    numbers: list[dict[str, Any]] = [{"calls": [0] * (shadowing.MAX_BYTES // 8)}, {"text": "four"}]
    assert shadowing._size(numbers) > shadowing.MAX_BYTES


def test_agreement_counts_the_pairs_of_one_group() -> None:
    served, other = [1.0, 2.0, 3.0, 4.0, 4.0], [1.0, 3.0, 2.0, 5.0, 2.0]
    agreement = GroupAgreement().add(pairs("p", *zip(served, other, strict=True)), None)
    # Tied: 4 and 4 by the first, 2 and 2 by the second. Swapped: 3 and 2, 3 and 2 of the last.
    assert agreement == Agreement(concordant=6, discordant=2, tied=2)


def test_agreement_leaves_out_items_without_a_score_or_a_group() -> None:
    groups = GroupAgreement()
    assert groups.add(pairs(None, (1, 1), (2, 2)), None) == Agreement()
    assert groups.add(pairs("p", (1, 1), (None, 2), (2, None)), None) == Agreement()


def test_agreement_continues_a_group_of_the_same_step_only() -> None:
    groups = GroupAgreement()
    assert groups.add(pairs("p", (1, 1)), ("run", 1)) == Agreement()
    assert groups.add(pairs("p", (2, 0)), ("run", 1)) == Agreement(discordant=1)
    assert groups.add(pairs("p", (3, 3)), ("run", 2)) == Agreement()
    assert groups.add(pairs("p", (3, 3)), None) == Agreement()
