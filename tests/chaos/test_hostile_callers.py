"""Hostile callers of a real server with two keys: the other caller is served meanwhile."""

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from support.processes import Server, serving

pytestmark = pytest.mark.slow

HONEST, HOSTILE = "honest-" + "h" * 32, "hostile-" + "x" * 32
MODEL = "nli-small"
TOWN = ["The town has a church."]
MIB = 1 << 20
SMALL = {"premise": TOWN[0], "hypothesis": "The town has a church."}
HOSTILE_ITEMS: dict[str, list[dict[str, Any]]] = {
    "name prefixes": [{"evidence": TOWN, "response": "We saw St. " * 9_000}],
    "claims and passages": [
        {
            "evidence": [f"Town {place} has a church." for place in range(4)],
            "claims": [f"Town {claim} of {item} has a church." for claim in range(1024)],
        }
        for item in range(20)
    ],
    "long texts": [{"premise": "word " * 799_000, "hypothesis": str(item)} for item in range(4)],
    "many sentences": [{"evidence": TOWN, "response": "The town has one. " * 60_000}],
}


def keys_file(folder: Path) -> Path:
    """Write the file of both keys."""
    file = folder / "keys.toml"
    tables = [
        f"[{key.partition('-')[0]}]\nscopes = ['score', 'read', 'record']\n"
        f"sha256 = '{hashlib.sha256(key.encode()).hexdigest()}'\n"
        for key in (HONEST, HOSTILE)
    ]
    file.write_text("".join(tables))
    return file


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hostile")
    with serving(
        *("--port", "0"),
        ASSAY_MODELS=MODEL,
        ASSAY_API_KEYS_FILE=str(keys_file(folder)),
        ASSAY_RUNS=str(folder / "runs.db"),
    ) as server:
        yield server


def client(server: Server, key: str) -> httpx2.Client:
    return httpx2.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=100
    )


def score(of: httpx2.Client, items: list[dict[str, Any]], **headers: str) -> httpx2.Response:
    return of.post("/v1/score", json={"model": MODEL, "items": items}, headers=headers)


def prepare_bytes(of: httpx2.Client) -> float:
    """Return the bytes of the requests that the server is preparing."""
    lines = of.get("/metrics").text.splitlines()
    (waiting,) = [line for line in lines if line.startswith("assay_prepare_bytes ")]
    return float(waiting.split()[1])


def resident_bytes(server: Server) -> int:
    memory: int = psutil.Process(server.process.pid).memory_info().rss
    return memory


@pytest.mark.parametrize("kind", HOSTILE_ITEMS)
def test_a_small_request_is_answered_while_a_hostile_one_is_prepared(
    kind: str, server: Server
) -> None:
    """Answer the other caller until the hostile request is dropped at its deadline, or refused."""
    statuses: list[int] = []

    def attack() -> None:
        with client(server, HOSTILE) as hostile:
            headers = {"X-Assay-Timeout-Ms": "20000"}
            statuses.append(score(hostile, HOSTILE_ITEMS[kind], **headers).status_code)

    attacks = [threading.Thread(target=attack) for _ in range(2)]
    for thread in attacks:
        thread.start()
    answered = 0
    with client(server, HONEST) as honest:
        while answered == 0 or any(thread.is_alive() for thread in attacks):
            headers = {"X-Assay-Priority": "interactive", "X-Assay-Timeout-Ms": "15000"}
            item = {**SMALL, "hypothesis": f"Town {kind} {answered} has a church."}
            reply = score(honest, [item], **headers)
            assert (reply.status_code, reply.json()["results"][0]["status"]) == (200, "ok")
            answered += 1
    assert len(statuses) == 2
    assert set(statuses) <= {200, 413, 504}


def test_a_hostile_request_that_is_left_keeps_no_place(server: Server) -> None:
    with client(server, HOSTILE) as hostile:
        hostile.timeout = httpx2.Timeout(1.0)
        with pytest.raises(httpx2.ReadTimeout):
            score(hostile, HOSTILE_ITEMS["claims and passages"])
    with client(server, HONEST) as honest:
        assert score(honest, [SMALL]).status_code == 200
        while prepare_bytes(honest) > 0:  # the test's own time limit bounds it
            assert score(honest, [SMALL]).status_code == 200


def test_new_runs_of_another_key_push_out_no_run(server: Server) -> None:
    telemetry = {"step": 1, "values": {"entropy": 1.0}}
    with client(server, HONEST) as honest, client(server, HOSTILE) as hostile:
        assert honest.post("/v1/runs/victim/telemetry", json=telemetry).status_code == 200
        statuses = [
            hostile.post(f"/v1/runs/evil-{number}/telemetry", json=telemetry).status_code
            for number in range(300)
        ]
        assert set(statuses) == {200, 409}
        foreign = hostile.post("/v1/runs/victim/telemetry", json=telemetry)
        assert foreign.status_code == 403
        assert hostile.delete("/v1/runs/victim").status_code == 403
        assert honest.get("/v1/runs/victim/health").status_code == 200


def test_streams_and_gold_without_end_are_bounded_in_replies(server: Server) -> None:
    items = [{"prompt": "p", "proxy": 0.1, "gold": 0.2}, {"prompt": "p", "proxy": 0.3, "gold": 0.1}]
    with client(server, HOSTILE) as hostile:
        for number in range(400):
            run = {"id": "evil-0", "step": 1, "split": f"s{number}"}
            body = {"model": MODEL, "items": [SMALL], "run": run}
            assert hostile.post("/v1/score", json=body).status_code == 200
            gold = {"step": 1, "source": f"g{number}", "items": items}
            assert hostile.post("/v1/runs/evil-0/gold", json=gold).status_code in (200, 409)
        for report in ("health", "series", "chart"):
            reply = hostile.get(f"/v1/runs/evil-0/{report}")
            assert reply.status_code == 200
            assert len(reply.content) < MIB


def test_jobs_that_are_never_fetched_are_bounded_in_bytes(server: Server) -> None:
    body = {"response": "x" * (2 * MIB), "rollout_id": "1"}
    statuses = []
    before = resident_bytes(server)
    with client(server, HOSTILE) as hostile:
        for number in range(100):
            body["prompt"] = f"{number} " + "y" * (2 * MIB)
            path = f"/compat/roll/{MODEL}/submit"
            statuses.append(hostile.post(path, json=body).status_code)
    with client(server, HONEST) as honest:
        assert score(honest, [SMALL]).status_code == 200
    assert set(statuses) <= {200, 413, 429}
    assert resident_bytes(server) - before < 512 * MIB
