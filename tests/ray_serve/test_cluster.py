"""Assay on a real cluster of Ray, behind either of Serve's proxies."""

import json
import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from support.ray_load import steady_load
from support.tiers import only_nightly

from assay_client import Client, NotFoundError
from benchmarks.ray_cluster import Cluster

pytestmark = [only_nightly, pytest.mark.timeout(900)]

ITEM = {"id": "a", "group": "g", "prompt": "sort a list", "response": "sort it"}
BODY = {"model": "reference", "items": [ITEM], "options": {"raw": True}}
VARYING = {"id", "timing", "request_id"}


logger = logging.getLogger(__name__)


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    """Ask again every half second until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the cluster did not get there"
        time.sleep(0.5)


def post(cluster: Cluster, body: Any, path: str = "/v1/score", **headers: str) -> httpx2.Response:
    return httpx2.post(cluster.url + path, json=body, headers=headers, timeout=60)


def constant(document: str) -> Any:
    """Return the JSON without what differs between two equal requests."""
    value = json.loads(document)
    return {name: part for name, part in value.items() if name not in VARYING}


def test_the_candidates_of_a_prompt_are_scored_by_one_replica(cluster: Cluster) -> None:
    cluster.do("deploy", replicas=2)
    sources: dict[str, Counter[str]] = {}
    with Client(cluster.url) as client:
        for prompt in (f"prompt {number}" for number in range(16)):
            replies = [
                client.score("reference", [{"prompt": prompt, "response": "the same"}])
                for _ in range(8)
            ]
            sources[prompt] = Counter(str(reply.results[0].source) for reply in replies)
    # A replica's cache is its own: a second replica would have computed the item again.
    assert set(map(str, sources.values())) == {str(Counter(cache=7, computed=1))}


def test_sessions_are_spread_over_the_replicas(cluster: Cluster) -> None:
    cluster.do("deploy", replicas=2)
    replies = [post(cluster, BODY, **{"X-Session-ID": f"{n:016x}"}).json() for n in range(40)]
    # Each replica computes the item once, and has it in its cache from then on.
    assert Counter(reply["usage"]["computed"] for reply in replies) == {1: 2, 0: 38}


def test_a_call_by_handle_equals_one_over_http(cluster: Cluster) -> None:
    cluster.do("deploy", replicas=1)
    bad = {**BODY, "items": [{**ITEM, "response": None}, ITEM]}
    bodies: list[object] = [BODY, bad, {**BODY, "model": "absent"}, {**BODY, "unknown": 1}, []]
    for body in bodies:
        text = json.dumps(body)
        cluster.do("call", method="POST", path="/v1/score", body=text)  # both find it cached
        status, headers, content = cluster.do("call", method="POST", path="/v1/score", body=text)
        reply = post(cluster, body)
        assert reply.status_code == status
        assert constant(reply.text) == constant(content)
        assert reply.headers["content-type"] == headers["content-type"]


def test_the_client_by_handle_returns_what_the_client_over_http_does(cluster: Cluster) -> None:
    cluster.do("deploy", replicas=1)
    arguments = {"model": "reference", "items": [ITEM, {**ITEM, "response": "list"}]}
    by_handle = cluster.do("client", name="score", arguments=arguments, options={})
    with Client(cluster.url) as client:
        reply = client.score("reference", arguments["items"])
    assert [result["score"] for result in by_handle["results"]] == list(reply.scores)
    assert by_handle["fingerprint"] == reply.fingerprint


def test_the_client_by_handle_raises_the_errors_of_the_client_over_http(cluster: Cluster) -> None:
    cluster.do("deploy", replicas=1)
    absent = {"model": "absent", "items": [ITEM]}
    with Client(cluster.url, max_retries=0) as client, pytest.raises(NotFoundError) as raised:
        client.score("absent", [ITEM])
    answer = cluster.do("client", name="score", arguments=absent, options={"max_retries": 0})
    assert answer == {"error": type(raised.value).__name__, "text": raised.value.message}
    nowhere = {"application": "nowhere", "max_retries": 0}
    answer = cluster.do("client", name="score", arguments=absent, options=nowhere)
    assert answer["error"] == "APIConnectionError"


def test_errors_are_problem_details_with_one_request_id(cluster: Cluster) -> None:
    cluster.do("deploy", replicas=1)
    reply = post(cluster, {**BODY, "model": "absent"}, **{"X-Request-ID": "mine-1"})
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "application/problem+json"
    assert set(reply.headers.get_list("x-request-id")) == {"mine-1"}
    assert reply.json()["request_id"] == "mine-1"
    with Client(cluster.url) as client:
        response = client.request("GET", "/version")
    assert "," not in response.headers["x-request-id"]


def test_a_redeployment_under_load_loses_no_request(cluster: Cluster) -> None:
    cluster.do("deploy", replicas=2)
    before = set(cluster.replicas().values())
    with steady_load(cluster.url, threads=4, max_retries=0) as load:
        load.wait_for_more(50)
        cluster.do("deploy", replicas=2, variables={"ASSAY_CACHE_BYTES": "1000000"})
        wait_until(lambda: len(cluster.replicas()) == 2)
        assert not before & set(cluster.replicas().values())
        load.wait_for_more(50)
        wait_until(lambda: not any(map(is_alive, before)))
        load.wait_for_more(50)
    logger.warning("redeployment: %d scored, %d failed", load.scored, len(load.failures))
    assert [error.message for error in load.failures] == []


def test_a_killed_replica_costs_only_requests_in_flight(cluster: Cluster) -> None:
    cluster.do("deploy", replicas=2)
    before = cluster.replicas()
    victim = next(iter(before))
    with (
        steady_load(cluster.url, threads=4, max_retries=0, items=16, name="once") as once,
        steady_load(cluster.url, threads=4, max_retries=4, items=16, name="again") as again,
    ):
        once.wait_for_more(20)
        os.kill(before[victim], signal.SIGKILL)
        wait_until(lambda: len(cluster.replicas().keys() - {victim}) == 2)
        once.wait_for_more(20)
        again.wait_for_more(20)
    for name, load in (("without retries", once), ("with retries", again)):
        logger.warning("kill, %s: %d scored, %d failed", name, load.scored, len(load.failures))
    logger.warning("their errors: %s", {error.message[:200] for error in once.failures})
    assert len(once.failures) <= 4  # one in flight for each thread
    assert [error.message for error in again.failures] == []


def test_replicas_follow_the_waiting_tokens(cluster: Cluster) -> None:
    policy = {
        "policy_function": "assay_ray.autoscaling:QueueTokensPolicy",
        "policy_kwargs": {"tokens_per_replica": 1000},
    }
    delays = {"upscale_delay_s": 1, "downscale_delay_s": 3, "look_back_period_s": 1.5}
    bounds = {"min_replicas": 1, "max_replicas": 3}
    cluster.do("deploy", autoscaling={**bounds, **delays, "policy": policy})
    wait_until(lambda: len(cluster.replicas()) == 1)
    with steady_load(cluster.url, threads=6, max_retries=4, items=64) as load:
        wait_until(lambda: len(cluster.replicas()) == 3)
        load.wait_for_more(6)
    wait_until(lambda: len(cluster.replicas()) == 1)
    assert load.failures == []


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
