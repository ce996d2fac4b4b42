"""Rules for manifests that no schema states: probes, rights, limits, draining, shared volumes."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assay.errors import SettingsError
from assay.served_model import PROBE_SECONDS
from assay.settings import PREFIX, Settings, read_settings, variable_name

Document = Mapping[str, Any]
SERVERS = frozenset(("assay", "kserve-container"))
"""Names of the containers that run `assay serve`."""
RAY_HEAD = "ray-head"
AUTOSCALERS = frozenset(("HorizontalPodAutoscaler", "ScaledObject"))
RAY = frozenset((RAY_HEAD, "ray-worker"))


@dataclass(frozen=True)
class Workload:
    """The pods of one document: their labels, their specification, how many there may be."""

    name: str
    document: Document
    labels: Mapping[str, str]
    spec: Mapping[str, Any]
    replicas: int
    is_service: bool

    @property
    def containers(self) -> Sequence[Mapping[str, Any]]:
        """The containers, without those that end before these start."""
        return list(self.spec["containers"])


def violations(documents: Sequence[Document]) -> list[str]:
    """Return which rules the documents of one release break."""
    workloads = [workload for document in documents for workload in workloads_of(document)]
    autoscalers = [document for document in documents if document["kind"] in AUTOSCALERS]
    return [
        *(problem for workload in workloads for problem in _of_pods(workload)),
        *(problem for workload in workloads for problem in _of_volumes(workload, autoscalers)),
        *_of_autoscalers(workloads, autoscalers),
        *(problem for document in documents for problem in _of_selector(document, workloads)),
    ]


def workloads_of(document: Document) -> Iterator[Workload]:
    """Yield the kinds of pods that a document makes."""
    name, spec = document["metadata"]["name"], document.get("spec", {})
    match document["kind"]:
        case "Deployment":
            yield _workload(name, document, spec["template"], spec.get("replicas", 1))
        case "Pod":
            yield _workload(name, document, document, 1, is_service=False)
        case "InferenceService":
            pods = spec["predictor"]
            yield _workload(name, document, {"spec": pods}, pods.get("maxReplicas", 1))
        case "RayService":
            cluster = spec["rayClusterConfig"]
            yield _workload(f"{name}-head", document, cluster["headGroupSpec"]["template"], 1)
            for group in cluster["workerGroupSpecs"]:
                yield _workload(f"{name}-worker", document, group["template"], group["maxReplicas"])


def _workload(
    name: str,
    document: Document,
    template: Mapping[str, Any],
    replicas: int,
    is_service: bool = True,
) -> Workload:
    labels = template.get("metadata", {}).get("labels", {})
    return Workload(name, document, labels, template["spec"], replicas, is_service)


def _of_pods(workload: Workload) -> Iterator[str]:
    spec, name = workload.spec, workload.name
    is_head = any(container["name"] == RAY_HEAD for container in workload.containers)
    if spec.get("enableServiceLinks") is not False:
        yield f"{name}: service links are on"
    if spec.get("automountServiceAccountToken") is not False and not is_head:
        yield f"{name}: it has an API token"
    if any(spec.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")):
        yield f"{name}: it shares a namespace of the host"
    for volume in spec.get("volumes", ()):
        if "hostPath" in volume:
            yield f"{name}: volume {volume['name']} is a folder of the host"
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]:
            yield f"{name}: volume {volume['name']} has no limit"
    for container in workload.containers:
        yield from (f"{name}: {problem}" for problem in _of_rights(container, spec))
        yield from (f"{name}: {problem}" for problem in _of_resources(container))
        if workload.is_service:
            yield from (f"{name}: {problem}" for problem in _of_probes(container))
        if container["name"] in SERVERS:
            yield from (f"{name}: {problem}" for problem in _of_server(container, spec))


def _of_rights(container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    rights = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
    if rights.get("privileged"):
        yield "a container is privileged"
    if rights.get("allowPrivilegeEscalation") is not False:
        yield "a process may gain rights"
    if not rights.get("runAsNonRoot") or not rights.get("runAsUser"):
        yield "a container may run as root"
    if rights.get("capabilities") != {"drop": ["ALL"]}:
        yield "a container has capabilities"
    if rights.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "a container has no seccomp profile"
    if not rights.get("readOnlyRootFilesystem"):
        yield "a container can write into its root"


def _of_resources(container: Mapping[str, Any]) -> Iterator[str]:
    resources = container.get("resources", {})
    if "memory" not in resources.get("limits", {}):
        yield "a container has no memory limit"
    if not {"cpu", "memory"} <= resources.get("requests", {}).keys():
        yield "a container requests no CPU or no memory"


def _of_probes(container: Mapping[str, Any]) -> Iterator[str]:
    needed = ["readinessProbe", "livenessProbe"]
    if container["name"] in SERVERS | RAY:
        needed.append("startupProbe")
    yield from (f"a container has no {probe}" for probe in needed if probe not in container)


def _of_server(container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    readiness = container.get("readinessProbe", {})
    if _path(readiness) != "/readyz" or readiness.get("timeoutSeconds", 1) <= PROBE_SECONDS:
        yield f"readiness is not asked at /readyz for more than {PROBE_SECONDS:.0f} s"
    if _path(container.get("livenessProbe", {})) != "/healthz":
        yield "liveness is not asked at /healthz: a busy or loading model would be restarted"
    try:
        settings = settings_of(container)
    except SettingsError as error:
        yield f"settings: {error}"
        return
    pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    if pause and settings.shutdown_delay:
        yield "it pauses twice before it stops"
    if not pause and not settings.shutdown_delay:
        yield "it stops at once, while balancers still send requests"
    if not pod.get("shareProcessNamespace"):
        yield "SIGTERM is ignored while it starts, as by any first process"
    needed = pause + settings.shutdown_delay + 2 * settings.drain_timeout
    if pod.get("terminationGracePeriodSeconds", 30) <= needed:
        yield f"the grace period is not longer than the pause and draining, {needed:.0f} s"
    threads = plain_environment(container).get("OMP_NUM_THREADS")
    if threads != str(math.ceil(_cpus(container["resources"]["requests"]["cpu"]))):
        yield "OMP_NUM_THREADS is not the CPU request"


def _path(probe: Mapping[str, Any]) -> str | None:
    path = probe.get("httpGet", {}).get("path")
    return path if isinstance(path, str) else None


def _cpus(quantity: str) -> float:
    text = str(quantity)
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def plain_environment(container: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables of a container that have a plain value."""
    return {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}


def settings_of(container: Mapping[str, Any]) -> Settings:
    """Return the settings that a container's server reads, without secret ones.

    Raises:
        SettingsError: the server would refuse to start.
    """
    names = {entry["name"] for entry in container["env"] if "valueFrom" in entry}
    known = {variable_name(field) for field in Settings.model_fields}
    unknown = sorted(name for name in names if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise SettingsError(f"unknown {', '.join(unknown)}", hint="")
    return read_settings(plain_environment(container))


def _of_volumes(workload: Workload, autoscalers: Sequence[Document]) -> Iterator[str]:
    claims = {volume["name"] for volume in workload.spec.get("volumes", ()) if _is_claim(volume)}
    mounts = [
        mount for container in workload.containers for mount in container.get("volumeMounts", ())
    ]
    written = [m["name"] for m in mounts if m["name"] in claims and m["mountPath"] == RUNS_FOLDER]
    if not written:
        return
    scaled = [autoscaler for autoscaler in autoscalers if _target(autoscaler) == workload.name]
    if scaled or workload.replicas > 1:
        yield f"{workload.name}: several replicas write the volume {written[0]}"
    if workload.document["spec"].get("strategy") != {"type": "Recreate"}:
        yield f"{workload.name}: an update starts a second writer of the volume {written[0]}"


RUNS_FOLDER = "/var/lib/assay"


def _is_claim(volume: Mapping[str, Any]) -> bool:
    return "persistentVolumeClaim" in volume


def _of_autoscalers(
    workloads: Iterable[Workload], autoscalers: Sequence[Document]
) -> Iterator[str]:
    targets = [_target(autoscaler) for autoscaler in autoscalers]
    for workload in workloads:
        if targets.count(workload.name) > 1:
            yield f"{workload.name}: two autoscalers set its replicas"
        if workload.name in targets and "replicas" in workload.document["spec"]:
            yield f"{workload.name}: an update resets the replicas that its autoscaler set"
    names = {workload.name for workload in workloads}
    yield from (f"an autoscaler's target {name} is not there" for name in {*targets} - names)


def _target(autoscaler: Document) -> str:
    return str(autoscaler["spec"]["scaleTargetRef"]["name"])


def _of_selector(document: Document, workloads: Iterable[Workload]) -> Iterator[str]:
    """Check that what selects pods selects those of one workload, and ports that it has."""
    spec = document.get("spec", {})
    match document["kind"]:
        case "Service":
            labels, ports = spec["selector"], [port["targetPort"] for port in spec["ports"]]
        case "PodDisruptionBudget":
            labels, ports = spec["selector"]["matchLabels"], []
        case "PodMonitor":
            labels = spec["selector"]["matchLabels"]
            ports = [endpoint["port"] for endpoint in spec["podMetricsEndpoints"]]
        case "NetworkPolicy":
            labels = spec["podSelector"]["matchLabels"]
            ports = [port["port"] for rule in spec["ingress"] for port in rule["ports"]]
        case _:
            return
    selected = [workload for workload in workloads if labels.items() <= workload.labels.items()]
    kind, name = document["kind"], document["metadata"]["name"]
    if len(selected) != 1:
        yield f"{kind} {name}: selects {len(selected)} workloads"
        return
    named = {port["name"] for part in selected[0].containers for port in part.get("ports", ())}
    yield from (f"{kind} {name}: there is no port {port}" for port in {*ports} - named)
