"""A local Ray cluster with Assay as a process of its own, steered by lines of JSON.

`python -m benchmarks.ray_cluster` is the process; `Cluster` is its handle. It is a process because
Serve reads its mode (HAProxy or its own proxy) when it is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.processes import free_port

QUICK = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
    "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "3",
    "RAY_raylet_start_wait_time_s": "60",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": "0.5",
    "RAY_worker_niceness": "0",  # as for a server without Ray
}
HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_BALANCE_ALGORITHM": "hdr(x-session-id)",
}
PORTS = (
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
)
# A node gives its agent 15 seconds to start, which a busy machine does not always have.
START_ATTEMPTS = 6
ENDED = "the cluster's process ended; its log: "


class Cluster:
    """The handle of a cluster's process.

    Attributes:
        process: the process that started Ray's.
        url: where the proxy listens.
    """

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.process = process
        self._log = log
        self.url = url

    def do(self, command: str, **arguments: Any) -> Any:
        """Run a command of the process; return its result.

        Raises:
            RuntimeError: the process ended, as it does when a command fails; the text has the log.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([command, arguments]) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(ENDED + self._log.read_text(errors="replace")[-4000:])
        return json.loads(line)

    def replicas(self) -> dict[str, int]:
        """Return the pids of the replicas that serve, by id."""
        pids: dict[str, int] = self.do("replicas")
        return pids


@contextmanager
def running_cluster(*, haproxy: bool, folder: Path) -> Iterator[Cluster]:
    """Run a cluster until the end of the block; every process of it is killed then.

    Args:
        haproxy: whether HAProxy is before the replicas, instead of Serve's own proxy.
        folder: for the log.

    Raises:
        RuntimeError: it does not start; the text has the log.
    """
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ray") as temp:
        cluster = _launch(haproxy, folder / "cluster.log", temp)
        try:
            for attempt in range(START_ATTEMPTS):
                if _has_started(cluster, is_last=attempt + 1 == START_ATTEMPTS):
                    break
                _end(cluster.process, temp)
                cluster = _launch(haproxy, folder / "cluster.log", temp)
            yield cluster
        finally:
            _end(cluster.process, temp)


def _has_started(cluster: Cluster, *, is_last: bool) -> bool:
    try:
        cluster.do("wait")
    except RuntimeError:
        if is_last:
            raise
        return False
    return True


def _launch(haproxy: bool, log: Path, temp: str) -> Cluster:
    variables = QUICK | (HAPROXY if haproxy else {}) | {name: str(free_port()) for name in PORTS}
    own = {name: text for name, text in os.environ.items() if "ASSAY_" not in name}
    paths = os.pathsep.join(path for path in sys.path if path)
    port = free_port()
    place = tempfile.mkdtemp(dir=temp)  # one that has failed leaves an address in its own
    with log.open("w") as file:
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "benchmarks.ray_cluster", str(port), place],
            env={**own, **variables, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    return Cluster(process, f"http://127.0.0.1:{port}", log)


def _end(process: subprocess.Popen[str], temp: str) -> None:
    """Kill the process and its descendants, those too that have left it but use its folder."""
    family = psutil.Process(process.pid).children(recursive=True)
    family += [other for other in psutil.process_iter() if temp in _command_of(other)]
    process.kill()
    for member in {*family}:
        if member.pid not in (os.getpid(), process.pid) and member.is_running():
            member.kill()
    process.communicate()
    psutil.wait_procs(family, timeout=10)


def _command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _deploy(
    replicas: int = 1,
    autoscaling: Mapping[str, Any] | None = None,
    variables: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    from ray import serve

    from assay_ray import Assay

    given: dict[str, Any] = {
        "health_check_period_s": 1,
        "graceful_shutdown_wait_loop_s": 0.2,
        "ray_actor_options": {
            "num_cpus": 0,
            "runtime_env": {
                "env_vars": {"ASSAY_MODELS": "reference", "ASSAY_RUNS": "off", **(variables or {})}
            },
        },
        **(options or {}),
    }
    fixed = {"min_replicas": replicas, "max_replicas": replicas}
    given["autoscaling_config"] = autoscaling or fixed
    serve.run(Assay.options(**given).bind(), name="assay")


def _replicas() -> dict[str, int]:
    from ray.serve.context import _get_global_client

    details = _get_global_client().get_serve_details()
    deployment = details["applications"]["assay"]["deployments"]["assay"]
    return {
        replica["replica_id"]: replica["pid"]
        for replica in deployment["replicas"]
        if replica["state"] == "RUNNING"
    }


def _call(method: str, path: str, body: str, session: str = "") -> Any:
    """Return status, headers and body of a call by handle."""
    from ray import serve

    handle = serve.get_app_handle("assay").options(method_name="request", session_id=session)
    status, headers, content = handle.remote(method, path, {}, body.encode()).result()
    return [status, headers, content.decode()]


def _time_handle(bodies: Sequence[str]) -> list[float]:
    """Return the milliseconds of each call by handle, one after the other."""
    from ray import serve

    handle = serve.get_app_handle("assay").options(method_name="request")
    times = []
    for body in bodies:
        began = time.perf_counter()
        status, _, _ = handle.remote("POST", "/v1/score", {}, body.encode()).result()
        times.append((time.perf_counter() - began) * 1000)
        assert status == 200, status
    return times


def _flood_handle(bodies: Sequence[str], callers: int) -> float:
    """Return the seconds that calls by handle take, of which `callers` wait at a time."""
    from concurrent.futures import ThreadPoolExecutor

    from ray import serve

    handle = serve.get_app_handle("assay").options(method_name="request")

    def call(body: str) -> int:
        status: int = handle.remote("POST", "/v1/score", {}, body.encode()).result()[0]
        return status

    began = time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        statuses = set(pool.map(call, bodies))
    assert statuses == {200}, statuses
    return time.perf_counter() - began


def _client(name: str, arguments: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Return the result of a method of `RayClient`, or the error that it raised."""
    import dataclasses

    from assay_client.errors import AssayError
    from assay_client.ray import RayClient

    with RayClient(**options) as client:
        try:
            return dataclasses.asdict(getattr(client, name)(**arguments))
        except AssayError as error:
            return {"error": type(error).__name__, "text": error.message}


def _wait() -> None:
    """Answer, which the process does once the cluster runs."""


COMMANDS: Mapping[str, Callable[..., Any]] = {
    "wait": _wait,
    "deploy": _deploy,
    "replicas": _replicas,
    "call": _call,
    "time_handle": _time_handle,
    "flood_handle": _flood_handle,
    "client": _client,
}


def main(port: int, temp: str) -> None:
    """Start the cluster, then run the commands of stdin until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray's processes print on stdout
    import ray
    from ray import serve

    ray.init(
        num_cpus=4,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=80_000_000,
        _temp_dir=temp,
        log_to_driver=False,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    for line in sys.stdin:
        name, arguments = json.loads(line)
        answers.write(json.dumps(COMMANDS[name](**arguments)) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
