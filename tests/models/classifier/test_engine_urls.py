"""Models of several URLs, of which some lie, hang or become others, and of calls in parts."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from support import engine_models as engines
from support.engine_models import example_score, open_remote, write_engine_model
from support.engine_servers import (
    BAD_TOKEN,
    PROTOCOLS,
    EngineServer,
    Handler,
    Received,
    assay,
    logits_of,
    tei,
    vllm,
)

from assay_models.base import Input, ItemError, Raw
from assay_models.deadlines import set_latest
from assay_models.engines import transport
from assay_models.engines.errors import EngineError
from assay_models.families.classifier.engine_proof import EngineProof
from assay_models.families.classifier.proven_engine import Canary
from assay_models.families.classifier.remote import RemoteClassifier
from assay_models.remote import RemoteCallFailed
from assay_models.repository import ModelNotFound

KEYS = ("input", "inputs", "items")
TEXTS = ("the first row", "and a second, longer one", "a third")


@asynccontextmanager
async def proven(
    folder: Path, *urls: str, protocol: str = "vllm", engine: str = ""
) -> AsyncIterator[RemoteClassifier]:
    """Yield a classifier whose proof was tried once."""
    joined = '", "'.join(urls)
    example = None if protocol == "vllm" else example_score(protocol)
    write_engine_model(folder, url=joined, protocol=protocol, engine=engine, example=example)
    classifier = open_remote(folder)
    try:
        await classifier.proof.prove()
        yield classifier
    finally:
        await classifier.proof.close()


def inputs_of(classifier: RemoteClassifier, texts: Sequence[str] = TEXTS) -> list[Input]:
    return [classifier.encode_text(text, None, "error").input() for text in texts]


def canaries_of(classifier: RemoteClassifier) -> Sequence[Canary]:
    assert classifier.calls.proven is not None
    return classifier.calls.proven.canaries


def right(row: Input) -> Any:
    return pytest.approx(logits_of(row.payload.ids.tolist()))


def silent_about_itself(handler: Handler) -> Handler:
    """Return a handler that answers no question about the engine, but computes."""

    def answer(server: EngineServer, request: Received) -> tuple[int, Any]:
        return handler(server, request) if request.body is not None else (503, {})

    return answer


async def test_url_that_was_not_proven_gets_no_calls_until_it_is(tmp_path: Path) -> None:
    lying = silent_about_itself(engines.shifted(vllm, 1))
    async with (
        EngineServer(vllm).listening() as a,
        EngineServer(lying).listening() as b,
        proven(tmp_path, a.url, b.url, engine='canary = "schedule"') as classifier,
    ):
        rows = inputs_of(classifier)
        for _ in range(6):
            assert await classifier.logits(rows) == [right(row) for row in rows]
        assert not b.posts
        b.handler = vllm
        await classifier.proof.prove()
        b.received.clear()
        for _ in range(2):
            await classifier.logits(rows)
        assert b.posts


async def test_url_that_hangs_does_not_hold_up_the_proof_of_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "GET_SECONDS", 0.1)
    async with EngineServer(vllm).listening() as good:
        held: list[asyncio.StreamWriter] = []
        hanging = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
        port = hanging.sockets[0].getsockname()[1]
        async with proven(tmp_path, f"http://127.0.0.1:{port}", good.url) as classifier:
            assert classifier.proof.unproven is None
            rows = inputs_of(classifier)
            assert await classifier.logits(rows) == [right(row) for row in rows]
        hanging.close()
        for writer in held:
            writer.close()


async def test_each_part_of_a_call_that_is_split_carries_a_canary(tmp_path: Path) -> None:
    async with EngineServer(vllm).listening() as server, proven(tmp_path, server.url) as classifier:
        rows = inputs_of(classifier, [*TEXTS, "a fourth", "one more"])
        rows[2].payload.ids[0] = BAD_TOKEN
        before = len(server.posts)
        raws = await classifier.logits(rows)
        assert [isinstance(raw, ItemError) for raw in raws] == [row is rows[2] for row in rows]
        canaries = [canary.row.payload.ids.tolist() for canary in canaries_of(classifier)]
        parts = [post.body["input"] for post in server.posts[before:]]
        assert len(parts) > 2
        assert all(any(row in canaries for row in part) for part in parts)


async def test_card_whose_longest_row_leaves_a_call_no_room_for_a_canary_is_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(ModelNotFound, match="do not fit one call"):
        async with proven(tmp_path, "http://127.0.0.1:9", engine="max_call_tokens = 40"):
            pass


@pytest.mark.parametrize("protocol", ["vllm", "tei", "assay"])
async def test_each_of_several_calls_of_one_batch_carries_a_canary(
    protocol: str, tmp_path: Path
) -> None:
    async with (
        EngineServer(PROTOCOLS[protocol]).listening() as server,
        proven(tmp_path, server.url, protocol=protocol, engine="max_call_tokens = 288") as engine,
    ):
        rows = inputs_of(engine, ["word " * 50 + str(number) for number in range(5)])
        before = len(server.posts)
        raws = await engine.logits(rows)
        assert not any(isinstance(raw, ItemError) for raw in raws)
        bodies = [post.body for post in server.posts[before:]]
        sizes = [len(next(body[key] for key in KEYS if key in body)) for body in bodies]
        assert len(sizes) == -(-sum(row.tokens for row in rows) // 256)
        assert sum(sizes) == len(rows) + len(sizes)  # one row more in each


async def test_row_on_which_alone_the_engine_fails_is_that_rows_error(tmp_path: Path) -> None:
    def poisoned(server: EngineServer, request: Received) -> tuple[int, Any]:
        rows = (request.body or {}).get("input", ())
        return (500, {}) if any(7 in row[:1] for row in rows) else vllm(server, request)

    async with (
        EngineServer(poisoned).listening() as server,
        proven(tmp_path, server.url) as classifier,
    ):
        (row,) = inputs_of(classifier, ["a row"])
        row.payload.ids[0] = 7
        (raw,) = await classifier.logits([row])
        assert isinstance(raw, ItemError)
        server.status = 500
        with pytest.raises(EngineError):
            await classifier.logits([row])


@pytest.mark.parametrize("protocol", ["assay", "tei"])
async def test_other_weights_behind_a_url_are_proven_anew(protocol: str, tmp_path: Path) -> None:
    handler = {"assay": assay, "tei": tei}[protocol]
    async with (
        EngineServer(handler).listening() as server,
        proven(tmp_path, server.url, protocol=protocol) as classifier,
    ):
        parts = classifier.fingerprint_parts
        server.root = "other weights"
        if protocol == "tei":
            server.handler = renamed
        await classifier.proof.prove()
        assert classifier.proof.unproven is None
        assert classifier.fingerprint_parts != parts
        assert len(await classifier.logits(inputs_of(classifier))) == len(TEXTS)


def renamed(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer as a TEI whose only label has another name."""
    status, value = tei(server, request)
    if request.path == "/info":
        value["model_type"]["classifier"]["id2label"] = {"0": "GOOD"}
    else:
        value = [[{**part, "label": "GOOD"} for part in entry] for entry in value]
    return status, value


async def test_logits_beyond_fp32_are_no_numbers(tmp_path: Path) -> None:
    def huge(server: EngineServer, request: Received) -> tuple[int, Any]:
        status, value = vllm(server, request)
        for entry in value.get("data", []) if request.path == "/classify" else []:
            if not request.body["use_activation"]:
                entry["probs"] = [number * 1e306 for number in entry["probs"]]
            else:
                entry["probs"] = [1.0 if number > 0.5 else 0.0 for number in entry["probs"]]
        return status, value

    async with EngineServer(huge).listening() as server, proven(tmp_path, server.url) as classifier:
        assert "fp32" in (classifier.proof.unproven or "")
        assert classifier.fingerprint_parts


async def test_engine_with_a_page_for_a_name_is_refused_in_few_words(tmp_path: Path) -> None:
    async with EngineServer(vllm, root="x" * 1_000_000).listening() as server:
        async with proven(tmp_path, server.url) as classifier:
            assert "too long" in (classifier.proof.unproven or "")
            assert len(classifier.proof.unproven or "") < 200
        server.root = "\x1b[31m\nspoofed line"
        async with proven(tmp_path, server.url) as classifier:
            assert "not printable" in (classifier.proof.unproven or "")
            assert (classifier.proof.unproven or "").isprintable()


async def test_engine_lost_between_two_tries_is_unproven_where_calls_carry_no_canary(
    tmp_path: Path,
) -> None:
    answers = iter([503])

    def restarting(server: EngineServer, request: Received) -> tuple[int, Any]:
        if request.body is not None and proof.unproven is None and (status := next(answers, None)):
            server.handler = engines.shifted(vllm, 1)
            return status, {}
        return vllm(server, request)

    async with (
        EngineServer(vllm).listening() as server,
        proven(tmp_path, server.url, engine='canary = "schedule"') as classifier,
    ):
        card = tmp_path / "card.toml"
        card.write_text(card.read_text().replace("retries = 0", "retries = 2"))
        classifier = open_remote(tmp_path)
        proof: EngineProof = classifier.proof
        await proof.prove()
        server.handler = restarting
        with pytest.raises(RemoteCallFailed, match="not proven"):
            await classifier.logits(inputs_of(classifier))
        assert proof.unproven is not None
        await proof.prove()
        assert proof.unproven is None
        await proof.close()


@pytest.mark.parametrize("canary", ["call", "schedule"])
async def test_caller_in_a_hurry_does_not_unprove_the_engine(canary: str, tmp_path: Path) -> None:
    async with (
        EngineServer(vllm).listening() as server,
        proven(tmp_path, server.url, engine=f'canary = "{canary}"') as classifier,
    ):
        server.gate = asyncio.Event()
        with pytest.raises(EngineError) as raised:
            await in_a_hurry(classifier)
        assert raised.value.code == "engine_timeout"
        server.gate = None
        assert classifier.proof.unproven is None
        assert not classifier.calls.doubted.is_set()


async def in_a_hurry(classifier: RemoteClassifier) -> None:
    """Ask for logits with a deadline of 50 ms."""

    deadline = time.monotonic() + 0.05

    async def ask() -> None:
        set_latest(lambda: deadline)
        await classifier.logits(inputs_of(classifier))

    await asyncio.create_task(ask())


async def test_the_log_names_the_largest_difference_at_any_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "assay_models")
    off = iter((4e-5, 1e-5))

    async def logits(inputs: Sequence[Input]) -> list[Raw]:
        shift = next(off)
        rows = await classifier.logits(inputs)
        return [(row[0] + shift,) for row in rows if not isinstance(row, ItemError)]

    async with (
        EngineServer(vllm).listening() as first,
        EngineServer(vllm).listening() as second,
        proven(tmp_path, first.url, second.url) as classifier,
    ):
        monkeypatch.setattr(classifier.proof, "_reference", Mock(logits=logits))
        await classifier.proof.prove()
    (before, after) = caplog.records
    assert (before.levelname, after.levelname) == ("INFO", "DEBUG")
    assert f"proven at {first.url}, {second.url}; no weights" in before.getMessage()
    assert "differs by 4.0e-05 at most, " in after.getMessage()
