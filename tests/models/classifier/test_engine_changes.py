"""Engines that change or are lost while calls are in flight, or one of whose URLs does."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from support import engine_models as engines
from support.engine_models import open_remote, write_engine_model
from support.engine_servers import EngineServer, Received, logits_of, vllm
from support.servers import free_port

from assay_models.base import Input
from assay_models.families.classifier import engine_proof
from assay_models.families.classifier.remote import RemoteClassifier
from assay_models.remote import RemoteCallFailed

MODES = ("call", "schedule")


async def proven(
    folder: Path, *urls: str, canary: str = "call", retries: int = 0
) -> RemoteClassifier:
    """Return a classifier of several URLs whose proof was tried once."""
    write_engine_model(folder, url='", "'.join(urls), engine=f'canary = "{canary}"')
    card = folder / "card.toml"
    card.write_text(card.read_text().replace("retries = 0", f"retries = {retries}"))
    classifier = open_remote(folder)
    await classifier.proof.prove()
    return classifier


def row_of(classifier: RemoteClassifier, text: str = "a row") -> Input:
    return classifier.encode_text(text, None, "error").input()


def right(row: Input) -> Any:
    return pytest.approx(logits_of(row.payload.ids.tolist()))


@pytest.mark.parametrize("mode", MODES)
async def test_url_that_was_lost_gets_no_calls_until_it_is_proven(
    mode: str, tmp_path: Path
) -> None:
    async with EngineServer(vllm).listening() as good:
        other = EngineServer(vllm)
        async with other.listening():
            urls = (good.url, other.url)
            classifier = await proven(tmp_path, *urls, canary=mode, retries=2)
        row = row_of(classifier)
        for _ in range(2):
            assert await classifier.logits([row]) == [right(row)]
        assert classifier.calls.doubted.is_set()
        other.handler = engines.shifted(vllm, 1)
        async with other.listening(other.port):
            before = len(other.posts)
            for _ in range(6):
                assert await classifier.logits([row]) == [right(row)]
            assert len(other.posts) == before
            await classifier.proof.prove()
            assert "compute different numbers" in (classifier.proof.unproven or "")
        await classifier.proof.close()


async def test_url_that_was_away_at_the_proof_joins_when_it_is_proven(tmp_path: Path) -> None:
    async with EngineServer(vllm).listening() as good:
        port = free_port()
        classifier = await proven(tmp_path, good.url, f"http://127.0.0.1:{port}")
        assert classifier.proof.unproven is None
        async with EngineServer(vllm).listening(port) as late:
            await classifier.logits([row_of(classifier)] * 3)
            assert not late.posts
            await classifier.proof.prove()
            before = len(late.posts)
            for _ in range(2):
                await classifier.logits([row_of(classifier)])
            assert len(late.posts) > before
        await classifier.proof.close()


async def test_url_that_describes_itself_and_computes_nothing_is_as_if_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_proof, "CALL_SECONDS", 0.5)
    async with (
        EngineServer(vllm, gate=asyncio.Event()).listening() as hanging,
        EngineServer(vllm).listening() as good,
    ):
        classifier = await proven(tmp_path, hanging.url, good.url)
        assert classifier.proof.unproven is None
        before = len(hanging.posts)
        for _ in range(3):
            await classifier.logits([row_of(classifier)])
        assert len(hanging.posts) == before
        await classifier.proof.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("change", ["refuted", "other"])
async def test_call_in_flight_while_the_engine_changes_gives_no_numbers(
    change: str, mode: str, tmp_path: Path
) -> None:
    async with EngineServer(vllm).listening() as server:
        classifier = await proven(tmp_path, server.url, canary=mode)
        gate = server.gate = asyncio.Event()
        before = len(server.posts)
        call = asyncio.create_task(classifier.logits([row_of(classifier)]))
        await server.wait_for_posts(before + 1)
        server.gate = None
        if change == "refuted":
            server.handler = engines.without_activation_option
        else:
            server.version = "0.33.0"
        await classifier.proof.prove()
        server.handler = vllm
        gate.set()
        with pytest.raises(RemoteCallFailed) as raised:
            await call
        assert raised.value.code == "model_not_ready"
        await classifier.proof.close()


async def test_url_lost_during_a_proof_stays_out_after_it(tmp_path: Path) -> None:
    def breaks_once(server: EngineServer, request: Received) -> tuple[int, Any]:
        server.handler = vllm
        return 503, {}

    async with (
        EngineServer(vllm).listening() as good,
        EngineServer(vllm).listening() as other,
    ):
        classifier = await proven(tmp_path, good.url, other.url, canary="schedule", retries=2)
        row, held = row_of(classifier), asyncio.Event()
        good.gate, before = held, len(good.posts)
        proof = asyncio.create_task(classifier.proof.prove())
        await good.wait_for_posts(before + 1)
        other.handler, before = breaks_once, len(other.posts)
        calls = [asyncio.create_task(classifier.logits([row])) for _ in range(2)]
        await other.wait_for_posts(before + 1)
        held.set()
        await proof
        assert await asyncio.gather(*calls) == [[right(row)]] * 2
        assert classifier.calls.doubted.is_set()
        before = len(other.posts)
        for _ in range(3):
            assert await classifier.logits([row]) == [right(row)]
        assert len(other.posts) == before
        await classifier.proof.close()


async def test_engine_that_calls_itself_another_gives_no_numbers_while_it_is_proven(
    tmp_path: Path,
) -> None:
    async with EngineServer(vllm).listening() as server:
        classifier = await proven(tmp_path, server.url, canary="schedule")
        server.version = "0.33.0"
        server.gate, before = asyncio.Event(), len(server.posts)
        proof = asyncio.create_task(classifier.proof.prove())
        await server.wait_for_posts(before + 1)
        with pytest.raises(RemoteCallFailed, match="not proven"):
            await classifier.logits([row_of(classifier)])
        server.gate.set()
        await proof
        assert classifier.proof.unproven is None
        await classifier.proof.close()


async def test_proof_returns_before_any_call_goes_to_the_engine_that_it_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with EngineServer(vllm).listening() as server:
        classifier = await proven(tmp_path, server.url)
        calls, others = classifier.calls, list[str]()
        accept = calls.accept

        def accept_and_let_others_run(*args: Any) -> None:
            accept(*args)
            asyncio.get_running_loop().call_soon(others.append, "ran")

        monkeypatch.setattr(calls, "accept", accept_and_let_others_run)
        await classifier.proof.prove()
        assert classifier.proof.unproven is None
        assert not others
        await classifier.proof.close()
