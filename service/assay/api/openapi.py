"""The OpenAPI document, with what the page at /docs needs: API keys, and requests that work."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI

from assay.api.examples import EXAMPLES, Example

ASSETS = "/static-offline-docs"
SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "One of `ASSAY_API_KEYS`."},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
# Of parameters in a path; the model's is its example's.
VALUES = {"rollout": "0-0", "run": "my-run", "version": 2}
# A server without keys takes requests without any.
SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}, {}]


def public_paths() -> frozenset[str]:
    """Return the paths of the document, its pages and their files: the same on every server."""
    files = Path(fastapi_offline.__file__).with_name("static").iterdir()
    pages = ("/docs", "/redoc", "/openapi.json")
    return frozenset([*pages, *(f"{ASSETS}/{file.name}" for file in files)])


def add_examples(app: FastAPI) -> None:
    """Complete the app's OpenAPI document when it is built: keys, and an example of each body."""
    build = app.openapi

    def openapi() -> dict[str, Any]:
        document = build()
        if "security" not in document:
            _complete(document)
        return document

    # As FastAPI documents it: `FastAPIOffline` is a function, and no class to derive from.
    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> None:
    document["security"] = SECURITY
    document["components"]["securitySchemes"] = SCHEMES
    for path, operation in _operations(document["paths"]):
        example = _example(operation)
        if example is not None:
            operation["requestBody"]["content"]["application/json"]["example"] = example.body
        for parameter in operation.get("parameters", ()):
            if _is_filled_in(parameter, path, example):
                model = "code" if example is None else example.model
                parameter["example"] = VALUES.get(parameter["name"], model)


def _operations(paths: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in paths.items():
        for operation in methods.values():
            yield path, operation


def _example(operation: Mapping[str, Any]) -> Example | None:
    """Return the example of an operation's body, of several kinds the first; None without one."""
    content = operation.get("requestBody", {}).get("content", {})
    names = re.findall(r"#/components/schemas/(\w+)", str(content.get("application/json")))
    return EXAMPLES[names[0]] if names and names[0] in EXAMPLES else None


def _is_filled_in(parameter: Mapping[str, Any], path: str, example: Example | None) -> bool:
    """Return whether a parameter gets a value: it is in the path, or the only place of a model."""
    if parameter["in"] == "path":
        return parameter["name"] == "model" or parameter["name"] in VALUES
    has_model = "{model}" in path or (example and example.body.get("model") == example.model)
    return parameter["in"] == "query" and parameter["name"] == "model" and not has_model
