"""The trace of a remote model's call: its headers at the engine, and its client span."""

from collections.abc import Awaitable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from opentelemetry.trace import SpanKind, StatusCode
from support.doubles import SCRIPTED_CARD, RemoteModel, length_of
from support.servers import Served
from support.webhook_receivers import Receiver, receiving

from assay.settings import Settings
from assay_models.base import Input, Raw
from assay_models.items import TextItem
from assay_models.registry import FAMILIES, Family
from assay_models.trace_context import traced_call

from .conftest import Spans, context_of, id_of, links_of, parent_id

ROUTE = "POST /v1/score"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """An engine on a socket, which the remote model calls in each forward pass."""
    with receiving() as receiver:

        def predict(_: RemoteModel, inputs: Sequence[Input]) -> Awaitable[Sequence[Raw]]:
            async def compute() -> Sequence[Raw]:
                async with httpx2.AsyncClient() as client:
                    with traced_call("POST", receiver.url, len(inputs)) as call:
                        reply = await client.post(receiver.url, json=[], headers=call.headers)
                        call.status_code = reply.status_code
                reply.raise_for_status()
                return length_of(inputs)

            return compute()

        monkeypatch.setattr(RemoteModel, "predict", predict)
        yield receiver


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    family = Family(
        "support.doubles", "RemoteModel", item=TextItem, candidate="text", probe={"text": "probe"}
    )
    monkeypatch.setitem(FAMILIES, "remote", family)
    (tmp_path / "card.toml").write_text(SCRIPTED_CARD.replace("scripted", "remote"))
    return Settings(models=("remote",), repository=(tmp_path,), traces=True)


async def post(client: httpx2.AsyncClient, flags: str) -> httpx2.Response:
    headers = {
        "traceparent": f"00-{TRACE}-{PARENT}-{flags}",
        "tracestate": "vendor=1",
        "baggage": "team=rl",
    }
    body = {"model": "remote", "items": [{"text": "abc"}]}
    return await client.post("/v1/score", json=body, headers=headers)


async def test_the_trainers_trace_goes_through_to_the_engine(
    served: Served, settings: Settings, engine: Receiver, spans: Spans
) -> None:
    async with served(settings) as client:
        reply = await post(client, "01")
    assert reply.json()["results"][0]["score"] == 3.0
    call, forward, server = spans.only("POST"), spans.only("forward"), spans.only(ROUTE)
    assert call.kind is SpanKind.CLIENT
    assert parent_id(call) == id_of(forward)
    assert (parent_id(forward), links_of(forward)) == (id_of(server), {id_of(server)})
    received = engine.next_post().headers
    assert received["traceparent"] == f"00-{TRACE}-{id_of(call):016x}-01"
    assert (received["tracestate"], received["baggage"]) == ("vendor=1", "team=rl")
    assert {f"{context_of(span).trace_id:032x}" for span in spans.all} == {TRACE}
    address = urlsplit(engine.url)
    assert call.attributes == {
        "http.request.method": "POST",
        "http.response.status_code": 204,
        "server.address": address.hostname,
        "server.port": address.port,
        "url.path": "/hook",
        "assay.batch.size": 1,
    }


async def test_a_trace_that_is_not_sampled_goes_through_without_spans(
    served: Served, settings: Settings, engine: Receiver, spans: Spans
) -> None:
    async with served(settings) as client:
        await post(client, "00")
    received = engine.next_post().headers
    assert received["traceparent"].startswith(f"00-{TRACE}-")
    assert received["traceparent"].endswith("-00")
    assert not spans.all


async def test_an_engines_failure_marks_the_call_and_the_forward_pass(
    served: Served, settings: Settings, engine: Receiver, spans: Spans
) -> None:
    engine.statuses.append((503, {}))
    async with served(settings) as client:
        reply = await post(client, "01")
    assert reply.json()["results"][0]["error"]["code"] == "inference_failed"
    call, forward = spans.only("POST"), spans.only("forward")
    assert (call.attributes or {})["http.response.status_code"] == 503
    assert call.status.status_code is forward.status.status_code is StatusCode.ERROR
    assert (forward.attributes or {})["error.type"] == "HTTPStatusError"
    assert not forward.events


async def test_without_traces_no_header_is_sent(
    served: Served, settings: Settings, engine: Receiver
) -> None:
    async with served(settings.model_copy(update={"traces": False})) as client:
        await post(client, "01")
    assert not {"traceparent", "tracestate", "baggage"} & set(engine.next_post().headers)
