"""Requests and replies of successful calls, and items without a score."""

from typing import Any

import pytest

from assay_client import ItemFailedError, NotFoundError, ProtocolError, Result


def test_score_sends_the_wire_format(server: Any, connect: Any) -> None:
    items = [{"id": "a", "prompt": "sort ü", "value": 2.5}]
    options, run = {"truncation": "left"}, {"id": "exp-1", "step": 3}
    connect(server.url).score("code@1", items, options=options, run=run)
    (received,) = server.received
    assert (received.method, received.path) == ("POST", "/v1/score")
    assert received.body == {"model": "code@1", "items": items, "options": options, "run": run}
    assert received.headers["content-type"] == "application/json"
    assert 599_000 < int(received.headers["x-assay-timeout-ms"]) <= 600_000


def test_options_that_are_not_given_are_not_sent(server: Any, connect: Any) -> None:
    connect(server.url).score("code", [{"value": 1}])
    assert set(server.received[0].body) == {"model", "items"}


def test_score_returns_typed_results_in_order(server: Any, connect: Any) -> None:
    items = [{"id": "a", "group": "p", "value": 2.5}, {"id": "b", "group": "p", "value": -1}]
    reply = connect(server.url).score("code", items)
    assert reply.scores == [2.5, -1.0]
    assert reply.results[0] == Result(
        index=0,
        id="a",
        group="p",
        status="ok",
        score=2.5,
        raw=2.5,
        channels={"reward": 2.5},
        flags=(),
        tokens=3,
        source="computed",
        details={},
        error=None,
    )
    assert (reply.model, reply.fingerprint) == ("code@1", "sha256:aa")
    assert reply.groups[0].ranks == (1, 2)
    assert (reply.usage.items, reply.usage.tokens) == (2, 6)
    assert reply.timing.total_ms == 4.0
    assert reply.failed == ()


def test_an_item_without_a_score_raises_an_error_with_the_whole_reply(
    server: Any, connect: Any
) -> None:
    items = [{"value": 1}, {"id": "long"}, {}]
    with pytest.raises(ItemFailedError, match=r"item 1 .* input_too_long: shorten it") as caught:
        connect(server.url).score("code", items)
    error = caught.value
    assert (error.index, error.code, error.detail) == (1, "input_too_long", "shorten it")
    assert [result.index for result in error.failed] == [1, 2]
    assert error.reply.scores == [1.0, None, None]
    assert error.request_id == server.received[0].headers["x-request-id"]


def test_on_error_none_returns_none_for_a_failed_item(server: Any, connect: Any) -> None:
    reply = connect(server.url).score("code", [{"value": 0.0}, {}], on_error="none")
    assert reply.scores == [0.0, None]
    assert reply.failed == (reply.results[1],)
    assert reply.results[1].error.code == "input_too_long"


def test_a_substitute_comes_only_from_the_server(server: Any, connect: Any, canned: Any) -> None:
    body = canned.score_reply([{}])
    body["results"][0] |= {"score": -1.0, "flags": ["substituted"]}
    server.script.append(canned.json(body))
    options = {"on_error": {"substitute": -1.0}}
    reply = connect(server.url).score("code", [{}], options=options)
    assert reply.scores == [-1.0]
    assert reply.results[0].status == "error"
    assert server.received[0].body["options"] == options


def test_score_one_returns_the_number(server: Any, connect: Any) -> None:
    assert connect(server.url).score_one("code", {"value": 0.25}) == 0.25


def test_score_one_raises_for_a_failed_item(server: Any, connect: Any) -> None:
    with pytest.raises(ItemFailedError):
        connect(server.url).score_one("code", {"prompt": "p"})


@pytest.mark.parametrize("items", [[], ["text"], [{"value": 1}, None]])
def test_invalid_items_are_refused_without_a_request(items: Any, server: Any, connect: Any) -> None:
    with pytest.raises(ValueError, match="item"):
        connect(server.url).score("code", items)
    assert server.received == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), object(), "half \ud800 of a pair"])
def test_an_item_that_json_cannot_hold_is_named_by_its_place(
    bad: Any, server: Any, connect: Any
) -> None:
    with pytest.raises(ValueError, match=r"items\[1\] cannot be written") as caught:
        connect(server.url).score("code", [{"value": 1}, {"secret": bad}])
    assert "half" not in str(caught.value)
    assert caught.value.__context__ is None
    assert server.received == []


def test_on_error_takes_only_two_values(server: Any, connect: Any) -> None:
    with pytest.raises(ValueError, match="on_error"):
        connect(server.url).score("code", [{"value": 1}], on_error="zero")


def test_a_long_list_is_split_and_its_replies_joined(server: Any, connect: Any) -> None:
    items = [{"id": str(i), "group": f"p{i % 3}", "value": i} for i in range(10)]
    reply = connect(server.url, max_items_per_request=4).score("code", items)
    sizes = [len(received.body["items"]) for received in server.received]
    assert sizes == [4, 3, 3]
    assert reply.scores == [float(i) for i in range(10)]
    assert [result.index for result in reply.results] == list(range(10))
    assert [(group.group, group.n) for group in reply.groups] == [("p0", 4), ("p1", 3), ("p2", 3)]
    assert (reply.usage.items, reply.timing.queue_ms) == (10, 3.0)
    assert len({received.headers["x-request-id"] for received in server.received}) == 1


def test_a_group_is_never_split(server: Any, connect: Any) -> None:
    items = [{"group": "p", "value": i} for i in range(5)]
    with pytest.raises(ValueError, match="a group of 5 items"):
        connect(server.url, max_items_per_request=4).score("code", items)
    assert server.received == []


def test_parts_scored_by_two_models_are_refused(server: Any, connect: Any, canned: Any) -> None:
    other = canned.score_reply([{"value": 2}]) | {"fingerprint": "sha256:bb"}
    server.script.extend([canned.json(canned.score_reply([{"value": 1}])), canned.json(other)])
    with pytest.raises(ProtocolError, match="the model changed"):
        connect(server.url, max_items_per_request=1).score("code", [{"value": 1}, {"value": 2}])


def test_best_of_n_ranks(server: Any, connect: Any) -> None:
    candidates = [{"value": 1}, {"value": 3}, {"response": "no score"}]
    best = connect(server.url).best_of_n(
        "code", candidates, tie_margin=0.1, abstain_below=0.0, prompt="p"
    )
    assert server.received[0].path == "/v1/best-of-n"
    wanted = {"tie_margin": 0.1, "abstain_below": 0.0, "prompt": "p", "model": "code"}
    assert server.received[0].body == {"candidates": candidates, **wanted}
    assert best.best == 1
    assert [ranked.index for ranked in best.ranking] == [1, 0, 2]
    assert best.ranking[2].score is None
    assert best.ties == ((0, 1),)
    assert best.abstained is False
    assert best.results[2].error.code == "input_too_long"


def test_best_of_n_may_abstain(server: Any, connect: Any) -> None:
    best = connect(server.url).best_of_n("code", ["a", "b"], top_n=1)
    assert best.best is None
    assert best.abstained is True
    assert len(best.ranking) == 1


def test_best_of_n_returns_confidences(server: Any, connect: Any, canned: Any) -> None:
    reply = canned.best_reply({"candidates": [{"value": 1}, {"value": 3}]})
    reply["ranking"][0]["confidence"] = 0.75
    server.script.append(canned.json(reply))
    best = connect(server.url).best_of_n("code", [{"value": 1}, {"value": 3}], min_confidence=0.7)
    assert server.received[0].body["min_confidence"] == 0.7
    assert [place.confidence for place in best.ranking] == [0.75, None]


def test_best_of_n_without_candidates_is_refused(server: Any, connect: Any) -> None:
    with pytest.raises(ValueError, match="no candidates"):
        connect(server.url).best_of_n("code", [])


def test_models_are_listed(server: Any, connect: Any) -> None:
    (model,) = connect(server.url).models()
    assert (model.id, model.name, model.version, model.family) == ("code@1", "code", 1, "code")
    assert (model.default, model.state) == (True, "ready")


def test_a_model_has_its_card(server: Any, connect: Any) -> None:
    model = connect(server.url).model("code@1")
    assert model.card["limits"] == {"tokens": 512}
    assert model.default is None


def test_a_model_name_is_encoded_in_the_path(server: Any, connect: Any) -> None:
    with pytest.raises(NotFoundError):
        connect(server.url).model("a/../../healthz?x=1")
    assert server.received[0].path == "/v1/models/a%2F..%2F..%2Fhealthz%3Fx%3D1"


def test_is_ready_and_is_live(server: Any, connect: Any, canned: Any) -> None:
    client = connect(server.url)
    assert client.is_ready() is True
    assert client.is_live() is True
    server.script.append(canned.json({"ready": False, "models": {}}, 503))
    assert client.is_ready() is False
    assert [received.path for received in server.received] == ["/readyz", "/healthz", "/readyz"]


def test_is_ready_is_false_without_a_server(connect: Any, refused_url: str) -> None:
    assert connect(refused_url).is_ready() is False


def test_is_ready_if_one_of_the_servers_is(server: Any, connect: Any, refused_url: str) -> None:
    assert connect([refused_url, server.url]).is_ready() is True


def test_is_ready_raises_for_a_wrong_path(server: Any, connect: Any) -> None:
    with pytest.raises(NotFoundError):
        connect(f"{server.url}/elsewhere").is_ready()


def test_request_sends_any_path(server: Any, connect: Any) -> None:
    response = connect(server.url).request("GET", "/v1/models")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert b"code@1" in response.content
    with pytest.raises(NotFoundError):
        connect(server.url).request("POST", "/v1/nothing", content=b"{}")
    assert server.received[1].body == {}


def test_a_path_prefix_of_the_address_is_kept(server: Any, connect: Any, canned: Any) -> None:
    server.script.append(canned.json(canned.score_reply([{"value": 1}])))
    connect(f"{server.url}/rewards/").score("code", [{"value": 1}])
    assert server.received[0].path == "/rewards/v1/score"
