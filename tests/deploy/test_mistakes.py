"""Tests that planted mistakes are caught: by the schema, by the templates, or by the policy."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import helm_python as helm
import pytest
from support.kubernetes.policy import violations
from support.kubernetes.releases import VERSIONS, release, schema_errors

from assay.settings import variable_name
from deploy.kubernetes.render import VALUES, render

Manifest = dict[str, Any]

REFUSED_BY_THE_SCHEMA: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown value": ({"replica": 2}, "replica"),
    "an unknown value inside another": ({"redis": {"bundled": {"memory": "1Gi"}}}, "memory"),
    "an unknown setting": ({"settings": {"ASSAY_BATCH_TOKEN": 1}}, "ASSAY_BATCH_TOKEN"),
    "a foreign variable": ({"settings": {"FOO": "1"}}, "FOO"),
    "a setting out of its range": ({"settings": {"ASSAY_MAX_ITEMS": 0}}, "ASSAY_MAX_ITEMS"),
    "text for a number": ({"settings": {"ASSAY_MAX_ITEMS": "many"}}, "ASSAY_MAX_ITEMS"),
    "an unknown choice": ({"settings": {"ASSAY_DTYPE": "int8"}}, "ASSAY_DTYPE"),
    "a secret in plain text": ({"settings": {"ASSAY_REDIS_SECRET": "x" * 16}}, "REDIS_SECRET"),
    "a token in plain text": ({"settings": {"HF_TOKEN": "hf_x"}}, "HF_TOKEN"),
    "probes that need a key": ({"settings": {"ASSAY_PROBES": "keyed"}}, "ASSAY_PROBES"),
    "two autoscalers": ({"autoscaling": {"kind": ["hpa", "keda"]}}, "kind"),
    "KEDA without Prometheus": ({"autoscaling": {"kind": "keda"}}, "prometheus"),
    "PostgreSQL without its secret": ({"runs": {"store": "postgresql"}}, "secret"),
    "an external Redis without its secret": ({"redis": {"kind": "external"}}, "secret"),
    "no memory limit": ({"resources": {"limits": {"memory": None}}}, "memory"),
    "two GPUs": ({"gpu": {"count": 2}}, "count"),
    "a card outside of a folder": ({"models": {"cards": {"my-rm": "x"}}}, "my-rm"),
    "a secret's name with a folder": ({"models": {"engineKeys": ["a/b"]}}, "engineKeys"),
    "an ingress without a host": ({"ingress": {"enabled": True}}, "host"),
}  # fmt: skip
REFUSED_BY_THE_TEMPLATES: dict[str, tuple[dict[str, Any], str]] = {
    "replicas on one volume": ({"replicas": 2}, "runs.store"),
    "autoscaled replicas on one volume": ({"autoscaling": {"kind": "hpa"}}, "runs.store"),
    "a grace period shorter than the drain": ({"shutdown": {"graceSeconds": 60}}, "at least 75"),
    "a drain longer than the grace period": (
        {"shutdown": {"graceSeconds": 75}, "settings": {"ASSAY_DRAIN_TIMEOUT": 60}},
        "at least 135",
    ),
    "a GPU that is not requested": ({"settings": {"ASSAY_DEVICE": "cuda:0"}}, "gpu.count"),
    "bounds in the wrong order": (
        {"autoscaling": {"kind": "hpa", "minReplicas": 9}, "runs": {"store": "off"}},
        "minReplicas",
    ),
    "a memory limit below the request": (
        {"resources": {"requests": {"memory": "8Gi"}, "limits": {"memory": "8G"}}},
        "raise the limit",
    ),
    "programs under a profile that refuses the sandbox": (
        {"settings": {"ASSAY_MODELS": "nli,code-exec@1"}},
        "seccompProfile",
    ),
    "a GPU with the image for processors": ({"gpu": {"count": 1}}, "image.tag"),
    "keys in plain text": ({"settings": {"ASSAY_API_KEYS": "x" * 16}}, "set apiKeys instead"),
    "an engine's key that nothing mounts": (
        {"models": {"cards": {"a/1": 'api_key_file = "/etc/assay/engines/vllm/token"'}}},
        "models.engineKeys",
    ),
    "an engine's key of a Secret that is not the one mounted": (
        {
            "models": {
                "cards": {"a/1": "api_key_file = '/etc/assay/engines/vllm/token'"},
                "engineKeys": ["sglang"],
            }
        },
        "list the Secret vllm",
    ),
    "a checkpoint that nothing mounts": (
        {"models": {"cards": {"a/1": 'path = "/models/checkpoint"'}}},
        "models.volume",
    ),
    "a checkpoint in single quotes that nothing mounts": (
        {"models": {"cards": {"a/1": "path = '/models/checkpoint'"}}},
        "models.volume",
    ),
    "an ingress that may not connect": (
        {"ingress": {"enabled": True, "host": "assay.example.org"}},
        "networkPolicy.from",
    ),
    "scrapes without a key": (
        {
            "apiKeys": {"secret": "keys", "key": "keys.toml"},
            "monitoring": {"podMonitor": {"enabled": True}},
        },
        "monitoring.apiKey",
    ),
}


@pytest.mark.parametrize("mistake", REFUSED_BY_THE_SCHEMA)
def test_the_schema_refuses_a_mistake(mistake: str) -> None:
    values, name = REFUSED_BY_THE_SCHEMA[mistake]
    with pytest.raises(helm.HelmValuesError) as refusal:
        render(values)
    assert name in str(refusal.value)


@pytest.mark.parametrize("mistake", REFUSED_BY_THE_TEMPLATES)
def test_the_templates_refuse_a_mistake_and_say_how_to_mend_it(mistake: str) -> None:
    values, text = REFUSED_BY_THE_TEMPLATES[mistake]
    with pytest.raises(helm.HelmRenderError) as refusal:
        render(values)
    assert text in str(refusal.value)


@pytest.mark.parametrize("field", VALUES)
@pytest.mark.parametrize(
    ("group", "given"), [("settings", "x"), ("secretSettings", {"secret": "x", "key": "x"})]
)
def test_a_setting_with_a_value_of_its_own_is_refused_with_that_value(
    group: str, given: Any, field: str
) -> None:
    with pytest.raises(helm.HelmRenderError, match=f"set {VALUES[field]} instead"):
        render({group: {variable_name(field): given}})


def server(documents: list[Manifest]) -> Manifest:
    return next(document for document in documents if document["kind"] == "Deployment")


def pod(documents: list[Manifest]) -> Manifest:
    spec = server(documents)["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


def container(documents: list[Manifest]) -> Manifest:
    first = pod(documents)["containers"][0]
    assert isinstance(first, dict)
    return first


def variable(name: str, value: str) -> Callable[[list[Manifest]], object]:
    return lambda documents: container(documents)["env"].append({"name": name, "value": value})


def autoscaler(kind: str) -> Manifest:
    scaled = {"scaleTargetRef": {"name": "assay"}}
    return {"kind": kind, "metadata": {"name": kind}, "spec": scaled}


BROKEN_RULES: dict[str, tuple[Callable[[list[Manifest]], object], str]] = {
    "service links": (lambda d: pod(d).pop("enableServiceLinks"), "service links"),
    "an API token": (lambda d: pod(d).pop("automountServiceAccountToken"), "API token"),
    "the host's network": (lambda d: pod(d).update(hostNetwork=True), "namespace of the host"),
    "a folder of the host": (
        lambda d: pod(d)["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        "folder of the host",
    ),
    "an unlimited folder": (
        lambda d: pod(d)["volumes"].append({"name": "x", "emptyDir": {}}),
        "no limit",
    ),
    "a privileged container": (
        lambda d: container(d)["securityContext"].update(privileged=True),
        "privileged",
    ),
    "root": (lambda d: pod(d)["securityContext"].update(runAsUser=0), "root"),
    "a writable root": (
        lambda d: container(d)["securityContext"].pop("readOnlyRootFilesystem"),
        "write into its root",
    ),
    "capabilities": (
        lambda d: container(d)["securityContext"].update(capabilities={"add": ["SYS_ADMIN"]}),
        "capabilities",
    ),
    "no memory limit": (lambda d: container(d)["resources"].pop("limits"), "memory limit"),
    "no startup probe": (lambda d: container(d).pop("startupProbe"), "startupProbe"),
    "no readiness probe": (lambda d: container(d).pop("readinessProbe"), "readinessProbe"),
    "no liveness probe": (lambda d: container(d).pop("livenessProbe"), "livenessProbe"),
    "a hasty readiness probe": (
        lambda d: container(d)["readinessProbe"].pop("timeoutSeconds"),
        "readiness",
    ),
    "liveness that waits for models": (
        lambda d: container(d)["livenessProbe"]["httpGet"].update(path="/readyz"),
        "liveness",
    ),
    "a short grace period": (lambda d: pod(d).update(terminationGracePeriodSeconds=60), "grace"),
    "a longer drain": (variable("ASSAY_DRAIN_TIMEOUT", "60"), "grace"),
    "two pauses": (variable("ASSAY_SHUTDOWN_DELAY", "1"), "pauses twice"),
    "a first process": (lambda d: pod(d).pop("shareProcessNamespace"), "SIGTERM is ignored"),
    "no pause": (lambda d: container(d).pop("lifecycle"), "at once"),
    "an unknown setting": (variable("ASSAY_NONE", "1"), "unknown ASSAY_NONE"),
    "too many threads": (
        lambda d: container(d)["resources"]["requests"].update(cpu="500m"),
        "OMP_NUM_THREADS",
    ),
    "replicas on one volume": (lambda d: server(d)["spec"].update(replicas=2), "several replicas"),
    "autoscaled replicas on one volume": (
        lambda d: d.append(autoscaler("ScaledObject")),
        "several replicas",
    ),
    "an update on one volume": (lambda d: server(d)["spec"].pop("strategy"), "second writer"),
    "HPA and KEDA together": (
        lambda d: d.extend([autoscaler("ScaledObject"), autoscaler("HorizontalPodAutoscaler")]),
        "two autoscalers",
    ),
    "replicas beside an autoscaler": (
        lambda d: d.append(autoscaler("HorizontalPodAutoscaler")),
        "resets the replicas",
    ),
    "a selector of nothing": (
        lambda d: server(d)["spec"]["template"]["metadata"]["labels"].clear(),
        "selects 0 workloads",
    ),
    "a port that is not there": (lambda d: container(d).pop("ports"), "no port http"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", BROKEN_RULES)
def test_the_policy_catches_a_mistake(mistake: str) -> None:
    plant, text = BROKEN_RULES[mistake]
    documents = copy.deepcopy(release("defaults"))
    plant(documents)
    assert any(text in problem for problem in violations(documents)), violations(documents)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("case", "path", "change"),
    [
        ("defaults", "spec.template.spec", {"enableServiceLink": False}),
        ("defaults", "spec.template.spec.containers.0", {"livenesProbe": {}}),
        ("defaults", "spec.template.spec", {"terminationGracePeriodSeconds": "75"}),
        ("kustomize", "spec.strategy", {"kind": "Recreate"}),
        ("KServe", "spec.predictor", {"container": []}),
        ("KServe", "spec.predictor.containers.0", {"readinesProbe": {}}),
        ("KubeRay", "spec.rayClusterConfig", {"headGroup": {}}),
        ("KubeRay", "spec.rayClusterConfig.headGroupSpec.template.spec", {"serviceLinks": False}),
    ],
)
def test_a_schema_refuses_a_wrong_field_of_a_manifest(
    case: str, path: str, change: Mapping[str, Any], version: str
) -> None:
    document = copy.deepcopy(release(case)[0])
    part: Any = document
    for name in path.split("."):
        part = part[int(name)] if name.isdigit() else part[name]
    part.update(change)
    assert list(schema_errors(document, version))


@pytest.mark.parametrize("case", ["replicas", "routes"])
def test_a_reduced_schema_refuses_a_wrong_key_of_a_custom_resource(case: str) -> None:
    customs = [
        document for document in release(case) if "." in document["apiVersion"].split("/")[0]
    ]
    own = {"ScaledObject", "PodMonitor", "PrometheusRule", "HTTPRoute"}
    for document in [document for document in customs if document["kind"] in own]:
        wrong = {**document, "spec": {**document["spec"], "wrong": 1}}
        assert [e for e in schema_errors(wrong, VERSIONS[0]) if "'wrong' was unexpected" in e]
