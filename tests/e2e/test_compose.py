"""Tests of running Compose services: scores, restarts, confinement, shutdown."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest
from support.servers import free_port

from .stack import Stack, example_of, run

pytestmark = pytest.mark.skipif(
    os.environ.get("ASSAY_E2E") != "1",
    reason="builds an image and starts containers: set ASSAY_E2E=1, or run `make e2e`",
)

IMAGE = "assay:e2e"
PAIR = {"prompt": "one two three four", "response": "four one"}
WORKLOAD = 1000


@pytest.fixture(autouse=True)
def running_services(request: pytest.FixtureRequest) -> None:
    """Services that are all running, also after a test that stopped some."""
    request.getfixturevalue("stack").up()


def test_every_model_gives_the_score_on_its_card(stack: Stack) -> None:
    results = stack.examples()
    assert len(results) == len(stack.cards)
    for card in stack.cards:
        assert card.example is not None
        assert results[card.id]["status"] == "ok"
        assert results[card.id]["score"] == pytest.approx(
            card.example.score, abs=card.example.tolerance
        )


def test_a_restarted_server_answers_from_redis(stack: Stack) -> None:
    stack.restart("redis", "assay")
    first = stack.examples()
    second = stack.examples()
    stack.restart("assay")
    third = stack.examples()
    assert {result["source"] for result in first.values()} == {"computed"}
    assert {result["source"] for result in second.values()} == {"cache"}
    assert {result["source"] for result in third.values()} == {"cache"}
    assert _scores(first) == _scores(second) == _scores(third)


def test_scores_outlive_redis(stack: Stack) -> None:
    before = stack.examples()
    stack.compose("stop", "redis")
    without = stack.examples()
    fresh = stack.score("reference", [{"prompt": "five six", "response": "six"}])
    stack.restart("redis", "assay")
    after = stack.examples()
    assert fresh[0]["status"] == "ok"
    assert {result["source"] for result in after.values()} == {"computed"}
    assert _scores(before) == _scores(without) == _scores(after)


def test_the_server_runs_without_rights(stack: Stack) -> None:
    assert stack.inside("assay", "id", "-u").stdout.strip() == "10001"
    refused = stack.inside("assay", "touch", "/written")
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr
    assert stack.inside("assay", "touch", "/tmp/written").returncode == 0
    status = stack.inside("assay", "cat", "/proc/1/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"


def test_redis_runs_without_rights(stack: Stack) -> None:
    assert stack.inside("redis", "id", "-u").stdout.strip() == "999"
    assert "Read-only file system" in stack.inside("redis", "touch", "/written").stderr
    policy = stack.inside("redis", "redis-cli", "config", "get", "maxmemory-policy").stdout
    assert policy.split() == ["maxmemory-policy", "allkeys-lru"]
    assert stack.inside("redis", "redis-cli", "config", "get", "save").stdout.strip() == "save"


def test_only_the_server_can_be_reached_and_from_this_host_alone(stack: Stack) -> None:
    published = stack.inspect("assay")["NetworkSettings"]["Ports"]
    assert published == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(stack.port)}]}
    ports = stack.inspect("redis")["NetworkSettings"]["Ports"]
    assert [binding for binding in ports.values() if binding] == []


def test_only_runs_are_stored_in_a_volume(stack: Stack) -> None:
    for service, folders in (("assay", ["/var/lib/assay"]), ("redis", [])):
        mounts = stack.inspect(service)["Mounts"]
        volumes = [mount["Destination"] for mount in mounts if mount["Type"] == "volume"]
        assert volumes == folders


def test_runs_outlive_the_container(stack: Stack) -> None:
    body = {
        "model": stack.cards[0].id,
        "items": [example_of(stack.cards[0])],
        "run": {"id": "kept"},
    }
    with stack.client() as client:
        client.post("/v1/score", json=body).raise_for_status()
    stack.compose("rm", "--stop", "--force", "assay")
    stack.up()
    with stack.client() as client:
        assert client.get("/v1/runs/kept").status_code == 200


def test_accepted_work_is_finished_when_the_server_is_stopped(stack: Stack) -> None:
    card = next(card for card in stack.cards if card.name == "video-qpp")
    example = example_of(card)
    field = next(name for name, value in example.items() if isinstance(value, str))
    items = [{**example, field: f"{example[field]} {number}"} for number in range(WORKLOAD)]
    with ThreadPoolExecutor(1) as caller:
        reply = caller.submit(stack.score, card.id, items)
        _wait_until_scoring(stack)
        assert not reply.done(), "the work was done before the server was stopped"
        stack.compose("stop", "assay")
        results = reply.result()
    assert [result["status"] for result in results] == ["ok"] * WORKLOAD
    state = stack.inspect("assay")["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False)


def test_the_health_check_knows_the_keys(port_with_keys: int) -> None:
    url = f"http://127.0.0.1:{port_with_keys}/v1/score"
    body = {"model": "reference", "items": [PAIR]}
    assert httpx2.post(url, json=body).status_code == 401
    allowed = httpx2.post(url, json=body, headers={"Authorization": "Bearer second-0123456789abc"})
    assert allowed.json()["results"][0]["status"] == "ok"


def test_the_image_holds_each_file_once(stack: Stack) -> None:
    """Compare sizes: layers larger than the visible files hold copies of files."""
    layers = int(run("docker", "image", "inspect", "--format", "{{.Size}}", IMAGE))
    listed = run(
        *("docker", "run", "--rm", "--user", "0", "--entrypoint", "find", IMAGE),
        *("/", "-xdev", "-type", "f", "-links", "1", "-printf", "%s\n"),
    )
    files = sum(map(int, listed.split()))
    smallest_weights = 80_000_000
    assert layers - files < smallest_weights


@pytest.fixture
def port_with_keys(stack: Stack) -> Iterator[int]:
    """Port of a healthy server with keys, outside of the Compose project."""
    port = free_port()
    name = f"{stack.project}-with-keys"
    run(
        *("docker", "run", "--detach", "--name", name, "--read-only", "--tmpfs", "/tmp"),
        *(
            "--publish",
            f"127.0.0.1:{port}:8000",
            "--env",
            "ASSAY_API_KEYS= first-0123456789abc,second-0123456789abc",
        ),
        *("--env", "ASSAY_MODELS=reference", IMAGE),
    )
    try:
        _wait_until_healthy(name)
        yield port
    finally:
        run("docker", "rm", "--force", name)


def _scores(results: dict[str, dict[str, object]]) -> dict[str, object]:
    return {model: result["score"] for model, result in results.items()}


def _wait_until_healthy(container: str) -> None:
    deadline = time.monotonic() + 120
    health = ""
    while time.monotonic() < deadline:
        health = run("docker", "inspect", "--format", "{{.State.Health.Status}}", container).strip()
        if health == "healthy":
            return
        time.sleep(0.5)
    raise AssertionError(f"{health}: {run('docker', 'logs', container)}")


def _wait_until_scoring(stack: Stack) -> None:
    """Wait until tokens of a request are in the queue."""
    deadline = time.monotonic() + 60
    with stack.client() as client:
        while time.monotonic() < deadline:
            lines = client.get("/metrics").text.splitlines()
            waiting = [line for line in lines if line.startswith("assay_queue_tokens{")]
            if any(float(line.rpartition(" ")[2]) > 0 for line in waiting):
                return
            time.sleep(0.02)
    raise AssertionError("no request reached the queue")
