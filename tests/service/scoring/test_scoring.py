"""ScoringService over HTTP: order, sources, failures, limits, keys and options."""

import base64
import gc
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from support.scoring_requests import post
from support.servers import RedisServer, Served

from assay.scoring.service import ScoringService
from assay.settings import Settings


async def test_results_are_in_request_order_with_their_ids(
    served: Served, scripted_settings: Settings
) -> None:
    async with served(scripted_settings) as client:
        reply = await post(client, ["ccc", "a", "bb"])
        assert [r["score"] for r in reply["results"]] == [3.0, 1.0, 2.0]
        assert [r["id"] for r in reply["results"]] == ["i0", "i1", "i2"]
        assert reply["model"] == "scripted@1"
        assert reply["groups"] is None


async def test_sources_are_computed_shared_or_cache(
    served: Served, scripted_settings: Settings
) -> None:
    async with served(scripted_settings) as client:
        first = await post(client, ["a", "a", "b"])
        assert [r["source"] for r in first["results"]] == ["computed", "shared", "computed"]
        again = await post(client, ["a", "new"])
        assert [r["source"] for r in again["results"]] == ["cache", "computed"]
        counts = {"computed": 1, "cached": 1, "shared": 0, "rule": 0, "failed": 0}
        assert again["usage"] == {"items": 2, "tokens": 4, **counts}


async def test_failures_are_per_item_and_do_not_affect_other_items(
    served: Served, scripted_settings: Settings
) -> None:
    async with served(scripted_settings) as client:
        texts = ["good", "poison", "nan", "unpreparable", "refused", "fine"]
        reply = await post(client, texts)
        codes = [r["error"] and r["error"]["code"] for r in reply["results"]]
        assert codes == [
            None, "inference_failed", "non_finite_score", "item_failed", "invalid_item", None,
        ]  # fmt: skip
        for result in reply["results"][1:5]:
            assert (result["status"], result["score"], result["raw"]) == ("error", None, None)
            assert result["channels"] == {}
        assert "unpreparable" not in str(reply["results"][3]["error"]), "no text is echoed"
        assert reply["usage"]["failed"] == 4


async def test_failures_are_never_cached(served: Served, scripted_settings: Settings) -> None:
    async with served(scripted_settings) as client:
        for _ in range(2):
            reply = await post(client, ["nan"])
            assert reply["results"][0]["error"]["code"] == "non_finite_score"


async def test_one_failing_item_among_64_fails_alone(
    served: Served, scripted_settings: Settings
) -> None:
    async with served(scripted_settings) as client:
        texts = [f"item {n}" for n in range(64)]
        texts[40] = "poison"
        reply = await post(client, texts)
        assert [r["status"] for r in reply["results"]].count("error") == 1
        assert reply["results"][40]["status"] == "error"
        assert (await post(client, ["after"]))["results"][0]["score"] == 5.0


async def test_a_substitute_is_served_on_request_and_flagged(
    served: Served, scripted_settings: Settings
) -> None:
    async with served(scripted_settings) as client:
        options = {"on_error": {"substitute": -1.5}}
        bad, good = (await post(client, ["poison", "good"], options=options))["results"]
        assert (bad["status"], bad["score"], bad["flags"]) == ("error", -1.5, ["substituted"])
        assert (good["score"], good["flags"]) == (4.0, [])


async def test_a_substituted_candidate_is_ranked_last(
    served: Served, scripted_settings: Settings
) -> None:
    async with served(scripted_settings) as client:
        body = {
            "model": "scripted",
            "candidates": ["poison", "aa", "b"],
            "options": {"on_error": {"substitute": 99.0}},
        }
        reply = (await client.post("/v1/best-of-n", json=body)).json()
        assert reply["best"] == 1
        assert [place["index"] for place in reply["ranking"]] == [1, 2, 0]
        assert reply["ranking"][-1]["score"] is None


async def test_the_run_does_not_change_the_score_or_the_cache_key(
    served: Served, scripted_settings: Settings
) -> None:
    async with served(scripted_settings) as client:
        await post(client, ["a"], run={"id": "one", "step": 1})
        reply = await post(client, ["a"], run={"id": "two", "step": 9, "split": "eval"})
        assert reply["results"][0]["source"] == "cache"


async def test_limits_on_items_tokens_and_bytes(
    served: Served, scripted_settings: Settings
) -> None:
    bounds = {"max_items": 2, "max_request_tokens": 10, "max_body_bytes": 400}
    async with served(scripted_settings.model_copy(update=bounds)) as client:
        for texts in (["a", "b", "c"], ["x" * 11], ["y" * 500]):
            body = {"model": "scripted", "items": [{"text": text} for text in texts]}
            answer = await client.post("/v1/score", json=body)
            assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")


async def test_a_chunked_body_is_bounded_too(served: Served, scripted_settings: Settings) -> None:
    async with served(scripted_settings.model_copy(update={"max_body_bytes": 100})) as client:

        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(50):
                yield b"x" * 10

        headers = {"content-type": "application/json", "transfer-encoding": "chunked"}
        answer = await client.post("/v1/score", content=chunks(), headers=headers)
        assert answer.status_code == 413


async def test_a_request_larger_than_the_queue_is_too_large(
    served: Served, scripted_settings: Settings
) -> None:
    async with served(scripted_settings.model_copy(update={"max_queue_tokens": 4})) as client:
        answer = await client.post(
            "/v1/score", json={"model": "scripted", "items": [{"text": "12345"}]}
        )
        assert answer.status_code == 413, "it never fits"


async def test_a_second_process_serves_from_redis_without_a_forward_pass(
    served: Served, scripted_settings: Settings, redis_server: RedisServer
) -> None:
    shared = scripted_settings.model_copy(
        update={"redis_url": Settings(redis_url=redis_server.url).redis_url}
    )
    async with served(shared) as client:
        await post(client, ["a", "bb"])
    async with served(shared) as client:
        reply = await post(client, ["a", "bb"])
        assert [r["source"] for r in reply["results"]] == ["cache", "cache"]
        assert [r["score"] for r in reply["results"]] == [1.0, 2.0]
        metrics = (await client.get("/metrics")).text
        forwards = re.findall(r'assay_forwards_total\{model="scripted@1",.*\} (.*)', metrics)
        assert set(forwards) <= {"0.0"}


async def test_a_model_that_fails_to_load_is_reported_everywhere(
    served: Served, scripted_settings: Settings, tmp_path: Path
) -> None:
    card = tmp_path / "scripted" / "1" / "card.toml"
    card.write_text(card.read_text() + "\n[options]\nbreaks = true\n")
    async with served(scripted_settings) as client:
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert "loading raised RuntimeError" in ready.json()["models"]["scripted@1"]
        answer = await client.post(
            "/v1/score", json={"model": "scripted", "items": [{"text": "a"}]}
        )
        assert (answer.status_code, answer.json()["code"]) == (503, "model_failed")
        assert answer.json()["retryable"] is False
        assert (await client.get("/healthz")).status_code == 200


async def test_a_model_with_a_wrong_example_is_not_served(
    served: Served, scripted_settings: Settings, tmp_path: Path
) -> None:
    card = tmp_path / "scripted" / "1" / "card.toml"
    card.write_text(card.read_text() + '\n[example]\nitem = { text = "four" }\nscore = 5.0\n')
    async with served(scripted_settings) as client:
        models = (await client.get("/v1/models")).json()["models"]
        assert models[0]["state"] == "failed"
        assert "scores 4" in models[0]["failure"]
        parity = (await client.get("/v1/models/scripted")).json()["parity"]
        assert parity == {"expected": 5.0, "got": 4.0, "tolerance": 0.001, "passed": False}


@pytest.mark.parametrize("caller", ["X-Request-ID", "none"])
async def test_every_reply_has_a_request_id(
    served: Served, scripted_settings: Settings, caller: str
) -> None:
    async with served(scripted_settings) as client:
        headers = {"X-Request-ID": "mine-1"} if caller != "none" else {}
        answer = await client.get("/v1/models/nope", headers=headers)
        given = answer.headers["x-request-id"]
        assert answer.json()["request_id"] == given
        assert (given == "mine-1") is (caller != "none")


async def test_an_internal_error_is_reported_without_its_text(
    served: Served, scripted_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("the prompt was: secret")

    monkeypatch.setattr(ScoringService, "score", fail)
    async with served(scripted_settings) as client:
        body = {"model": "scripted", "items": [{"text": "a"}]}
        answer = await client.post("/v1/score", json=body)
        assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
        assert "secret" not in answer.text
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_every_route_requires_a_key(served: Served, scripted_settings: Settings) -> None:
    keys = Settings(api_keys=("one-0123456789abcd", "two-0123456789abcd")).api_keys
    async with served(scripted_settings.model_copy(update={"api_keys": keys})) as client:
        paths = ["/version", "/metrics", "/v1/models", "/v1/runs", "/nope"]
        for path in paths:
            assert (await client.get(path)).status_code == 401, path
            wrong = await client.get(path, headers={"Authorization": "Bearer three"})
            assert wrong.status_code == 403, path
        for path in ("/score", "/v1/score", "/v1/best-of-n", "/v1/models/scripted/score"):
            assert (await client.post(path, json={})).status_code == 401, path
        for headers in (
            {"Authorization": "Bearer two-0123456789abcd"},
            {"X-API-Key": "one-0123456789abcd"},
        ):
            assert (await client.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("credentials", "status"),
    [
        (":two-0123456789abcd", 200),
        ("anyone:two-0123456789abcd", 200),
        ("two-0123456789abcd:", 401),
        ("two-0123456789abcd", 401),
        ("anyone:three", 403),
        ("anyone:two-0123456789abcd:", 403),
    ],
)
async def test_a_key_may_be_a_urls_password(
    served: Served, scripted_settings: Settings, credentials: str, status: int
) -> None:
    keys = Settings(api_keys=("one-0123456789abcd", "two-0123456789abcd")).api_keys
    async with served(scripted_settings.model_copy(update={"api_keys": keys})) as client:
        encoded = base64.b64encode(credentials.encode()).decode()
        answer = await client.get("/v1/models", headers={"Authorization": f"Basic {encoded}"})
        assert answer.status_code == status
        if status == 401:
            assert "http://:KEY@HOST" in answer.json()["hint"]


@pytest.mark.parametrize("credentials", ["", "=", "no base64!", "OnR3bw"])
async def test_malformed_credentials_are_no_key(
    served: Served, scripted_settings: Settings, credentials: str
) -> None:
    keys = Settings(api_keys=("one-0123456789abcd", "two-0123456789abcd")).api_keys
    async with served(scripted_settings.model_copy(update={"api_keys": keys})) as client:
        answer = await client.get("/v1/models", headers={"Authorization": f"Basic {credentials}"})
        assert answer.status_code == 401


async def test_a_passed_deadline_gives_504(served: Served, scripted_settings: Settings) -> None:
    async with served(scripted_settings.model_copy(update={"timeout": 1e-9})) as client:
        answer = await client.post(
            "/v1/score", json={"model": "scripted", "items": [{"text": "a"}]}
        )
        assert (answer.status_code, answer.json()["code"]) == (504, "deadline_exceeded")
        assert answer.json()["retryable"] is True


@pytest.fixture
def unfrozen_gc() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("unfrozen_gc")
async def test_loaded_models_are_exempt_from_garbage_collection(
    served: Served, scripted_settings: Settings
) -> None:
    async with served(scripted_settings) as client:
        await post(client, ["a"])
        assert gc.get_freeze_count() > 1000


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "a/b+json"]
)
async def test_hot_routes_and_the_app_give_the_same_reply(
    served: Served, scripted_settings: Settings, kind: str
) -> None:
    content = b'{"items": [{"text": "abc", "id": "n"}], "options": {"raw": true}}'
    headers = {"content-type": kind.replace("a/b", "application/x"), "x-assay-timeout-ms": "5000"}
    async with served(scripted_settings) as client:
        replies = []
        for path in ("/v1/models/scripted/score", "/v1/score", "/score"):
            body = content if "models" in path else b'{"model": "scripted", ' + content[1:]
            answer = await client.post(path, content=body, headers=headers)
            assert answer.status_code == 200, answer.text
            replies.append(answer.json()["results"][0])
    assert [reply.pop("source") for reply in replies] == ["computed", "cache", "cache"]
    assert replies[0] == replies[1] == replies[2]
    assert (replies[0]["id"], replies[0]["score"]) == ("n", 3.0)
