"""The spans of requests: their tree, their links and their attributes."""

import asyncio
from collections.abc import Mapping
from itertools import pairwise

import httpx2
import pytest
from fastapi import FastAPI
from opentelemetry.trace import StatusCode
from support.doubles import SCRIPTED_CARD, Gate
from support.servers import Served, serving

from assay.api.components import components_of
from assay.app import create_app
from assay.served_model import Ready
from assay.settings import Settings

from .conftest import Spans, context_of, id_of, links_of, parent_id

ROUTE = "POST /v1/score"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def post(
    client: httpx2.AsyncClient,
    *texts: str,
    headers: Mapping[str, str] | None = None,
    **fields: object,
) -> httpx2.Response:
    body = {"model": "scripted", "items": [{"text": text} for text in texts], **fields}
    return await client.post("/v1/score", json=body, headers=dict(headers or {}))


async def until_pending(app: FastAPI, tokens: int) -> None:
    """Wait until the scripted model's batcher holds this many tokens."""
    state = components_of(app).service.find("scripted").state
    assert isinstance(state, Ready)
    async with asyncio.timeout(30):
        while state.batcher.pending_tokens != tokens:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_request_has_a_server_span_and_one_for_each_phase(
    served: Served, traced: Settings, spans: Spans
) -> None:
    async with served(traced) as client:
        run = {"id": "exp-17", "step": 120}
        reply = await post(client, "secret", "ruled", "secret", run=run)
    assert reply.status_code == 200
    server = spans.only(ROUTE)
    assert server.parent is None
    assert sorted(spans.below(server)) == ["forward", "predict", "prepare", "queue"]
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/score",
        "http.response.status_code": 200,
        "assay.model": "scripted@1",
        "assay.items": 3,
        "assay.lane": "training",
        "assay.run": "exp-17",
        "assay.step": 120,
        "assay.tokens": reply.json()["usage"]["tokens"],
        "assay.items.computed": 1,
        "assay.items.cached": 0,
        "assay.items.shared": 1,
        "assay.items.rule": 1,
        "assay.items.failed": 0,
    }
    assert spans.only("prepare").attributes == {"assay.items": 3, "assay.inputs": 2}
    forward = {"assay.model": "scripted@1", "assay.batch.size": 1, "assay.batch.tokens": 6}
    assert spans.only("forward").attributes == forward
    assert "secret" not in "".join(span.to_json() for span in spans.all)


async def test_a_span_names_the_version_that_scored_also_where_the_run_keeps_another(
    served: Served, traced: Settings, spans: Spans
) -> None:
    folder = traced.repository[0] / "scripted" / "2"
    folder.mkdir()
    (folder / "card.toml").write_text(SCRIPTED_CARD.replace("version = 1", "version = 2"))
    second = {"model": "scripted@2", "default": True}
    async with served(traced.model_copy(update={"models": ("scripted@1",)})) as client:
        await post(client, "a", run={"id": "kept"})
        assert (await client.post("/v1/models?wait=30", json=second)).status_code == 200
        replies = [await post(client, "a", run={"id": run}) for run in ("kept", "new")]
    named = [(span.attributes or {})["assay.model"] for span in spans.named(ROUTE)]
    assert named[1:] == [reply.json()["model"] for reply in replies] == ["scripted@1", "scripted@2"]


async def test_phases_follow_each_other_within_the_request(
    served: Served, traced: Settings, spans: Spans
) -> None:
    async with served(traced) as client:
        await post(client, "a")
    server, prepare = spans.only(ROUTE), spans.only("prepare")
    queue, predict, forward = (spans.only(name) for name in ("queue", "predict", "forward"))
    times = [
        server.start_time, prepare.start_time, prepare.end_time, queue.start_time, queue.end_time,
        predict.end_time, server.end_time,
    ]  # fmt: skip
    assert None not in times
    # The phases' times come from the monotonic clock, the others from the wall clock.
    assert all(b - a > -1_000_000 for a, b in pairwise(times) if a and b)
    assert (predict.start_time, predict.end_time) == (forward.start_time, forward.end_time)
    assert queue.end_time == predict.start_time


async def test_requests_that_share_a_batch_are_linked_with_its_forward_pass(
    traced: Settings, spans: Spans, gate: Gate
) -> None:
    app = create_app(traced)
    async with serving(app) as client:
        first = asyncio.create_task(post(client, "running"))
        await until_pending(app, 7)
        others = [asyncio.create_task(post(client, text)) for text in ("aa", "bbb", "aa")]
        await until_pending(app, 12)
        gate.open.set()
        replies = await asyncio.gather(first, *others)
    assert [reply.status_code for reply in replies] == [200] * 4
    assert gate.batches == [["running"], ["aa", "bbb"]]
    alone, shared = spans.named("forward")
    servers = {id_of(span): span for span in spans.named(ROUTE)}
    assert len(links_of(alone)) == 1
    assert links_of(shared) == set(servers) - links_of(alone)
    assert parent_id(shared) in links_of(shared)
    predicts = [span for span in spans.named("predict") if parent_id(span) in links_of(shared)]
    assert len(predicts) == 3
    assert all(links_of(span) == {id_of(shared)} for span in predicts)
    assert len({context_of(span).trace_id for span in predicts}) == 3


async def test_a_cached_item_has_no_span_of_a_forward_pass(
    served: Served, traced: Settings, spans: Spans
) -> None:
    async with served(traced) as client:
        await post(client, "a")
        await post(client, "a")
    computed, cached = spans.named(ROUTE)
    assert "predict" in spans.below(computed)
    assert spans.below(cached) == ["prepare"]
    assert cached.attributes is not None
    assert cached.attributes["assay.items.cached"] == 1


async def test_a_failed_item_is_recorded_by_its_code(
    served: Served, traced: Settings, spans: Spans
) -> None:
    async with served(traced) as client:
        reply = await post(client, "poison", "fine", "nan")
    assert reply.json()["usage"]["failed"] == 2
    server = spans.only(ROUTE)
    assert server.attributes is not None
    assert server.attributes["assay.items.failed"] == 2
    assert server.attributes["assay.item_errors"] == ("inference_failed", "non_finite_score")
    assert server.status.status_code is StatusCode.UNSET
    failed = [span for span in spans.named("forward") if span.status.status_code.name == "ERROR"]
    assert len(failed) >= 2, "the batch, and the item alone"
    for span in failed:
        assert span.attributes is not None
        assert span.attributes["error.type"] == "RuntimeError"
        assert not span.events, "an exception's text may quote an item"
    assert "poison" not in "".join(span.to_json() for span in spans.all)


async def test_a_request_that_times_out_in_the_queue_has_no_prediction(
    traced: Settings, spans: Spans, gate: Gate
) -> None:
    app = create_app(traced)
    async with serving(app) as client:
        first = asyncio.create_task(post(client, "running"))
        await until_pending(app, 7)
        late = await post(client, "late", headers={"X-Assay-Timeout-Ms": "20"})
        gate.open.set()
        await first
    assert late.status_code == 504
    _, server = spans.named(ROUTE)
    assert spans.below(server) == ["prepare", "queue"]
    assert server.status.status_code is StatusCode.ERROR
    assert server.attributes is not None
    assert server.attributes["error.type"] == "deadline_exceeded"
    assert server.attributes["http.response.status_code"] == 504


async def test_a_request_that_times_out_while_computed_keeps_its_link(
    traced: Settings, spans: Spans, gate: Gate
) -> None:
    async with serving(create_app(traced)) as client:
        late = await post(client, "late", headers={"X-Assay-Timeout-Ms": "1000"})
        gate.open.set()
    assert late.status_code == 504
    server = spans.only(ROUTE)
    assert sorted(spans.below(server)) == ["forward", "predict", "prepare", "queue"]
    assert links_of(spans.only("forward")) == {id_of(server)}


@pytest.mark.parametrize(("flags", "count"), [("01", 5), ("00", 0)])
async def test_the_callers_trace_is_continued_if_it_is_sampled(
    served: Served, traced: Settings, spans: Spans, flags: str, count: int
) -> None:
    async with served(traced) as client:
        await post(client, "a", headers={"traceparent": f"00-{TRACE}-{PARENT}-{flags}"})
    assert len(spans.all) == count
    assert {f"{context_of(span).trace_id:032x}" for span in spans.all} <= {TRACE}
    for server in spans.named(ROUTE):
        assert f"{parent_id(server):016x}" == PARENT


@pytest.mark.parametrize("name", ["traceparent", "tracestate", "baggage"])
async def test_a_malformed_header_of_a_trace_is_not_quoted_in_the_log(
    served: Served, traced: Settings, spans: Spans, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", name: "INJECTED;;=,%0a=="}
    async with served(traced) as client:
        assert (await post(client, "a", headers=headers)).status_code == 200
    assert spans.all
    assert "INJECTED" not in caplog.text


async def test_a_batch_with_a_sampled_request_is_recorded(
    traced: Settings, spans: Spans, gate: Gate
) -> None:
    app = create_app(traced)
    async with serving(app) as client:
        first = asyncio.create_task(post(client, "running"))
        await until_pending(app, 7)
        unsampled = {"traceparent": f"00-{TRACE}-{PARENT}-00"}
        others = [
            asyncio.create_task(post(client, "aa", headers=headers)) for headers in (unsampled, {})
        ]
        await until_pending(app, 9)
        gate.open.set()
        await asyncio.gather(first, *others)
    _, shared = spans.named("forward")
    _, sampled = spans.named(ROUTE)
    assert links_of(shared) == {parent_id(shared)} == {id_of(sampled)}


async def test_a_refused_request_has_a_span_and_probes_have_none(
    served: Served, traced: Settings, spans: Spans
) -> None:
    settings = traced.model_copy(update={"max_body_bytes": 100, "root_path": "/below"})
    async with served(settings) as client:
        for path in ("/readyz", "/below/healthz", "/metrics"):
            assert (await client.get(path)).status_code == 200
        assert (await post(client, "a" * 200)).status_code == 413
        assert (await client.get("/v1/models/unknown?text=secret")).status_code == 422
    refused, unknown = spans.all
    assert refused.attributes == {"http.request.method": "POST", "http.response.status_code": 413}
    assert unknown.name == "GET /v1/models/{model}"
    assert "secret" not in unknown.to_json()
