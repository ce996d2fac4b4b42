"""Malformed replies: each is refused with the place of the fault, and no number of it is used."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from assay_client import Advice, Interval, ProtocolError, RuleProgress
from assay_client._transport.health import read_health
from assay_client._transport.replies import read_best_of_n, read_models, read_score

ITEMS = [{"id": "a", "value": 1.5}, {"value": 2.5}]
FAILED = {"status": "error", "score": None, "error": {"code": "c", "detail": "d"}}
Break = Callable[[dict[str, Any]], object]


def _set(*path: Any, to: Any) -> Break:
    def change(reply: dict[str, Any]) -> None:
        place: Any = reply
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to

    return change


def _drop(*path: Any) -> Break:
    def change(reply: dict[str, Any]) -> None:
        place: Any = reply
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]

    return change


BROKEN = {
    "too few results": (_drop("results", 1), "1 results for 2 items"),
    "too many": (lambda reply: reply["results"].append(reply["results"][0]), "3 results for 2"),
    "none": (_set("results", to=[]), "0 results"),
    "no list": (_set("results", to={}), "results should be a list, is an object"),
    "out of order": (lambda reply: reply["results"].reverse(), "item 1 in place 0"),
    "one twice": (_set("results", 1, "index", to=0), "item 0 in place 1"),
    "another's id": (_set("results", 0, "id", to="b"), "another item's id"),
    "no id": (_drop("results", 0, "id"), "another item's id"),
    "no index": (_drop("results", 0, "index"), r"results\[0\].index is missing"),
    "no score": (_drop("results", 0, "score"), r"results\[0\].score is missing"),
    "null score": (_set("results", 0, "score", to=None), "finite number, is null"),
    "text score": (_set("results", 0, "score", to="1.5"), "finite number, is a string"),
    "boolean score": (_set("results", 0, "score", to=True), "finite number, is a boolean"),
    "vast score": (_set("results", 0, "score", to=10**400), "finite number, is a number"),
    "text channel": (_set("results", 0, "channels", to={"r": "x"}), r"channels.r should be"),
    "no raw": (_drop("results", 0, "raw"), "raw is missing"),
    "text raw": (_set("results", 0, "raw", to="x"), "raw should be"),
    "no flags": (_drop("results", 0, "flags"), "flags is missing"),
    "odd flags": (_set("results", 0, "flags", to=[1]), "flags should be a list of strings"),
    "no source": (_drop("results", 0, "source"), "source is missing"),
    "odd status": (_set("results", 0, "status", to="fine"), "neither ok nor error"),
    "no status": (_drop("results", 0, "status"), "status is missing"),
    "error unsaid": (_set("results", 0, "status", to="error"), "although it could not"),
    "error without reason": (
        lambda reply: reply["results"][0].update(FAILED, error=None),
        "error should be an object, is null",
    ),
    "half a reason": (
        lambda reply: reply["results"][0].update(FAILED, error={"code": "c"}),
        "error.detail is missing",
    ),
    "no fingerprint": (_drop("fingerprint"), "reply.fingerprint is missing"),
    "no model": (_drop("model"), "reply.model is missing"),
    "number for model": (_set("model", to=1), "model should be a string, is a number"),
    "no usage": (_drop("usage"), "usage is missing"),
    "half a usage": (_drop("usage", "tokens"), "usage.tokens is missing"),
    "negative usage": (_set("usage", "tokens", to=-1), "whole number"),
    "no timing": (_drop("timing"), "timing is missing"),
    "odd groups": (_set("groups", to=[{"group": "p"}]), r"groups\[0\].n is missing"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_reply_is_refused_with_its_place(name: str, canned: Any) -> None:
    spoil, reason = BROKEN[name]
    reply = canned.score_reply(ITEMS)
    spoil(reply)
    with pytest.raises(ProtocolError, match=reason):
        read_score(json.dumps(reply).encode(), "code", ITEMS)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999"])
@pytest.mark.parametrize("place", ["score", "details"])
def test_a_number_that_is_not_finite_is_refused(number: str, place: str, canned: Any) -> None:
    reply = canned.score_reply(ITEMS)
    reply["results"][1][place] = {"deep": ["HERE"]} if place == "details" else "HERE"
    body = json.dumps(reply).replace('"HERE"', number).encode()
    with pytest.raises(ProtocolError, match="finite"):
        read_score(body, "code", ITEMS)


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"3", b'"text"', b'{"id": "x"', b"\xff\xfe", b"[" * 100_000]
)
def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        read_score(body, "code", ITEMS)
    assert caught.value.__context__ is None  # a decoding error would hold the body


def test_a_malformed_reply_raises_a_protocol_error_without_a_retry(
    server: Any, connect: Any, canned: Any
) -> None:
    reply = canned.score_reply(ITEMS)
    reply["results"][0]["score"] = float("nan")
    server.script.append(canned.json(reply))
    with pytest.raises(ProtocolError, match="finite"):
        connect(server.url).score("code", ITEMS, on_error="none")
    assert len(server.received) == 1


def test_unknown_fields_of_a_newer_server_are_ignored(canned: Any) -> None:
    reply = canned.score_reply(ITEMS) | {"mood": "good"}
    reply["results"][0]["colour"] = "green"
    reply["timing"]["think_ms"] = 1
    assert read_score(json.dumps(reply).encode(), "code", ITEMS).scores == [1.5, 2.5]


def test_optional_fields_may_be_missing(canned: Any) -> None:
    reply = canned.score_reply(ITEMS)
    for name in ("rule", "failed"):
        del reply["usage"][name]
    del reply["groups"]
    reply["results"][1] = {"index": 1, **FAILED}
    read = read_score(json.dumps(reply).encode(), "code", ITEMS)
    assert read.scores == [1.5, None]
    assert (read.groups, read.usage.failed, read.results[1].channels) == ((), 0, {})


CANDIDATES = [{"value": 1.0}, {"value": 3.0}, {}]
BROKEN_RANKINGS = {
    "one twice": (_set("ranking", 2, "index", to=0), "twice"),
    "one unknown": (_set("ranking", 2, "index", to=3), "not sent"),
    "one missing": (_drop("ranking", 2), "ranking of 2 for 3"),
    "another score": (_set("ranking", 0, "score", to=9.0), "not those of its results"),
    "best unknown": (_set("best", to=3), "best candidate"),
    "best failed": (_set("best", to=2), "best candidate"),
    "odd tie": (_set("ties", to=[["a"]]), "ties"),
    "odd ties": (_set("ties", to=[1]), "ties"),
    "no ties": (_drop("ties"), "ties is missing"),
    "no abstained": (_drop("abstained"), "abstained is missing"),
    "a result missing": (_drop("results", 2), "2 results for 3"),
}


def _ranking(canned: Any) -> dict[str, Any]:
    reply = canned.score_reply(CANDIDATES)
    places = [
        {"index": 1, "score": 3.0, "margin": 2.0},
        {"index": 0, "score": 1.0, "margin": None},
        {"index": 2, "score": None, "margin": None},
    ]
    return {**reply, "ranking": places, "best": 1, "ties": [], "abstained": False}


@pytest.mark.parametrize("name", BROKEN_RANKINGS)
def test_a_malformed_ranking_is_refused_with_its_place(name: str, canned: Any) -> None:
    spoil, reason = BROKEN_RANKINGS[name]
    reply = _ranking(canned)
    spoil(reply)
    with pytest.raises(ProtocolError, match=reason):
        read_best_of_n(json.dumps(reply).encode(), "code", CANDIDATES, complete=True)


def test_a_ranking_may_be_limited_by_top_n(canned: Any) -> None:
    reply = _ranking(canned)
    del reply["ranking"][1:]
    best = read_best_of_n(json.dumps(reply).encode(), "code", CANDIDATES, complete=False)
    assert [ranked.index for ranked in best.ranking] == [1]
    assert best.ranking[0].margin == 2.0


def test_a_substitute_has_no_rank(canned: Any) -> None:
    reply = _ranking(canned)
    reply["results"][2] |= {"score": 7.0, "flags": ["substituted"]}
    best = read_best_of_n(json.dumps(reply).encode(), "code", CANDIDATES, complete=True)
    assert best.best == 1
    assert best.ranking[2].score is None
    reply["best"] = 2
    with pytest.raises(ProtocolError, match="best"):
        read_best_of_n(json.dumps(reply).encode(), "code", CANDIDATES, complete=True)


def test_a_model_without_a_name_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"models\[0\].name is missing"):
        read_models(b'{"models": [{"id": "code@1"}]}')


BROKEN_HEALTH = {
    "no run": (_drop("run"), "run is missing"),
    "odd status": (_set("status", to=3), "status should be a string"),
    "odd severity": (_set("streams", 0, "rules", 0, "severity", to=3), "severity should be a"),
    "odd state": (_set("streams", 0, "rules", 0, "state", to=3), "state should be a"),
    "no rules": (_drop("streams", 0, "rules"), "rules is missing"),
    "no limit": (_drop("streams", 0, "rules", 0, "limits"), "limits is missing"),
    "odd peak": (_set("streams", 0, "channels", "score", "peak", to=None), "peak should be"),
    "no points": (_set("gold", 0, "points", to={}), "points should be a list"),
    "no interval": (_drop("gold", 0, "points", 0, "loss", "low"), "low is missing"),
}


@pytest.mark.parametrize("name", BROKEN_HEALTH)
def test_a_malformed_run_health_is_refused_with_its_place(name: str, canned: Any) -> None:
    spoil, reason = BROKEN_HEALTH[name]
    reply = copy.deepcopy(canned.health)
    spoil(reply)
    with pytest.raises(ProtocolError, match=reason):
        read_health(json.dumps(reply).encode())


def test_run_health_is_parsed(connect: Any, server: Any) -> None:
    health = connect(server.url).run_health("team/exp-17")
    assert (health.run, health.status) == ("team/exp-17", "critical")
    (stream,) = health.streams
    firing, silent = stream.rules
    assert health.firing == (firing,)
    assert (firing.severity, firing.since_step, firing.value, firing.threshold) == (
        "critical", 3, 0.5, 0.2,
    )  # fmt: skip
    assert (silent.severity, silent.since_step, silent.value) == (None, None, None)
    assert (firing.state, silent.state, silent.progress) == (
        "fired", "waiting", RuleProgress(3, 6, "steps"),
    )  # fmt: skip
    assert stream.channels["score"].peak_step == 1
    (gold,) = health.gold
    assert gold.points[0].accuracy == Interval(0.5, 0.25, 0.75, 200)
    assert gold.points[0].rank is None
    assert gold.advice == Advice(200, "stop", ("drawdown",), None)


def test_record_telemetry_sends_finite_numbers_only(connect: Any, server: Any) -> None:
    assert connect(server.url).record_telemetry("team/exp-17", 3, {"kl": 0.5}) is None
    assert server.received[0].body == {"step": 3, "values": {"kl": 0.5}}
    with pytest.raises(ValueError, match=r"values\[kl\] cannot be written"):
        connect(server.url).record_telemetry(
            "team/exp-17", 3, {"entropy_nats": 1.0, "kl": float("nan")}
        )


def test_states_of_a_newer_server_are_passed_on(canned: Any) -> None:
    reply = copy.deepcopy(canned.health) | {"status": "waiting"}
    reply["streams"][0]["rules"][0] |= {"severity": "notice", "state": "paused"}
    health = read_health(json.dumps(reply).encode())
    assert (health.status, health.firing[0].severity) == ("waiting", "notice")
