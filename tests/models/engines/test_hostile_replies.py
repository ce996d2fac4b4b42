"""Replies that cannot be trusted, of each protocol: an error, never a number."""

from typing import Any

import pytest
from support.engine_cards import classify, engine_card, raws_of
from support.engine_servers import PROTOCOLS, EngineServer, Received
from support.reply_damages import DAMAGES, Damage, change

from assay_models.base import ItemError
from assay_models.engines import http
from assay_models.engines.client import open_engine
from assay_models.engines.errors import EngineError

ROWS = [[72, 101], [66, 67, 68], [97]]


class Damaged:
    """A protocol whose replies to POSTs are damaged."""

    def __init__(self, protocol: str, damage: Damage) -> None:
        self._handler, self._damage = PROTOCOLS[protocol], damage

    def __call__(self, server: EngineServer, request: Received) -> tuple[int, Any]:
        status, reply = self._handler(server, request)
        return status, self._damage(reply) if request.body is not None else reply


async def refuse(protocol: str, damage: Damage) -> EngineError:
    """Return the error of a call whose reply is damaged."""
    async with EngineServer(Damaged(protocol, damage)).listening() as server:
        engine = open_engine(engine_card(protocol, server.url))
        with pytest.raises(EngineError) as raised:
            await classify(engine, ROWS)
        await engine.close()
    return raised.value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", DAMAGES)
async def test_classify_with_a_damaged_reply_gives_no_number(protocol: str, name: str) -> None:
    async with EngineServer(Damaged(protocol, DAMAGES[name])).listening() as server:
        engine = open_engine(engine_card(protocol, server.url, max_call_items=3))
        with pytest.raises(EngineError) as raised:
            await classify(engine, ROWS)
        assert raised.value.code == "engine_bad_reply"
        await engine.close()


@pytest.mark.parametrize("protocol", ["vllm", "assay"])
@pytest.mark.parametrize("index", [None, -1, 3, "0", 1, True, 0.0, 2**62])
async def test_index_that_is_missing_wrong_or_doubled_gives_no_number(
    protocol: str, index: object
) -> None:
    error = await refuse(protocol, change(lambda rows: rows[0].__setitem__("index", index)))
    assert error.code == "engine_bad_reply"


async def test_codes_of_another_assay_are_bounded_in_number() -> None:
    codes = (f"code_{number}" for number in range(1000))

    def fail(rows: Any) -> None:
        for row in rows[1:]:
            row.update(status="error", score=None, error={"code": next(codes), "detail": ""})

    async with EngineServer(Damaged("assay", change(fail))).listening() as server:
        engine = open_engine(engine_card("assay", server.url))
        results = [result for _ in range(50) for result in (await classify(engine, ROWS))[1:]]
        seen = {result.code for result in results if isinstance(result, ItemError)}
        await engine.close()
    assert len(seen) <= 65


@pytest.mark.parametrize("protocol", ["vllm", "assay", "sglang"])
async def test_swapped_entries_come_out_in_the_right_order(protocol: str) -> None:
    handler = Damaged(protocol, change(lambda rows: rows.reverse()))
    async with EngineServer(handler).listening() as server:
        engine = open_engine(engine_card(protocol, server.url))
        assert await classify(engine, ROWS) == raws_of(ROWS)
        await engine.close()


async def test_swapped_entries_without_index_or_id_cannot_be_detected_here() -> None:
    """Text Embeddings Inference gives no index: only a canary among the rows shows it."""
    handler = Damaged("tei", change(lambda rows: rows.reverse()))
    async with EngineServer(handler).listening() as server:
        engine = open_engine(engine_card("tei", server.url))
        assert await classify(engine, ROWS) == raws_of(ROWS[::-1])
        await engine.close()


def drop_ids(reply: Any) -> Any:
    for entry in reply:
        del entry["meta_info"]["id"]
    return reply


async def test_sglang_without_ids_is_read_by_position_and_lengths_are_checked() -> None:
    async with EngineServer(Damaged("sglang", drop_ids)).listening() as server:
        engine = open_engine(engine_card("sglang", server.url))
        assert await classify(engine, ROWS) == raws_of(ROWS)
        await engine.close()
    handler = Damaged("sglang", lambda reply: drop_ids(reply)[::-1])
    async with EngineServer(handler).listening() as server:
        engine = open_engine(engine_card("sglang", server.url))
        assert await classify(engine, ROWS) == raws_of(ROWS)  # each alone, once the lengths differ
        assert len(server.posts) == 5
        await engine.close()


def set_tokens(reply: Any) -> Any:
    reply["usage"]["prompt_tokens"] += 1
    return reply


async def test_vllm_that_counts_other_tokens_than_were_sent_gives_no_number() -> None:
    error = await refuse("vllm", set_tokens)
    assert "7 tokens" not in error.detail
    assert error.code == "engine_bad_reply"


@pytest.mark.parametrize("protocol", ["vllm", "sglang", "assay"])
async def test_reply_to_an_earlier_call_gives_no_number(protocol: str) -> None:
    stale: list[Any] = []

    def repeat(reply: Any) -> Any:
        stale.append(reply)
        return stale[0]

    async with EngineServer(Damaged(protocol, repeat)).listening() as server:
        engine = open_engine(engine_card(protocol, server.url))
        assert await classify(engine, ROWS) == raws_of(ROWS)
        with pytest.raises(EngineError) as raised:
            await classify(engine, ROWS[::-1])
        assert raised.value.code == "engine_bad_reply"
        await engine.close()


@pytest.mark.parametrize("protocol", ["vllm", "sglang", "tei"])
async def test_number_of_labels_that_changes_gives_no_number(protocol: str) -> None:
    async with EngineServer(PROTOCOLS[protocol], labels=3).listening() as server:
        engine = open_engine(engine_card(protocol, server.url))
        assert await classify(engine, ROWS) == raws_of(ROWS, 3)
        server.labels = 2
        with pytest.raises(EngineError) as raised:
            await classify(engine, ROWS)
        assert raised.value.code == "engine_bad_reply"
        await engine.identity()
        assert await classify(engine, ROWS) == raws_of(ROWS, 2)
        await engine.close()


async def test_assay_whose_fingerprint_changes_gives_no_number_until_it_is_identified() -> None:
    async with EngineServer(PROTOCOLS["assay"]).listening() as server:
        engine = open_engine(engine_card("assay", server.url))
        assert await classify(engine, ROWS) == raws_of(ROWS)
        server.root = "another"
        with pytest.raises(EngineError, match="fingerprint"):
            await classify(engine, ROWS)
        await engine.identity()
        assert await classify(engine, ROWS) == raws_of(ROWS)
        await engine.close()


@pytest.mark.parametrize(
    "fields",
    [
        {"flags": ["substituted"], "raw": 0.0},
        {"status": "fine"},
        {"status": "error", "error": {"code": "A text that quotes", "detail": ""}},
        {"status": "error", "error": {"code": "no_claims", "detail": ""}},
        {"id": "another"},
    ],
)
async def test_assay_with_a_doubtful_item_gives_no_number(fields: dict[str, Any]) -> None:
    error = await refuse("assay", change(lambda rows: rows[0].update(fields)))
    assert error.code == "engine_bad_reply"


@pytest.mark.parametrize(
    "body",
    [
        b"<html><body>welcome</body></html>",
        b"",
        b'{"data": [{"index": 0, "probs": [NaN]}]}',
        b'{"data": [{"index": 0, "probs": [Infinity]}]}',
        b'{"data": [{"index": 0, "probs": [1e999]}]}',
        b'{"data": [{"index": 0, "probs": [0.5',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"data": ' + b"[" * 2000 + b"]" * 2000 + b"}",
    ],
)
async def test_body_that_is_not_the_protocols_gives_no_number(body: bytes) -> None:
    async with EngineServer(PROTOCOLS["vllm"], content=body).listening() as server:
        engine = open_engine(engine_card("vllm", server.url))
        with pytest.raises(EngineError) as raised:
            await engine.classify([[1]])
        assert raised.value.code == "engine_bad_reply"
        await engine.close()


async def test_reply_that_is_too_large_is_not_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "MAX_REPLY_BYTES", 1000)
    content = b'{"data": "' + b"x" * 2000 + b'"}'
    async with EngineServer(PROTOCOLS["vllm"], content=content).listening() as server:
        engine = open_engine(engine_card("vllm", server.url))
        with pytest.raises(EngineError, match="more than 1000 bytes"):
            await engine.classify([[1]])
        await engine.close()


async def test_reply_that_is_compressed_unasked_is_refused() -> None:
    headers = {"content-encoding": "gzip"}
    async with EngineServer(PROTOCOLS["vllm"], content=b"", headers=headers).listening() as server:
        engine = open_engine(engine_card("vllm", server.url))
        with pytest.raises(EngineError, match="compressed"):
            await engine.classify([[1]])
        await engine.close()
