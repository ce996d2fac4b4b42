"""Generator of the deployment files that follow from others: `make docs`.

It writes the settings into the schema of the chart's values, the alerts into the chart, and the
manifests of `kubectl apply -k deploy/kubernetes` from the chart. A test fails where one is stale.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

from assay.settings import Settings, variable_name

HERE = Path(__file__).parent
CHART = HERE.parent / "helm" / "assay"
SCHEMA = CHART / "values.schema.json"
MANIFESTS = HERE / "assay.yaml"
ALERTS = HERE.parent / "monitoring" / "alerts.yml"
NOTE = "# Written by `make docs` from deploy/helm/assay; do not edit.\n"
RELEASE = "assay"
VALUES = {
    "api_keys": "apiKeys",
    "api_keys_file": "apiKeys",
    "port": "service.port",
    "redis_url": "redis",
    "repository": "models.cards or models.volumeHasCards",
    "runs": "runs.store",
}
"""Fields with a value of their own, which templates/checks.yaml names where it refuses them."""
OF_THE_CHART = VALUES.keys() | {"host", "socket_mode", "probes"}  # the probes and the Service
"""Fields that are no entry of `settings` or `secretSettings`."""
LIBRARIES = "^(CUDA|HF|LRU|MKL|NVIDIA|OMP|ONEDNN|OTEL|PYTORCH|TOKENIZERS|TORCH)_[A-Z0-9_]+$"
SECRET_KEY = {"$ref": "#/definitions/secretKey"}
HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")


def main() -> None:
    """Write the files; the manifests last, which are made from the others."""
    for file, text in generated():
        file.write_text(text, encoding="utf-8")


def generated() -> Iterator[tuple[Path, str]]:
    """Yield each generated file and its text."""
    yield SCHEMA, with_settings(SCHEMA.read_text(encoding="utf-8"))
    yield CHART / "files" / ALERTS.name, ALERTS.read_text(encoding="utf-8")
    yield MANIFESTS, manifests()


def with_settings(schema: str) -> str:
    """Return the schema with the present settings."""
    values = json.loads(schema)
    values["definitions"] |= definitions()
    return json.dumps(values, indent=2) + "\n"


def definitions() -> dict[str, Any]:
    """Return the schemas of `settings` and `secretSettings`."""
    properties = Settings.model_json_schema()["properties"]
    fields = {name: field for name, field in properties.items() if name not in OF_THE_CHART}
    secret = {name for name, field in fields.items() if "writeOnly" in json.dumps(field)}
    public = {variable_name(name): _value(fields[name]) for name in fields.keys() - secret}
    private = {variable_name(name): _described(SECRET_KEY, fields[name]) for name in secret}
    moved: dict[str, Any] = {
        variable_name(name): {"description": f"Refused: set {value} instead."}
        for name, value in VALUES.items()
    }
    moved_secrets = {variable: SECRET_KEY | refusal for variable, refusal in moved.items()}
    return {
        "settings": {
            "type": "object",
            "additionalProperties": False,
            "properties": dict(sorted((public | moved).items())) | {"HF_TOKEN": False},
            "patternProperties": {LIBRARIES: {"type": ["string", "number", "boolean"]}},
        },
        "secretSettings": {
            "type": "object",
            "additionalProperties": False,
            "properties": dict(sorted((private | moved_secrets).items()))
            | {"HF_TOKEN": SECRET_KEY},
        },
    }


def _value(field: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of one value of `settings`; lists are text with commas."""
    (shape,) = (part for part in field.get("anyOf", [field]) if part.get("type") != "null")
    kept = ("type", "enum", "pattern", "minimum", "exclusiveMinimum", "maximum")
    kind = {name: shape[name] for name in kept if name in shape}
    return _described({"type": "string"} if kind.get("type") == "array" else kind, field)


def _described(schema: Mapping[str, Any], field: Mapping[str, Any]) -> dict[str, Any]:
    return {**schema, "description": field["description"]}


def manifests() -> str:
    """Return the manifests of a release with the default values, for kustomize."""
    return NOTE + str(yaml.safe_dump_all(_without_helm(), sort_keys=False, width=100))


def _without_helm() -> Iterator[dict[str, Any]]:
    for document in render({}):
        annotations = document["metadata"].pop("annotations", {})
        if "helm.sh/hook" not in annotations:
            yield _without_labels(document)


def _without_labels(part: Any) -> Any:
    if isinstance(part, dict):
        return {
            name: _without_labels(value) for name, value in part.items() if name not in HELM_LABELS
        }
    return [_without_labels(entry) for entry in part] if isinstance(part, list) else part


def render(values: dict[str, Any], namespace: str = "default") -> list[dict[str, Any]]:
    """Return the documents of a release, tests included.

    Raises:
        helm.HelmError: the values do not fit the schema or each other.
    """
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        texts = chart.render(values, name=RELEASE, namespace=namespace)
    documents = (
        document
        for path, text in sorted(texts.items())
        if path.endswith(".yaml")
        for document in yaml.load_all(text, yaml.CSafeLoader)
    )
    return [document for document in documents if document]


if __name__ == "__main__":
    main()
