"""A container that runs as the chart's pod does: its user, rights, limits, probes and its end."""

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2

from .stack import COMMAND_SECONDS, run

# A pod's group owns its volumes. A container's are in memory, and take the image's permissions.
VOLUMES = ("emptyDir", "persistentVolumeClaim")


@dataclass(frozen=True)
class Pod:
    """The server of a rendered release as a container of this machine.

    Args:
        spec: the pod's specification, with one container.
        image: the image in place of the chart's.
        variables: variables besides those of the specification.
        memory: a memory limit in place of the container's, as Kubernetes writes it.
        is_first_process: whether the server is it, as in a pod that shares no process namespace.
    """

    name: str
    port: int
    image: str
    spec: Mapping[str, Any]
    variables: Mapping[str, str] = field(default_factory=dict)
    memory: str | None = None
    is_first_process: bool = False

    @property
    def container(self) -> Mapping[str, Any]:
        (container,) = self.spec["containers"]
        assert isinstance(container, dict)
        return container

    @property
    def grace_seconds(self) -> int:
        return int(self.spec["terminationGracePeriodSeconds"])

    def start(self) -> None:
        publish = (
            "--publish",
            f"127.0.0.1:{self.port}:{self.container['ports'][0]['containerPort']}",
        )
        run(
            *("docker", "run", "--detach", "--name", self.name),
            *publish,
            *self._options(),
            self.image,
        )

    def _options(self) -> Sequence[str]:
        rights = {**self.spec["securityContext"], **self.container["securityContext"]}
        assert rights["readOnlyRootFilesystem"]
        assert not rights["allowPrivilegeEscalation"]
        memory = (self.memory or self.container["resources"]["limits"]["memory"]).replace("i", "")
        kinds = {volume["name"]: volume for volume in self.spec["volumes"]}
        folders = [
            mount["mountPath"]
            for mount in self.container["volumeMounts"]
            if any(kind in kinds[mount["name"]] for kind in VOLUMES)
        ]
        owner = f"uid={rights['runAsUser']},gid={rights['fsGroup']}"
        plain = {entry["name"]: entry["value"] for entry in self.container["env"]}
        assert self.spec["shareProcessNamespace"]
        seccomp = rights["seccompProfile"]["type"]
        return [
            *([] if self.is_first_process else ["--init"]),
            *(["--security-opt", "seccomp=unconfined"] if seccomp == "Unconfined" else []),
            *("--read-only", "--security-opt", "no-new-privileges"),
            *("--user", f"{rights['runAsUser']}:{rights['runAsGroup']}"),
            *(f"--cap-drop={capability}" for capability in rights["capabilities"]["drop"]),
            *(f"--memory={memory}", f"--memory-swap={memory}"),
            *(f"--tmpfs={folder}:exec,{owner}" for folder in folders),
            *(f"--env={name}={value}" for name, value in {**plain, **self.variables}.items()),
        ]

    def passes(self, probe: str) -> bool:
        """Return whether a probe of the specification passes now."""
        request = self.container[probe]["httpGet"]
        try:
            with self.client(self.container[probe]["timeoutSeconds"]) as client:
                return 200 <= client.get(request["path"]).status_code < 400
        except httpx2.TransportError:
            return False

    def wait_until_ready(self) -> None:
        """Wait as a kubelet does: until the startup probe passes, then the readiness probe."""
        startup = self.container["startupProbe"]
        deadline = time.monotonic() + startup["periodSeconds"] * startup["failureThreshold"]
        while not (self.passes("startupProbe") and self.passes("readinessProbe")):
            assert self.state()["Running"], self.logs()
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.2)

    def end(self) -> None:
        """Send SIGTERM, and SIGKILL after the grace period; return when the container has ended."""
        run("docker", "stop", "-t", str(self.grace_seconds), self.name, timeout=COMMAND_SECONDS)

    def wait_until_ended(self) -> None:
        run("docker", "wait", self.name)

    def state(self) -> dict[str, Any]:
        states = json.loads(run("docker", "inspect", "--format", "[{{json .State}}]", self.name))
        assert isinstance(states[0], dict)
        return states[0]

    def logs(self) -> str:
        done = subprocess.run(
            ["docker", "logs", self.name],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.stdout

    def inside(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "exec", self.name, *command], capture_output=True, text=True
        )

    def client(self, timeout: float = 120.0) -> httpx2.Client:
        return httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=timeout)

    def score(self, model: str, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Score items over a connection of their own."""
        with self.client() as client:
            reply = client.post("/v1/score", json={"model": model, "items": items})
        assert reply.status_code == 200, reply.text
        results = reply.json()["results"]
        assert isinstance(results, list)
        return results

    def queued_tokens(self) -> float:
        with self.client() as client:
            lines = client.get("/metrics").text.splitlines()
        rows = [line for line in lines if line.startswith("assay_queue_tokens{")]
        return sum(float(row.rpartition(" ")[2]) for row in rows)

    def remove(self) -> None:
        run("docker", "rm", "--force", self.name)
