"""Each protocol against a real server that answers in the shape of recorded replies."""

from typing import Any

import pytest
from support.engine_cards import classify, codes_of, engine_card, raws_of
from support.engine_servers import (
    BAD_TEXT,
    BAD_TOKEN,
    KEY,
    LABELS,
    PROTOCOLS,
    EngineServer,
    activated,
    logits_of,
)

from assay_models.engines.client import open_engine
from assay_models.engines.errors import EngineError

ROWS = [[72, 101, 108], [66], [97, 98, 99, 100], [111, 107]]
each_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


@each_protocol
async def test_classify_with_several_rows_returns_each_rows_own_logits(protocol: str) -> None:
    async with EngineServer(PROTOCOLS[protocol]).listening() as server:
        engine = open_engine(engine_card(protocol, server.url))
        assert await classify(engine, ROWS) == raws_of(ROWS)
        await engine.close()


@pytest.mark.parametrize("protocol", ["vllm", "sglang", "tei"])
async def test_classify_with_three_labels_returns_them_in_the_models_order(protocol: str) -> None:
    async with EngineServer(PROTOCOLS[protocol], labels=3).listening() as server:
        engine = open_engine(engine_card(protocol, server.url))
        assert await classify(engine, ROWS) == raws_of(ROWS, 3)
        await engine.close()


@pytest.mark.parametrize("protocol", ["vllm", "tei"])
@pytest.mark.parametrize("labels", [1, 3])
async def test_classify_with_activation_returns_activated_numbers(
    protocol: str, labels: int
) -> None:
    async with EngineServer(PROTOCOLS[protocol], labels=labels).listening() as server:
        engine = open_engine(engine_card(protocol, server.url))
        assert engine.can_activate
        results = await classify(engine, ROWS, activation=True)
        assert results == [tuple(activated(raw)) for raw in raws_of(ROWS, labels)]
        await engine.close()


@pytest.mark.parametrize("protocol", ["sglang", "assay"])
async def test_activation_of_an_engine_that_has_none_is_refused_unsent(protocol: str) -> None:
    async with EngineServer(PROTOCOLS[protocol]).listening() as server:
        engine = open_engine(engine_card(protocol, server.url))
        assert not engine.can_activate
        with pytest.raises(EngineError) as raised:
            await classify(engine, ROWS, activation=True)
        assert raised.value.code == "engine_refused"
        assert not server.posts
        await engine.close()


@each_protocol
async def test_method_for_the_other_kind_of_input_raises(protocol: str) -> None:
    engine = open_engine(engine_card(protocol, "http://127.0.0.1:9"))
    call = engine.classify_texts(["a"]) if engine.takes == "ids" else engine.classify([[1]])
    with pytest.raises(EngineError) as raised:
        await call
    assert (raised.value.code, raised.value.retryable) == ("engine_refused", False)
    await engine.close()


@pytest.mark.parametrize(
    ("protocol", "path", "expected"),
    [
        ("vllm", "/classify", {"model": "rm", "input": [[1, 2]], "use_activation": False}),
        ("tei", "/predict", {"inputs": [["\1\2"]], "raw_scores": False, "truncate": False}),
    ],
)
async def test_body_sent_is_the_protocols_own(protocol: str, path: str, expected: Any) -> None:
    async with EngineServer(PROTOCOLS[protocol]).listening() as server:
        engine = open_engine(engine_card(protocol, server.url))
        await classify(engine, [[1, 2]], activation=protocol == "tei")
        (request,) = server.posts
        assert (request.path, request.body) == (path, expected)
        await engine.close()


async def test_sglang_is_called_natively_with_an_id_for_each_row() -> None:
    async with EngineServer(PROTOCOLS["sglang"]).listening() as server:
        engine = open_engine(engine_card("sglang", server.url))
        await engine.classify([[1, 2], [3]])
        (request,) = server.posts
        assert request.path == "/classify"
        assert request.body["input_ids"] == [[1, 2], [3]]
        assert len({*request.body["rid"]}) == 2
        await engine.close()


async def test_assay_gets_pairs_by_the_names_of_their_fields() -> None:
    async with EngineServer(PROTOCOLS["assay"]).listening() as server:
        engine = open_engine(engine_card("assay", server.url))
        pair = ("2+2?", "4")
        expected = [logits_of("2+2?\n4")]
        assert await engine.classify_texts([pair], fields=("prompt", "response")) == expected
        assert await engine.classify_texts([pair]) == expected
        first, second = (request.body for request in server.posts)
        assert first["options"] == {"raw": True}
        assert first["items"][0].items() >= {"prompt": "2+2?", "response": "4"}.items()
        assert second["items"][0].items() >= {"text": "2+2?", "text_pair": "4"}.items()
        await engine.close()


async def test_vllm_gets_pairs_as_queries_and_documents() -> None:
    async with EngineServer(PROTOCOLS["vllm"]).listening() as server:
        engine = open_engine(engine_card("vllm", server.url))
        pairs = [("A dog runs.", "It moves."), ("2+2?", "4")]
        expected = [logits_of("\n".join(pair)) for pair in pairs]
        assert await engine.classify_texts(pairs) == expected
        assert await engine.classify_texts(pairs, activation=True) == [
            tuple(activated(raw)) for raw in expected
        ]
        assert server.posts[0].body == {
            "model": "rm",
            "queries": ["A dog runs.", "2+2?"],
            "documents": ["It moves.", "4"],
            "use_activation": False,
        }
        await engine.close()


async def test_tei_gets_a_pair_as_a_list_of_two() -> None:
    async with EngineServer(PROTOCOLS["tei"], labels=3).listening() as server:
        engine = open_engine(engine_card("tei", server.url))
        results = await engine.classify_texts([("A dog runs.", "It moves."), "one text"])
        assert results == [logits_of("A dog runs.\nIt moves.", 3), logits_of("one text", 3)]
        assert server.posts[0].body["inputs"] == [["A dog runs.", "It moves."], ["one text"]]
        await engine.close()


@pytest.mark.parametrize("protocol", ["vllm", "sglang"])
async def test_row_that_the_engine_refuses_fails_alone(protocol: str) -> None:
    rows = [[1, 2], [BAD_TOKEN], [3], [4, 5]]
    async with EngineServer(PROTOCOLS[protocol]).listening() as server:
        engine = open_engine(engine_card(protocol, server.url))
        results = await engine.classify(rows)
        assert codes_of(results) == {1: "engine_refused"}
        assert [results[0], *results[2:]] == raws_of([rows[0], *rows[2:]])
        assert str(BAD_TOKEN) not in str(results[1])
        await engine.close()


@pytest.mark.parametrize(
    ("protocol", "code"), [("tei", "engine_refused"), ("assay", "input_too_long")]
)
async def test_text_that_the_engine_refuses_fails_alone(protocol: str, code: str) -> None:
    async with EngineServer(PROTOCOLS[protocol]).listening() as server:
        engine = open_engine(engine_card(protocol, server.url))
        results = await engine.classify_texts(["a", BAD_TEXT, "b"])
        assert codes_of(results) == {1: code}
        assert [results[0], results[2]] == [logits_of("a"), logits_of("b")]
        assert BAD_TEXT not in str(results[1])
        await engine.close()


@each_protocol
async def test_rows_beyond_a_calls_limits_go_in_several_calls(protocol: str) -> None:
    async with EngineServer(PROTOCOLS[protocol]).listening() as server:
        engine = open_engine(engine_card(protocol, server.url, max_call_items=3))
        rows = [[position + 60] for position in range(8)]
        assert await classify(engine, rows) == raws_of(rows)
        assert len(server.posts) == 3
        await engine.close()


async def test_rows_beyond_a_calls_tokens_go_in_several_calls() -> None:
    async with EngineServer(PROTOCOLS["vllm"]).listening() as server:
        small = {"max_tokens": 5}
        card = engine_card("vllm", server.url, limits=small, max_call_tokens=5, canary="schedule")
        engine = open_engine(card)
        rows = [[1] * 9, [2] * 3, [3] * 2, [4]]
        assert await engine.classify(rows) == raws_of(rows)
        assert [request.body["input"] for request in server.posts] == [
            rows[:1],
            rows[1:3],
            rows[3:],
        ]
        await engine.close()


EXPECTED = {
    "vllm": ("checkpoint", "", None, 1024, ()),
    "sglang": ("checkpoint", "v1", "float32", 2048, ()),
    "tei": ("checkpoint", "c0ffee", "float32", 512, LABELS),
    "assay": ("rm@1", "", None, None, ()),
}


@each_protocol
async def test_identity_names_model_and_version(protocol: str) -> None:
    async with EngineServer(PROTOCOLS[protocol], labels=3).listening() as server:
        engine = open_engine(engine_card(protocol, server.url))
        found = await engine.identity()
        shown = (found.model, found.revision, found.dtype, found.max_tokens, found.labels)
        assert shown == EXPECTED[protocol]
        assert found.version == "0.32.0"
        assert found.fingerprint == ("sha256:checkpoint" if protocol == "assay" else "")
        await engine.close()


@each_protocol
async def test_identity_of_urls_with_other_models_names_both(protocol: str) -> None:
    handler = PROTOCOLS[protocol]
    async with (
        EngineServer(handler).listening() as first,
        EngineServer(handler, root="another").listening() as second,
    ):
        engine = open_engine(engine_card(protocol, first.url, second.url))
        with pytest.raises(EngineError, match="not the same engine") as raised:
            await engine.identity()
        assert first.url in raised.value.detail
        assert second.url in raised.value.detail
        await engine.close()


@each_protocol
async def test_identity_without_one_url_reports_it_and_without_any_raises(protocol: str) -> None:
    gone = "http://127.0.0.1:9"
    async with EngineServer(PROTOCOLS[protocol]).listening() as server:
        engine = open_engine(engine_card(protocol, gone, server.url))
        identity = await engine.identity()
        assert identity.unreachable == (gone,)
        await engine.close()
    engine = open_engine(engine_card(protocol, gone))
    with pytest.raises(EngineError) as raised:
        await engine.identity()
    assert raised.value.code == "engine_unavailable"
    await engine.close()


async def test_identity_of_a_vllm_without_the_model_is_refused() -> None:
    async with EngineServer(PROTOCOLS["vllm"]).listening() as server:
        engine = open_engine(engine_card("vllm", server.url, model="other"))
        with pytest.raises(EngineError, match=r"engine\.model") as raised:
            await engine.identity()
        assert raised.value.code == "engine_refused"
        await engine.close()


async def test_key_is_sent_and_read_again_when_its_file_changes(tmp_path: Any) -> None:
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    async with EngineServer(PROTOCOLS["vllm"], key=KEY).listening() as server:
        engine = open_engine(engine_card("vllm", server.url, api_key_file=str(path)))
        assert await engine.classify([[1]]) == raws_of([[1]])
        server.key = "another-key"
        with pytest.raises(EngineError, match="api_key_file") as raised:
            await engine.classify([[1]])
        assert KEY not in str(raised.value)
        path.write_text("another-key")
        assert await engine.classify([[1]]) == raws_of([[1]])
        path.unlink()
        assert await engine.classify([[1]]) == raws_of([[1]])
        await engine.close()
