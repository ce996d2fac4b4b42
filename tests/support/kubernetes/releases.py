"""Releases of the chart that the tests render, and the validation of their documents."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

from deploy.kubernetes.render import CHART, render
from support.paths import ROOT

from .policy import workloads_of
from .schemas import SCHEMAS

VERSIONS = ("1.30.0", "1.33.0", "1.37.0")
"""The oldest Kubernetes that the chart admits, one between, and the newest that is known."""
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
SECRET = {"secret": "assay", "key": "value"}
INLINE: dict[str, dict[str, Any]] = {
    "defaults": {},
    "nothing optional": {
        "redis": {"kind": "off"},
        "runs": {"store": "off"},
        "networkPolicy": {"enabled": False},
        "serviceAccount": {"name": "given"},
    },
    "two replicas": {"replicas": 2, "runs": {"store": "pod"}},
    "pods' metric": {
        "autoscaling": {"kind": "hpa", "queueTokens": 4_194_304},
        "runs": {"store": "off"},
    },
    "routes": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "host": "assay.example.org",
            "tlsSecret": "tls",
            "annotations": {"nginx.ingress.kubernetes.io/proxy-body-size": "32m"},
        },
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "gateway", "namespace": "infra"}],
            "hostnames": ["assay.example.org"],
        },
        "networkPolicy": {"from": [{"namespaceSelector": {}}]},
        "settings": {"ASSAY_TIMEOUT": 30.5, "ASSAY_ROOT_PATH": "/assay"},
    },
    "everything of a pod": {
        "fullnameOverride": "scores",
        "image": {
            "repository": "registry.example.org/assay",
            "digest": f"sha256:{'0' * 64}",
            "pullSecrets": [{"name": "registry"}],
        },
        "settings": {
            "ASSAY_SHUTDOWN_DELAY": 7,
            "ASSAY_DRAIN_TIMEOUT": 45,
            "OMP_WAIT_POLICY": "active",
        },
        "secretSettings": {"ASSAY_ALERT_URL": SECRET, "HF_TOKEN": SECRET},
        "apiKeys": SECRET,
        "models": {
            "cards": {"a/1": "name", "b-c/12": "name"},
            "engineKeys": ["vllm", "sglang-2"],
            "volume": {"nfs": {"server": "files.example.org", "path": "/models"}},
            "volumeHasCards": True,
            "hub": {"cache": "pod"},
        },
        "gpu": {"count": 1, "runtimeClassName": "nvidia"},
        "resources": {
            "requests": {"cpu": "2500m", "memory": "8Gi"},
            "limits": {"memory": "8Gi", "cpu": "4"},
        },
        "shutdown": {"graceSeconds": 600},
        "networkPolicy": {
            "from": [{"namespaceSelector": {}}],
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
        },
        "podLabels": {"team": "rl"},
        "podAnnotations": {"example.org/note": "x"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "high",
        "service": {"type": "NodePort", "port": 8000, "annotations": {"a": "b"}},
    },
}
CASES = INLINE | {path.stem: yaml.safe_load(path.read_text()) for path in EXAMPLES}
"""Values by the name of the case."""
WITHOUT_HELM = {
    "kustomize": ROOT / "deploy" / "kubernetes" / "assay.yaml",
    "KServe": ROOT / "deploy" / "kubernetes" / "inferenceservice.yaml",
    "KubeRay": ROOT / "deploy" / "ray" / "rayservice.yaml",
}
"""Files of manifests by what reads them."""


@cache
def release(case: str) -> list[dict[str, Any]]:
    """Return the documents of a case or of a file; not to be changed."""
    if case in WITHOUT_HELM:
        return list(yaml.load_all(WITHOUT_HELM[case].read_text(), yaml.CSafeLoader))
    return render(CASES[case])


def server_of(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the pod specification of the server among a release's documents."""
    for document in documents:
        for workload in workloads_of(document):
            if workload.labels.get("app.kubernetes.io/component") == "server":
                return dict(workload.spec)
    raise LookupError("no server")


def schema_errors(document: Mapping[str, Any], version: str) -> Iterator[str]:
    """Yield where a document does not fit its schema, its pods' included."""
    kind = document["kind"]
    if kind not in SCHEMAS:
        yield from _kubernetes_errors(document, version)
        return
    for error in jsonschema.Draft202012Validator(SCHEMAS[kind]).iter_errors(document):
        yield f"{error.json_path}: {error.message}"
    for workload in workloads_of(document):
        own = ("minReplicas", "timeout", "deploymentStrategy") if kind == "InferenceService" else ()
        spec = {name: value for name, value in workload.spec.items() if name not in own}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
        yield from _kubernetes_errors(pod, version)


def _kubernetes_errors(document: Mapping[str, Any], version: str) -> Iterator[str]:
    try:
        kubernetes_validate.validate(dict(document), version, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{document['kind']}: {error.message}"
