"""Tests of custom resources against the definitions of the projects that read them.

`CRDS` names a folder with these definitions, as their projects publish them, in files *.yaml.
"""

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from support.kubernetes.releases import CASES, WITHOUT_HELM, release
from support.kubernetes.schemas import SCHEMAS
from support.tiers import only_nightly

FOLDER = os.environ.get("CRDS")
pytestmark = [
    only_nightly,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        FOLDER is None, reason="CRDS names no folder of custom resource definitions"
    ),
]


@cache
def definitions() -> Mapping[tuple[str, str], dict[str, Any]]:
    """Return the strict schemas of the folder, by version and kind."""
    schemas = {}
    for file in sorted(Path(FOLDER or "").glob("*.yaml")):
        for document in yaml.load_all(file.read_text(), yaml.CSafeLoader):
            spec = document["spec"]
            for version in spec["versions"]:
                name = f"{spec['group']}/{version['name']}"
                schema = closed(version["schema"]["openAPIV3Schema"])
                schemas[name, spec["names"]["kind"]] = {
                    **schema,
                    "properties": {**schema["properties"], "metadata": {}},
                }
    return schemas


def closed(schema: Any) -> Any:
    """Return a schema that refuses unknown fields, as a server with strict validation does."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: closed(part) for name, part in schema.items()}
    if made.get("x-kubernetes-int-or-string") is True:
        made = {name: part for name, part in made.items() if name not in ("type", "format")}
    is_open = made.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in made
    if isinstance(made.get("properties"), dict) and made.get("type") == "object" and not is_open:
        made["additionalProperties"] = False
    return made


def customs() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for case in (*CASES, *WITHOUT_HELM):
        for document in release(case):
            if document["kind"] in SCHEMAS:
                yield f"{case}: {document['kind']}", document


@pytest.mark.parametrize(("name", "document"), list(customs()))
def test_a_custom_resource_fits_its_definition(name: str, document: Mapping[str, Any]) -> None:
    schema = definitions().get((document["apiVersion"], document["kind"]))
    assert schema is not None, f"{FOLDER} has no definition of {name}"
    validator = jsonschema.Draft202012Validator(schema)
    assert [error.message for error in validator.iter_errors(document)] == []
    wrong = {**document, "spec": {**document["spec"], "wrong": 1}}
    assert [error for error in validator.iter_errors(wrong) if "'wrong'" in error.message]
