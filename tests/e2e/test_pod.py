"""Tests of a container that runs as the chart's pod: start, probes, rights, memory, end."""

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from support.kubernetes.releases import server_of
from support.servers import free_port

from deploy.kubernetes.render import render

from .pod import Pod
from .stack import example_of, served_cards

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.environ.get("ASSAY_E2E") != "1",
        reason="builds an image and starts containers: set ASSAY_E2E=1, or run `make e2e`",
    ),
]

WITHOUT_STORES = {"runs": {"store": "pod"}, "redis": {"kind": "off"}}
PAIR = {"prompt": "one two three four", "response": "four one"}
WORKLOAD = 300
PAUSE_SECONDS = 15
# Variables that Kubernetes sets for the Services `assay` and `assay-redis` of a namespace.
SERVICE_LINKS = {
    name.format(service): value
    for service in ("ASSAY", "ASSAY_REDIS")
    for name, value in {
        "{}_SERVICE_HOST": "10.96.0.7",
        "{}_SERVICE_PORT": "80",
        "{}_SERVICE_PORT_HTTP": "80",
        "{}_PORT": "tcp://10.96.0.7:80",
        "{}_PORT_80_TCP": "tcp://10.96.0.7:80",
        "{}_PORT_80_TCP_PROTO": "tcp",
        "{}_PORT_80_TCP_PORT": "80",
        "{}_PORT_80_TCP_ADDR": "10.96.0.7",
    }.items()
}
Starter = Callable[..., Pod]


@pytest.fixture
def start(image: str) -> Iterator[Starter]:
    """A function that starts a pod of the chart with the given settings."""
    started: list[Pod] = []

    def start_pod(
        models: str,
        settings: dict[str, Any] | None = None,
        values: dict[str, Any] | None = None,
        **fields: Any,
    ) -> Pod:
        named = {"ASSAY_MODELS": models, **(settings or {})}
        values = {**WITHOUT_STORES, **(values or {}), "settings": named}
        port = free_port()
        pod = Pod(f"assay-pod-{port}", port, image, server_of(render(values)), **fields)
        started.append(pod)
        pod.start()
        return pod

    try:
        yield start_pod
    finally:
        for pod in started:
            pod.remove()


def test_a_pod_lives_before_it_is_ready_and_scores_afterwards(start: Starter) -> None:
    pod = start("nli")
    while not pod.passes("livenessProbe"):
        assert pod.state()["Running"], pod.logs()
    assert not pod.passes("readinessProbe"), "the model was loaded before the first probe"
    pod.wait_until_ready()
    (card,) = [card for card in served_cards() if card.name == "nli"]
    (result,) = pod.score("nli", [example_of(card)])
    assert card.example is not None
    assert result["score"] == pytest.approx(card.example.score, abs=card.example.tolerance)


def test_a_pod_whose_service_is_described_in_its_environment_starts(start: Starter) -> None:
    pod = start("reference", variables=SERVICE_LINKS)
    pod.wait_until_ready()
    assert pod.score("reference", [PAIR])[0]["status"] == "ok"
    (line,) = [line for line in pod.logs().splitlines() if "Kubernetes sets them" in line]
    assert [name for name in SERVICE_LINKS if name not in line] == []


@pytest.mark.parametrize("is_first_process", [False, True])
def test_an_ending_pod_answers_what_it_accepted_and_what_still_comes(
    start: Starter, is_first_process: bool
) -> None:
    pauses = {"ASSAY_SHUTDOWN_DELAY": PAUSE_SECONDS, "ASSAY_DRAIN_TIMEOUT": 120}
    pod = start("video-qpp,reference", pauses, is_first_process=is_first_process)
    assert "lifecycle" not in pod.container, "the server pauses itself"
    pod.wait_until_ready()
    with ThreadPoolExecutor(2) as callers:
        long = callers.submit(pod.score, "video-qpp", workload())
        while not pod.queued_tokens():
            assert not long.done(), "the work was done before the pod ended"
        ended = callers.submit(pod.end)
        while pod.passes("readinessProbe"):
            assert pod.state()["Running"], pod.logs()
        late = [pod.score("reference", [PAIR])[0] for _ in range(20)]
        assert pod.passes("livenessProbe")
        assert not ended.done()
        results = long.result()
        ended.result()
    assert [result["status"] for result in late] == ["ok"] * 20
    assert [result["status"] for result in results] == ["ok"] * WORKLOAD
    assert_ended_by_itself(pod)


def test_a_pod_ends_by_itself_while_its_models_load(start: Starter) -> None:
    pod = start("nli", {"ASSAY_DRAIN_TIMEOUT": 120})
    while not pod.passes("livenessProbe"):
        assert pod.state()["Running"], pod.logs()
    pod.end()
    assert_ended_by_itself(pod)


def test_a_pod_ends_while_its_process_starts(start: Starter) -> None:
    pod = start("reference")
    pod.end()
    assert pod.state()["ExitCode"] in (0, 128 + signal.SIGTERM)


def test_a_pod_has_no_rights_and_writes_into_its_volumes_alone(start: Starter) -> None:
    pod = start("reference")
    pod.wait_until_ready()
    assert pod.inside("id", "-u").stdout.strip() == "10001"
    (server,) = pod.inside("cat", "/proc/1/task/1/children").stdout.split()
    status = pod.inside("cat", f"/proc/{server}/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
    for folder in ("/", "/opt/venv", "/var/cache/assay", "/etc"):
        assert "Read-only file system" in pod.inside("touch", f"{folder}/written").stderr
    for mount in pod.container["volumeMounts"]:
        assert pod.inside("touch", f"{mount['mountPath']}/written").returncode == 0


def test_the_requested_memory_holds_every_embedded_model(start: Starter) -> None:
    cards = [card for card in served_cards() if card.embedded]
    requested = server_of(render({}))["containers"][0]["resources"]["requests"]["memory"]
    pod = start(",".join(card.id for card in cards), memory=requested)
    pod.wait_until_ready()
    for card in cards:
        assert card.example is not None
        (result,) = pod.score(card.id, [example_of(card)])
        assert result["score"] == pytest.approx(card.example.score, abs=card.example.tolerance)
    assert [r["status"] for r in pod.score("video-qpp", workload())] == ["ok"] * WORKLOAD
    assert not pod.state()["OOMKilled"]


def test_a_pod_with_too_little_memory_is_killed_and_never_ready(start: Starter) -> None:
    cards = [card for card in served_cards() if card.embedded]
    pod = start(",".join(card.id for card in cards), memory="512Mi")
    was_ready = False
    while pod.state()["Running"]:
        was_ready |= pod.passes("readinessProbe")
    assert not was_ready
    state = pod.state()
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)


def test_programs_run_with_the_profile_that_the_values_name(start: Starter) -> None:
    pod = start("code-exec", values={"seccompProfile": {"type": "Unconfined"}})
    pod.wait_until_ready()
    answer = {"response": "def double(x):\n    return 2 * x", "tests": ["assert double(2) == 4"]}
    wrong = {**answer, "tests": ["assert double(2) == 5"]}
    results = pod.score("code-exec", [answer, wrong])
    assert [result["score"] for result in results] == [1.0, 0.0]


def test_programs_need_another_profile_than_the_default(start: Starter) -> None:
    pod = start("code-exec")
    pod.wait_until_ended()
    assert "take a seccomp profile that permits unshare and mount" in pod.logs()


def test_a_misspelt_setting_stops_a_pod_with_a_reason(start: Starter) -> None:
    pod = start("reference", variables={"ASSAY_BATCH_TOKEN": "1"})
    pod.wait_until_ended()
    assert pod.state()["ExitCode"] not in (0, 137)
    assert "did you mean ASSAY_BATCH_TOKENS?" in pod.logs()


def workload() -> list[dict[str, Any]]:
    """Return items of video-qpp that keep it busy for seconds, each different from the others."""
    (card,) = [card for card in served_cards() if card.name == "video-qpp"]
    example, run = example_of(card), time.monotonic_ns()
    field = next(name for name, value in example.items() if isinstance(value, str))
    numbers = itertools.islice(itertools.count(run), WORKLOAD)
    return [{**example, field: f"{example[field]} {number}"} for number in numbers]


def assert_ended_by_itself(pod: Pod) -> None:
    """Check that the process finished before the grace period ended.

    Its exit code is 0 as the first process. Else it ends by the signal that it was sent, as shells
    expect; 137 would be a SIGKILL.
    """
    state = pod.state()
    code = 0 if pod.is_first_process else 128 + signal.SIGTERM
    assert "Finished server process" in pod.logs()
    assert (state["Running"], state["OOMKilled"], state["ExitCode"]) == (False, False, code)
