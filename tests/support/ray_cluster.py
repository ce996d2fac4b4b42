"""A local Ray cluster with Assay as a process of its own, steered by lines of JSON.

`python -m support.ray_cluster` is the process; `Cluster` is its handle. It is a process because
Serve reads its mode (HAProxy or its own proxy) when it is imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from support.servers import free_port

QUICK = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3",
    "RAY_SERVE_PROXY_MIN_DRAINING_PERIOD_S": "3",
    "RAY_DEDUP_LOGS": "0",
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
ENDED = "the cluster's process ended; its log: "


class Cluster:
    """The handle of a cluster's process.

    Attributes:
        url: where the proxy listens.
    """

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self._process = process
        self._log = log
        self.url = url

    @property
    def pid(self) -> int:
        """The process that started Ray's."""
        return self._process.pid

    def do(self, command: str, **arguments: Any) -> Any:
        """Run a command of the process; return its result.

        Raises:
            RuntimeError: it failed; the text has the traceback.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([command, arguments]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(ENDED + self._log.read_text(errors="replace")[-4000:])
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["result"]

    def replicas(self) -> dict[str, int]:
        """Return the pids of the replicas that serve, by id."""
        pids: dict[str, int] = self.do("replicas")
        return pids


@contextmanager
def running_cluster(*, haproxy: bool, folder: Path) -> Iterator[Cluster]:
    """Run a cluster until the end of the block; every process of it is killed then."""
    variables = QUICK | (HAPROXY if haproxy else {}) | {name: str(free_port()) for name in PORTS}
    own = {name: text for name, text in os.environ.items() if "ASSAY_" not in name}
    port, log = free_port(), folder / "cluster.log"
    paths = os.pathsep.join(path for path in sys.path if path)
    with log.open("w") as file, tempfile.TemporaryDirectory(dir="/tmp", prefix="ray") as temp:
        process = subprocess.Popen(
            [sys.executable, "-m", "support.ray_cluster", str(port), temp],
            env={**own, **variables, "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
        try:
            yield Cluster(process, f"http://127.0.0.1:{port}", log)
        finally:
            _end(process, temp)


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


COMMANDS: Mapping[str, Callable[..., Any]] = {
    "deploy": _deploy,
    "replicas": _replicas,
    "call": _call,
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
        try:
            answer = {"result": COMMANDS[name](**arguments)}
        except Exception:  # noqa: BLE001 the test gets it
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
