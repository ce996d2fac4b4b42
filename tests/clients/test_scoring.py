"""What the calls send and return when all is well, and what becomes of items without a score."""

from typing import Any

import pytest

from assay_client import ItemFailedError, NotFoundError, ProtocolError, Result


def test_score_sends_the_request_as_the_wire_wants_it(server: Any, connect: Any) -> None:
    items = [{"id": "a", "prompt": "sort ü", "value": 2.5}]
    options, run = {"truncation": "left"}, {"id": "exp-1", "step": 3}
    connect(server.url).score("code@1", items, options=options, run=run)
    (seen,) = server.seen
    assert (seen.method, seen.path) == ("POST", "/v1/score")
    assert seen.body == {"model": "code@1", "items": items, "options": options, "run": run}
    assert seen.headers["content-type"] == "application/json"
    assert 59_000 < int(seen.headers["x-assay-timeout-ms"]) <= 60_000


def test_what_is_not_chosen_is_not_sent(server: Any, connect: Any) -> None:
    connect(server.url).score("code", [{"value": 1}])
    assert set(server.seen[0].body) == {"model", "items"}


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


def test_an_item_without_a_score_raises_with_the_whole_reply(server: Any, connect: Any) -> None:
    items = [{"value": 1}, {"id": "long"}, {}]
    with pytest.raises(ItemFailedError, match=r"item 1 .* input_too_long: shorten it") as caught:
        connect(server.url).score("code", items)
    error = caught.value
    assert (error.index, error.code, error.detail) == (1, "input_too_long", "shorten it")
    assert [result.index for result in error.failed] == [1, 2]
    assert error.reply.scores == [1.0, None, None]
    assert error.request_id == server.seen[0].headers["x-request-id"]


def test_on_error_none_leaves_the_place_empty(server: Any, connect: Any) -> None:
    reply = connect(server.url).score("code", [{"value": 0.0}, {}], on_error="none")
    assert reply.scores == [0.0, None]
    assert reply.failed == (reply.results[1],)
    assert reply.results[1].error.code == "input_too_long"


def test_a_substitute_comes_from_the_server_alone(server: Any, connect: Any, say: Any) -> None:
    body = say.score_reply([{}])
    body["results"][0] |= {"score": -1.0, "flags": ["substituted"]}
    server.script.append(say.json(body))
    options = {"on_error": {"substitute": -1.0}}
    reply = connect(server.url).score("code", [{}], options=options)
    assert reply.scores == [-1.0]
    assert reply.results[0].status == "error"
    assert server.seen[0].body["options"] == options


def test_score_one_is_the_number(server: Any, connect: Any) -> None:
    assert connect(server.url).score_one("code", {"value": 0.25}) == 0.25


def test_score_one_has_no_number_for_a_failed_item(server: Any, connect: Any) -> None:
    with pytest.raises(ItemFailedError):
        connect(server.url).score_one("code", {"prompt": "p"})


@pytest.mark.parametrize("items", [[], ["text"], [{"value": 1}, None]])
def test_items_that_are_none_are_refused_here(items: Any, server: Any, connect: Any) -> None:
    with pytest.raises(ValueError, match="item"):
        connect(server.url).score("code", items)
    assert server.seen == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), object(), "half \ud800 of a pair"])
def test_what_json_cannot_hold_is_named_by_place(bad: Any, server: Any, connect: Any) -> None:
    with pytest.raises(ValueError, match=r"items\[1\] cannot be written") as caught:
        connect(server.url).score("code", [{"value": 1}, {"secret": bad}])
    assert "half" not in str(caught.value)
    assert caught.value.__context__ is None
    assert server.seen == []


def test_on_error_takes_two_words(server: Any, connect: Any) -> None:
    with pytest.raises(ValueError, match="on_error"):
        connect(server.url).score("code", [{"value": 1}], on_error="zero")


def test_long_lists_go_in_parts_and_come_back_whole(server: Any, connect: Any) -> None:
    items = [{"id": str(i), "group": f"p{i % 3}", "value": i} for i in range(10)]
    reply = connect(server.url, max_items_per_request=4).score("code", items)
    sizes = [len(seen.body["items"]) for seen in server.seen]
    assert sizes == [4, 3, 3]
    assert reply.scores == [float(i) for i in range(10)]
    assert [result.index for result in reply.results] == list(range(10))
    assert [(group.group, group.n) for group in reply.groups] == [("p0", 4), ("p1", 3), ("p2", 3)]
    assert (reply.usage.items, reply.timing.queue_ms) == (10, 3.0)
    assert len({seen.headers["x-request-id"] for seen in server.seen}) == 1


def test_a_group_is_never_cut(server: Any, connect: Any) -> None:
    items = [{"group": "p", "value": i} for i in range(5)]
    with pytest.raises(ValueError, match="a group of 5 items"):
        connect(server.url, max_items_per_request=4).score("code", items)
    assert server.seen == []


def test_parts_scored_by_two_models_are_refused(server: Any, connect: Any, say: Any) -> None:
    other = say.score_reply([{"value": 2}]) | {"fingerprint": "sha256:bb"}
    server.script.extend([say.json(say.score_reply([{"value": 1}])), say.json(other)])
    with pytest.raises(ProtocolError, match="the model changed"):
        connect(server.url, max_items_per_request=1).score("code", [{"value": 1}, {"value": 2}])


def test_best_of_n_ranks(server: Any, connect: Any) -> None:
    candidates = [{"value": 1}, {"value": 3}, {"response": "no score"}]
    best = connect(server.url).best_of_n(
        "code", candidates, tie_margin=0.1, abstain_below=0.0, prompt="p"
    )
    assert server.seen[0].path == "/v1/best-of-n"
    wanted = {"tie_margin": 0.1, "abstain_below": 0.0, "prompt": "p", "model": "code"}
    assert server.seen[0].body == {"candidates": candidates, **wanted}
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


def test_best_of_n_tells_how_sure_it_is(server: Any, connect: Any, say: Any) -> None:
    reply = say.best_reply({"candidates": [{"value": 1}, {"value": 3}]})
    reply["ranking"][0]["confidence"] = 0.75
    server.script.append(say.json(reply))
    best = connect(server.url).best_of_n("code", [{"value": 1}, {"value": 3}], min_confidence=0.7)
    assert server.seen[0].body["min_confidence"] == 0.7
    assert [place.confidence for place in best.ranking] == [0.75, None]


def test_best_of_n_wants_candidates(server: Any, connect: Any) -> None:
    with pytest.raises(ValueError, match="no candidates"):
        connect(server.url).best_of_n("code", [])


def test_models_are_listed(server: Any, connect: Any) -> None:
    (model,) = connect(server.url).models()
    assert (model.id, model.name, model.version, model.family) == ("code@1", "code", 1, "code")
    assert (model.default, model.state) == (True, "ready")


def test_a_model_brings_its_card(server: Any, connect: Any) -> None:
    model = connect(server.url).model("code@1")
    assert model.card["limits"] == {"tokens": 512}
    assert model.default is None


def test_a_name_cannot_leave_its_place_in_the_path(server: Any, connect: Any) -> None:
    with pytest.raises(NotFoundError):
        connect(server.url).model("a/../../healthz?x=1")
    assert server.seen[0].path == "/v1/models/a%2F..%2F..%2Fhealthz%3Fx%3D1"


def test_ready_and_healthy(server: Any, connect: Any, say: Any) -> None:
    client = connect(server.url)
    assert client.ready() is True
    assert client.healthy() is True
    server.script.append(say.json({"ready": False, "models": {}}, 503))
    assert client.ready() is False
    assert [seen.path for seen in server.seen] == ["/readyz", "/healthz", "/readyz"]


def test_not_ready_where_nobody_answers(connect: Any, refused_url: str) -> None:
    assert connect(refused_url).ready() is False


def test_ready_if_one_of_the_servers_is(server: Any, connect: Any, refused_url: str) -> None:
    assert connect([refused_url, server.url]).ready() is True


def test_ready_does_not_hide_that_the_path_is_wrong(server: Any, connect: Any) -> None:
    with pytest.raises(NotFoundError):
        connect(f"{server.url}/elsewhere").ready()


def test_a_prefix_of_the_address_is_kept(server: Any, connect: Any, say: Any) -> None:
    server.script.append(say.json(say.score_reply([{"value": 1}])))
    connect(f"{server.url}/rewards/").score("code", [{"value": 1}])
    assert server.seen[0].path == "/rewards/v1/score"
