"""Schemas of custom resources, reduced to the fields that these manifests use.

The resources' own definitions are other projects' files and far larger. They replace these schemas
in the nightly tests where the variable `CRDS` names a folder that holds them.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
LABELS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
ANY: Schema = {"type": "object"}


def fields(*required: str, **properties: Schema) -> Schema:
    """Return the schema of an object that has these properties and no others."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


def listed(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


def resource(version: str, kind: str, spec: Schema) -> Schema:
    """Return the schema of a whole document."""
    named = fields("name", name=TEXT, labels=LABELS, annotations=LABELS)
    return fields(
        *("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": version},
        kind={"const": kind},
        metadata=named,
        spec=spec,
    )


LABEL_SELECTOR = fields("matchLabels", matchLabels=LABELS)
SECRET_KEY = fields("name", "key", name=TEXT, key=TEXT)

SCALED_OBJECT = fields(
    *("scaleTargetRef", "triggers"),
    scaleTargetRef=fields("name", name=TEXT),
    minReplicaCount=COUNT,
    maxReplicaCount=COUNT,
    pollingInterval=COUNT,
    advanced=fields(horizontalPodAutoscalerConfig=fields(behavior=ANY)),
    triggers=listed(
        fields(
            *("type", "metadata"),
            type=TEXT,
            metricType={"enum": ["AverageValue", "Value"]},
            # KEDA takes text alone here, also for numbers and flags
            metadata=fields(
                *("serverAddress", "query", "threshold"),
                serverAddress=TEXT,
                query=TEXT,
                threshold=TEXT,
                ignoreNullValues={"enum": ["true", "false"]},
            ),
        )
    ),
)

POD_MONITOR = fields(
    *("selector", "podMetricsEndpoints"),
    selector=LABEL_SELECTOR,
    podMetricsEndpoints=listed(
        fields(
            "port",
            port=TEXT,
            path=TEXT,
            interval={"type": "string", "pattern": "^[0-9]+(ms|s|m)$"},
            authorization=fields("credentials", credentials=SECRET_KEY),
        )
    ),
)

PROMETHEUS_RULE = fields(
    "groups",
    groups=listed(
        fields(
            *("name", "rules"),
            name=TEXT,
            rules=listed(
                fields(
                    "expr",
                    expr=TEXT,
                    alert=TEXT,
                    annotations=LABELS,
                    **{"for": {"type": "string", "pattern": "^[0-9]+(s|m|h)$"}},
                )
            ),
        )
    ),
)

HTTP_ROUTE = fields(
    *("parentRefs", "rules"),
    parentRefs=listed(fields("name", name=TEXT, namespace=TEXT, sectionName=TEXT)),
    hostnames=listed(TEXT),
    rules=listed(
        fields(
            matches=listed(
                fields(path=fields("type", "value", type={"enum": ["PathPrefix"]}, value=TEXT))
            ),
            backendRefs=listed(fields("name", "port", name=TEXT, port=COUNT)),
            timeouts=fields(request={"type": "string", "pattern": "^[0-9]{1,5}s$"}),
        )
    ),
)

POD_FIELDS = (
    *("automountServiceAccountToken", "containers", "enableServiceLinks", "securityContext"),
    *("shareProcessNamespace", "terminationGracePeriodSeconds", "volumes"),
)
"""Fields of a pod in an InferenceService; Kubernetes's own schema checks their values."""

INFERENCE_SERVICE = fields(
    "predictor",
    predictor=fields(
        "containers",
        minReplicas=COUNT,
        timeout=COUNT,
        deploymentStrategy=ANY,
        **dict.fromkeys(POD_FIELDS, Schema()),
    ),
)

RAY_NODES = fields("rayStartParams", "template", rayStartParams=LABELS, template=ANY)
RAY_SERVICE = fields(
    *("serveConfigV2", "rayClusterConfig"),
    upgradeStrategy=fields("type", type={"enum": ["NewCluster", "None"]}),
    rayClusterDeletionDelaySeconds=COUNT,
    serveConfigV2=TEXT,
    rayClusterConfig=fields(
        *("headGroupSpec", "rayVersion"),
        rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
        authOptions=fields(mode={"enum": ["token", "disabled"]}),
        enableInTreeAutoscaling=FLAG,
        headGroupSpec=RAY_NODES,
        workerGroupSpecs=listed(
            fields(
                *("groupName", "template"),
                groupName=TEXT,
                replicas=COUNT,
                minReplicas=COUNT,
                maxReplicas=COUNT,
                rayStartParams=LABELS,
                template=ANY,
            )
        ),
    ),
)

SCHEMAS = {
    "ScaledObject": resource("keda.sh/v1alpha1", "ScaledObject", SCALED_OBJECT),
    "PodMonitor": resource("monitoring.coreos.com/v1", "PodMonitor", POD_MONITOR),
    "PrometheusRule": resource("monitoring.coreos.com/v1", "PrometheusRule", PROMETHEUS_RULE),
    "HTTPRoute": resource("gateway.networking.k8s.io/v1", "HTTPRoute", HTTP_ROUTE),
    "InferenceService": resource(
        "serving.kserve.io/v1beta1", "InferenceService", INFERENCE_SERVICE
    ),
    "RayService": resource("ray.io/v1", "RayService", RAY_SERVICE),
}
"""Schemas by kind; Kubernetes's own kinds are checked against its releases instead."""
