"""Two servers that share a PostgreSQL database and a Redis: run health is whole at either."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest
from support.postgres import PostgresServer
from support.postgres import running as running_postgres
from support.processes import Server, serving
from support.servers import RedisServer
from support.tiers import only_nightly
from support.webhook_receivers import receiving

COMMITTED_AFTER_SECONDS = 1.0
WAIT_SECONDS = 30.0


@contextmanager
def replicas(url: str, **variables: str) -> Iterator[tuple[Server, Server]]:
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(serving("--port", "0", ASSAY_RUNS=url, **variables))
            for _ in range(2)
        )
        yield first, second


def connect(server: Server) -> httpx2.Client:
    """Return a client whose connections end with each reply."""
    headers = {"connection": "close"}
    return httpx2.Client(base_url=server.url, timeout=60, headers=headers)


def wait_for(condition: Callable[[], bool]) -> None:
    ends, pause = time.monotonic() + WAIT_SECONDS, threading.Event()
    while not condition():
        assert time.monotonic() < ends
        pause.wait(0.05)


def score(client: httpx2.Client, run: str, number: int = 1, step: int | None = None) -> None:
    """Score items of a run; each is another text."""
    items = [{"prompt": "p", "response": f"{time.monotonic_ns()} {n}"} for n in range(number)]
    named = {"id": run} if step is None else {"id": run, "step": step}
    reply = client.post("/v1/score", json={"model": "reference", "items": items, "run": named})
    assert reply.status_code == 200, reply.text


def steps(client: httpx2.Client, run: str) -> dict[int, int]:
    """Return the number of items by step."""
    reply = client.get(f"/v1/runs/{run}/series")
    streams = reply.json().get("streams", []) if reply.status_code == 200 else []
    return {step["step"]: step["items"] for stream in streams for step in stream["steps"]}


def counts(client: httpx2.Client) -> dict[str, float]:
    """Return the server's counts of observations by outcome."""
    lines = client.get("/metrics").text.splitlines()
    prefix = 'assay_run_observations_total{outcome="'
    named = [line.removeprefix(prefix).split('"} ') for line in lines if line.startswith(prefix)]
    return {outcome: float(count) for outcome, count in named}


@pytest.mark.slow
@only_nightly
def test_runs_are_the_same_at_either_server(postgres_url: str, redis_server: RedisServer) -> None:
    with replicas(postgres_url, ASSAY_REDIS_URL=redis_server.url) as (first, second):
        clients = [connect(server) for server in (first, second)]

        def work(client: httpx2.Client) -> None:
            for step in (1, 2):
                for _ in range(5):
                    score(client, "r", 4, step)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(work, clients))
        one, other = clients
        one.post("/v1/runs/r/telemetry", json={"step": 7, "values": {"kl": 0.5}})
        wait_for(lambda: 7 in steps(other, "r"))
        pause = threading.Event()
        pause.wait(1.0)  # what is read of the last step holds for a second
        score(other, "r", 3)
        score(one, "r", 2)
        wait_for(lambda: sum(steps(one, "r").values()) == 85)
        assert steps(one, "r") == {1: 40, 2: 40, 7: 5}
        other.post("/v1/runs/r/gold", json={"step": 7, "source": "tests", "gradient_norm": 1.0})
        wait_for(lambda: "tests" in one.get("/v1/runs/r").text)
        for path in ("", "/r", "/r/health", "/r/series", "/r/chart"):
            replies = [client.get(f"/v1/runs{path}") for client in clients]
            assert replies[0].json() == replies[1].json(), path
        assert one.patch("/v1/runs/r", json={"note": "n", "pinned": True}).status_code == 200
        assert other.get("/v1/runs/r").json()["note"] == "n"
        assert one.delete("/v1/runs/r").status_code == 204
        wait_for(lambda: other.get("/v1/runs/r").status_code == 404)
        pause.wait(2.0)  # the other server has noticed it by then
        assert other.get("/v1/runs").json() == one.get("/v1/runs").json() == {"runs": []}
        assert clients[0].get("/readyz").status_code == 200

        def begins_anew() -> bool:
            score(other, "r")  # what comes within a second of the deletion may belong to it
            return steps(one, "r").keys() == {0}

        wait_for(begins_anew)


@only_nightly
@pytest.mark.slow
def test_a_killed_server_loses_at_most_one_second(postgres_url: str) -> None:
    with replicas(postgres_url) as (first, second):
        with httpx2.Client(base_url=first.url, timeout=60) as client:
            sent: list[tuple[str, float]] = []
            while not sent or sent[-1][1] - sent[0][1] < 3.0:
                run = f"run-{len(sent) // 40}"
                score(client, run, 1, 1)
                sent.append((run, time.monotonic()))
            killed = time.monotonic()
            first.process.send_signal(signal.SIGKILL)
            first.process.wait()
        safe = Counter(run for run, when in sent if when <= killed - COMMITTED_AFTER_SECONDS)
        with httpx2.Client(base_url=second.url, timeout=60) as client:
            stored = {run: sum(steps(client, run).values()) for run in {run for run, _ in sent}}
    total = Counter(run for run, _ in sent)
    assert safe
    assert {run: items for run, items in safe.items() if stored[run] < items} == {}
    assert {run: items for run, items in stored.items() if items > total[run]} == {}


@only_nightly
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT, signal.SIGKILL])
def test_a_database_that_restarts_costs_no_score_and_the_counts_add_up(how: signal.Signals) -> None:
    with running_postgres() as database, replicas(database.new_database()) as (first, second):
        clients = [connect(server) for server in (first, second)]
        sent, stop = [0, 0], threading.Event()

        def work(index: int) -> None:
            while not stop.is_set():
                score(clients[index], "r", 2, sent[index] // 100)
                sent[index] += 2

        pool = ThreadPoolExecutor(2)
        working = [pool.submit(work, index) for index in range(2)]
        pause = threading.Event()
        pause.wait(1.5)
        database.stop(how)
        unread = clients[0].get("/v1/runs")
        assert (unread.status_code, unread.json()["code"]) == (503, "runs_unavailable")
        assert clients[0].get("/readyz").status_code == 200
        pause.wait(2.0)
        database.start()
        pause.wait(1.5)
        stop.set()
        for work_done in working:
            work_done.result()
        wait_for(lambda: sum(steps(clients[0], "r").values()) > 0)
        wait_for(lambda: _is_complete(clients, sent))
        written = sum(counts(client)["written"] for client in clients)
        assert sum(steps(clients[1], "r").values()) == written


def _is_complete(clients: list[httpx2.Client], sent: list[int]) -> bool:
    outcomes = [counts(client) for client in clients]
    return [sum(outcome.values()) for outcome in outcomes] == sent


def processes(server: PostgresServer) -> list[int]:
    """Return the server's process and those of its sessions."""
    assert server.process is not None
    number = server.process.pid
    children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    return [number, *map(int, children)]


@only_nightly
@pytest.mark.slow
def test_a_database_that_hangs_holds_no_request_and_not_the_end_of_the_server() -> None:
    with running_postgres() as database, receiving() as receiver:
        options = {"ASSAY_ALERT_URL": receiver.url, "ASSAY_DRAIN_TIMEOUT": "3"}
        url = database.new_database()
        with serving("--port", "0", ASSAY_RUNS=url, **options) as server, connect(server) as client:
            score(client, "r", 2, 1)
            wait_for(lambda: steps(client, "r") == {1: 2})
            hanging = processes(database)
            try:
                for number in hanging:
                    os.kill(number, signal.SIGSTOP)
                score(client, "r", 2)
                score(client, "r", 2, 2)
                reply = client.get("/v1/runs")
                assert (reply.status_code, reply.json()["code"]) == (503, "runs_unavailable")
                assert client.delete("/v1/runs/r").json()["code"] == "overloaded"
                server.process.send_signal(signal.SIGTERM)
                server.process.wait(60)
            finally:
                for number in hanging:
                    os.kill(number, signal.SIGCONT)


@only_nightly
@pytest.mark.slow
def test_an_alert_is_sent_once_and_by_another_server_if_its_own_is_killed(
    postgres_url: str,
) -> None:
    with receiving() as receiver:
        options = {"ASSAY_ALERT_URL": receiver.url, "ASSAY_EVALUATION_SECONDS": "0.5"}
        with replicas(postgres_url, **options) as servers:
            clients = [connect(server) for server in servers]
            lock_in("first", clients)
            sent = [receiver.next_post()]
            threading.Event().wait(3.0)  # the other server has evaluated the run by then
            # The receiver does not answer: the server that is sending dies before it is done.
            receiver.open.clear()
            lock_in("second", clients[:1])
            while sent[-1].json["data"]["run"] != "second":
                sent.append(receiver.next_post())
            servers[0].process.send_signal(signal.SIGKILL)
            servers[0].process.wait()
            receiver.open.set()
            held = sent.pop().headers["webhook-id"]
            while not sent or sent[-1].headers["webhook-id"] != held:
                sent.append(receiver.inbox.get(timeout=60))
            assert len({post.headers["webhook-id"] for post in sent}) == len(sent)


def lock_in(run: str, clients: list[httpx2.Client]) -> None:
    """Score eight steps of a run whose policy makes the same number of calls from the sixth on."""
    for step in range(8):
        for number, client in enumerate(clients):
            calls = [n % 4 for n in range(128)] if step < 6 else [3] * 128
            items = [
                {"prompt": "p", "response": f"{number} {n}", "calls": count, "response_tokens": 9}
                for n, count in enumerate(calls)
            ]
            named = {"id": run, "step": step}
            body = {"model": "reference", "items": items, "run": named}
            assert client.post("/v1/score", json=body).status_code == 200
