"""The page at /docs: its examples are requests that work, and it needs no key while calls do."""

import asyncio
import re
import threading
from typing import Any

import pytest
from support.servers import Served

from assay.api.examples import EXAMPLES
from assay.api.openapi import Document, public_paths
from assay.app import create_app
from assay.settings import Settings
from assay_models.repository import ModelRepository, embedded_root

DOCUMENT = create_app(Settings(models=("reference",))).openapi()
BODIES = {
    (method, path): operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
    if "requestBody" in operation and method == "post"
}


def filled_in(path: str, operation: dict[str, Any]) -> str:
    """Return the address that the page sends an example to."""
    given = {
        (parameter["in"], parameter["name"]): parameter["example"]
        for parameter in operation.get("parameters", ())
        if "example" in parameter
    }
    query = [f"?{name}={value}" for (place, name), value in given.items() if place == "query"]
    for (place, name), value in given.items():
        path = path.replace(f"{{{name}}}", str(value)) if place == "path" else path
    assert "{" not in path, "a parameter of the path has no example"
    return path + "".join(query)


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.parametrize("model", sorted({example.model for example in EXAMPLES.values()}))
async def test_every_example_is_answered_by_its_embedded_model_beside_another(
    served: Served, model: str
) -> None:
    assert ModelRepository([embedded_root()]).find(model).card.embedded
    refused = {}
    async with served(Settings(models=(model, "reference"))) as client:
        for (method, path), operation in BODIES.items():
            body = operation["requestBody"]["content"]["application/json"]["example"]
            address = filled_in(path, operation)
            if model not in {*re.split(r"[/=]", address), body.get("model")}:
                continue
            answer = await client.request(method, address, json=body)
            if not answer.is_success or '"error":{' in answer.text or "judge_failed" in answer.text:
                refused[address] = answer.text
    assert not refused


def test_every_body_has_an_example_and_every_example_a_body() -> None:
    shown = re.findall(r"#/components/schemas/(\w+)", str([*BODIES.values()]))
    assert set(EXAMPLES) <= set(shown)
    for (_, path), operation in BODIES.items():
        assert operation["requestBody"]["content"]["application/json"].keys() >= {"example"}, path


def test_the_page_asks_for_a_key_in_either_header() -> None:
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert {scheme["type"] for scheme in schemes.values()} == {"http", "apiKey"}
    assert DOCUMENT["security"] == [*({name: []} for name in schemes), {}]


async def test_the_page_needs_no_key_and_calls_do(served: Served) -> None:
    settings = Settings.model_validate(
        {"models": ("reference",), "api_keys": ("a-key-of-this-test",)}
    )
    async with served(settings) as client:
        page = (await client.get("/docs")).text
        files = re.findall(r'(?:src|href|url)(?:=|: )["\']([^"\']+)["\']', page)
        assert len(files) >= 4
        for path in {*files, *public_paths()}:
            assert (await client.get(path)).status_code == 200, path
        assert (await client.get("/v1/models")).status_code == 401
        assert (await client.post("/docs")).status_code == 401
        example = BODIES["post", "/v1/score"]["requestBody"]["content"]["application/json"]
        assert (await client.post("/v1/score", json=example["example"])).status_code == 401


async def test_the_document_is_built_once_in_a_thread_and_then_the_same_bytes(
    served: Served, reference_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[threading.Thread] = []
    encode = Document._encode

    def recorded(self: Document, root_path: str) -> tuple[bytes, str]:
        built.append(threading.current_thread())
        return encode(self, root_path)

    monkeypatch.setattr(Document, "_encode", recorded)
    async with served(reference_settings) as client:
        first, second = await asyncio.gather(*(client.get("/openapi.json") for _ in range(2)))
        tag = first.headers["etag"]
        current = await client.get("/openapi.json", headers={"If-None-Match": f'"x", W/{tag}'})
        other = await client.get("/openapi.json", headers={"If-None-Match": '"x"'})
    assert len(built) == 1
    assert built[0] is not threading.current_thread()
    assert first.content == second.content == other.content
    assert first.json()["paths"] == DOCUMENT["paths"]
    assert (current.status_code, current.content) == (304, b"")


async def test_the_document_names_the_prefix_of_a_proxy(
    served: Served, reference_settings: Settings
) -> None:
    async with served(reference_settings.model_copy(update={"root_path": "/assay"})) as client:
        document = (await client.get("/assay/openapi.json")).json()
    assert document["servers"] == [{"url": "/assay"}]
