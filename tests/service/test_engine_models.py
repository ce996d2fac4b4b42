"""Models that an engine computes, served: readiness, fingerprints, failures and batches."""

import asyncio
import math
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from support import engine_models as engines
from support.checkpoints import build_tokenizer
from support.engine_models import write_engine_model
from support.engine_servers import EngineServer, logits_of, vllm
from support.servers import serving

from assay.api.components import components_of
from assay.app import create_app
from assay.health import fault
from assay.served_model import ServedModel
from assay.settings import read_settings

TWO_CALLS = "max_calls = 2\nmax_call_items = 32"


def app_of(folder: Path) -> FastAPI:
    settings = {
        "ASSAY_REPOSITORY": str(folder),
        "ASSAY_MODELS": "tiny",
        "ASSAY_RUNS": "off",
        "ASSAY_TIMEOUT": "5",
    }
    return create_app(read_settings(settings))


@asynccontextmanager
async def engine_model(
    folder: Path, server: EngineServer, **fields: Any
) -> AsyncIterator[tuple[httpx2.AsyncClient, ServedModel]]:
    """Yield a client of an app that serves `tiny`, and the model."""
    app = app_of(write_engine_model(folder, url=server.url, **fields))
    async with serving(app) as client:
        yield client, components_of(app).service.find("tiny")


async def score(client: httpx2.AsyncClient, *texts: str) -> httpx2.Response:
    items = [{"text": text} for text in texts]
    return await client.post("/v1/score", json={"model": "tiny", "items": items})


def expected(text: str, shift: int = 0) -> Any:
    ids = build_tokenizer("llama")(text)["input_ids"]
    return pytest.approx(logits_of([number + shift for number in ids])[0], abs=1e-6)


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until a condition holds."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never held")


async def prove_again(model: ServedModel) -> None:
    """Try the proof now, as its schedule does later."""
    proofs = model._proofs
    assert proofs is not None
    await proofs._proof.prove()
    model._renew()


async def test_scores_are_the_engines_numbers_and_are_cached(tmp_path: Path) -> None:
    async with (
        EngineServer(vllm).listening() as server,
        engine_model(tmp_path, server) as (client, _),
    ):
        reply = await score(client, "one", "two words")
        results = reply.json()["results"]
        assert [result["score"] for result in results] == [expected("one"), expected("two words")]
        calls = len(server.posts)
        again = (await score(client, "two words")).json()
        assert again["results"][0]["source"] == "cache"
        assert again["fingerprint"] == reply.json()["fingerprint"]
        assert len(server.posts) == calls


async def test_unproven_engine_is_not_ready_and_says_why(tmp_path: Path) -> None:
    async with (
        EngineServer(engines.without_activation_option).listening() as server,
        engine_model(tmp_path, server) as (client, model),
    ):
        reply = await score(client, "one")
        assert (reply.status_code, reply.json()["code"]) == (503, "model_not_ready")
        assert reply.headers["retry-after"]
        readiness = await client.get("/readyz")
        assert readiness.status_code == 503
        assert "not proven" in readiness.json()["models"]["tiny@1"]
        assert (await client.get("/startupz")).status_code == 200, "its files are read"
        assert await fault(model) is None, "a new process would not be proven either"
        shown = (await client.get("/v1/models/tiny@1")).json()
        assert (shown["state"], shown["fingerprint"]) == ("not_proven", None)
        assert "ignores the option" in shown["failure"]
        server.handler = vllm
        await prove_again(model)
        shown = (await client.get("/v1/models/tiny@1")).json()
        assert (shown["state"], shown["failure"]) == ("ready", None)
        assert shown["fingerprint"]
        assert (await client.get("/readyz")).status_code == 200
        assert (await score(client, "one")).json()["results"][0]["score"] == expected("one")


async def test_example_of_another_score_refuses_the_engine(tmp_path: Path) -> None:
    async with (
        EngineServer(vllm).listening() as server,
        engine_model(tmp_path, server, example=9.0) as (client, _),
    ):
        reply = await score(client, "one")
        assert reply.status_code == 503
        assert "the card says" not in reply.text
        shown = (await client.get("/v1/models/tiny@1")).json()
        assert "the card says 9" in shown["failure"]


async def test_another_model_under_the_same_name_gets_another_fingerprint(tmp_path: Path) -> None:
    async with (
        EngineServer(vllm).listening() as server,
        engine_model(tmp_path, server) as (client, model),
    ):
        first = (await score(client, "one")).json()
        server.handler = engines.shifted(vllm, 1)
        refused = await score(client, "another text")
        assert (refused.status_code, refused.json()["code"]) == (503, "model_not_ready")
        assert (await score(client, "one")).status_code == 503
        await prove_again(model)
        second = (await score(client, "one")).json()
        assert second["fingerprint"] != first["fingerprint"]
        assert second["results"][0]["source"] == "computed"
        assert second["results"][0]["score"] == expected("one", shift=1)


async def test_calls_that_wait_while_another_engine_is_proven_fail(tmp_path: Path) -> None:
    async with (
        EngineServer(vllm).listening() as server,
        engine_model(tmp_path, server) as (client, model),
    ):
        before = len(server.posts)
        server.gate = asyncio.Event()
        waiting = asyncio.create_task(score(client, "one"))
        await until(lambda: len(server.posts) > before)
        gate, server.gate = server.gate, None
        server.version = "0.33.0"
        await prove_again(model)
        gate.set()
        refused = await waiting
        assert (refused.status_code, refused.json()["code"]) == (503, "engine_unavailable")
        assert (await score(client, "one")).status_code == 200


async def test_request_prepared_while_another_engine_is_proven_leaves_no_number_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        EngineServer(vllm).listening() as server,
        engine_model(tmp_path, server) as (client, model),
    ):
        kind = type(model.require_ready().model)
        prepare, begun, proven = kind.prepare, threading.Event(), threading.Event()

        def prepare_slowly(*arguments: Any) -> Any:
            begun.set()
            assert proven.wait(30)
            return prepare(*arguments)

        monkeypatch.setattr(kind, "prepare", prepare_slowly)
        waiting = asyncio.create_task(score(client, "one"))
        assert await asyncio.to_thread(begun.wait, 30)
        server.handler = engines.shifted(vllm, 1)
        await prove_again(model)
        proven.set()
        refused = await waiting
        assert (refused.status_code, refused.json()["code"]) == (503, "engine_unavailable")
        assert (await score(client, "one")).json()["results"][0]["score"] == expected("one", 1)
        server.handler = vllm
        await prove_again(model)
        assert (await score(client, "one")).json()["results"][0]["score"] == expected("one")


async def test_lost_engine_is_an_honest_503_and_cached_scores_stay(tmp_path: Path) -> None:
    server = EngineServer(vllm)
    async with server.listening():
        app = app_of(write_engine_model(tmp_path, url=server.url))
        async with serving(app) as client:
            first = (await score(client, "one")).json()["results"][0]
            server.status = 503
            lost = await score(client, "another text")
            assert (lost.status_code, lost.json()["code"]) == (503, "engine_unavailable")
            assert lost.json()["retryable"]
            known = (await score(client, "one")).json()["results"][0]
            assert (known["score"], known["source"]) == (first["score"], "cache")


async def test_lost_engine_takes_no_replica_out_and_restarts_none(tmp_path: Path) -> None:
    async with (
        EngineServer(vllm).listening() as server,
        engine_model(tmp_path, server) as (client, model),
    ):
        assert (await client.get("/readyz")).status_code == 200
        model._clock = lambda: math.inf  # no batch is recent any more
        server.status = 503
        readiness = await client.get("/readyz")
        reason = "its engine does not answer: the engine takes no work now (status 503)"
        assert readiness.json()["models"] == {"tiny@1": reason}
        assert readiness.status_code == 200
        assert await fault(model) is None
        server.status, server.handler = 200, engines.shifted(vllm, 1)
        await prove_again(model)  # the next call still finds the engine barred
        assert (await client.get("/readyz")).status_code == 200


async def test_ended_batcher_of_an_engine_model_is_a_fault(tmp_path: Path) -> None:
    async with (
        EngineServer(vllm).listening() as server,
        engine_model(tmp_path, server) as (client, model),
    ):
        assert (await client.get("/readyz")).status_code == 200
        await model.require_ready().batcher.close(0.0)
        assert (await client.get("/readyz")).status_code == 503
        assert await fault(model) == "not computing"


async def test_single_items_gather_into_calls_while_others_are_in_flight(tmp_path: Path) -> None:
    async with (
        EngineServer(vllm).listening() as server,
        engine_model(tmp_path, server, engine="max_calls = 2\nmax_call_items = 32") as (
            client,
            model,
        ),
    ):
        server.gate = asyncio.Event()
        before = len(server.posts)
        texts = [f"text number {number}" for number in range(66)]
        scoring = [asyncio.create_task(score(client, text)) for text in texts]
        batcher = model.require_ready().batcher
        await until(lambda: batcher.pending_tokens >= 2 * len(texts))
        await until(lambda: len(server.posts) == before + 2)
        server.gate.set()
        replies = await asyncio.gather(*scoring)
        for text, reply in zip(texts, replies, strict=True):
            assert reply.json()["results"][0]["score"] == expected(text)
        sizes = [len(post.body["input"]) - 1 for post in server.posts[before:]]
        assert sum(sizes) == len(texts)
        assert max(sizes) <= 31
        assert len(sizes) <= 6


_WITHOUT_TORCH = """
import sys
from importlib.machinery import PathFinder

class WithoutTorch(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        absent = name.partition(".")[0] in ("torch", "peft", "accelerate", "gguf")
        return None if absent else PathFinder.find_spec(name, path, target)

sys.meta_path[:] = [WithoutTorch if each is PathFinder else each for each in sys.meta_path]
import asyncio, httpx2
from assay.app import create_app
from assay.settings import read_settings

async def main(folder):
    app = create_app(read_settings(
        {"ASSAY_REPOSITORY": folder, "ASSAY_MODELS": "tiny", "ASSAY_RUNS": "off"}
    ))
    async with app.router.lifespan_context(app):
        (model,) = app.state.components.service.models()
        await model.loaded()
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://assay") as client:
            body = {"model": "tiny", "items": [{"text": "one"}]}
            reply = await client.post("/v1/score", json=body)
            print(reply.json()["results"][0]["score"])
    assert "torch" not in sys.modules

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.slow
async def test_server_of_engine_models_alone_needs_no_torch(tmp_path: Path) -> None:
    async with EngineServer(vllm).listening() as server:
        folder = write_engine_model(tmp_path, url=server.url)
        command = [sys.executable, "-c", _WITHOUT_TORCH, str(folder)]
        ended = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False
        )
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout.strip().splitlines()[-1]) == expected("one")
