"""Paths with needless slashes, below a proxy's prefix, HEAD, the methods of a path, and CORS."""

import re
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute
from pydantic import SecretStr
from support.servers import Served

from assay.api import ops, runs, v1
from assay.api.dialects.routers import ROUTERS
from assay.api.paths import below_root, clean_path, route_path
from assay.settings import Settings

BODY = {"model": "reference", "items": [{"text": "a b", "text_pair": "a"}]}
ORIGIN = "https://example.org"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-assay-run",
}


@pytest.fixture
def below_assay(reference_settings: Settings) -> Settings:
    """Settings of a server that a proxy serves below `/assay`."""
    return reference_settings.model_copy(update={"root_path": "/assay"})


@pytest.mark.parametrize(
    ("path", "clean"),
    [("/a", "/a"), ("/a/", "/a"), ("//a///b//", "/a/b"), ("/", "/"), ("//", "/"), ("", "/")],
)
def test_a_clean_path_has_no_needless_slash(path: str, clean: str) -> None:
    assert clean_path(path) == clean


@pytest.mark.parametrize(
    ("path", "root", "rest"),
    [
        ("/v1/score", "", "/v1/score"),
        ("/assay/v1/score", "/assay", "/v1/score"),
        ("/v1/score", "/assay", "/v1/score"),
        ("/assayed", "/assay", "/assayed"),
        ("/assay", "/assay", ""),
    ],
)
def test_a_route_path_has_no_prefix(path: str, root: str, rest: str) -> None:
    assert route_path({"path": path, "root_path": root}) == rest


@pytest.mark.parametrize("path", ["/v1/score", "/assay/v1/score", "/ray/v1/score"])
def test_the_prefixes_of_a_proxy_and_of_the_server_are_joined(path: str) -> None:
    root = "/ray" if path.startswith("/ray") else ""
    scope = below_root({"path": path, "root_path": root}, "/assay")
    assert (scope["root_path"], scope["path"]) == (f"{root}/assay", f"{root}/assay/v1/score")


@pytest.mark.parametrize(
    "path", ["/v1/score/", "//v1/score", "/v1//score", "//score", "/v1/models/reference/score/"]
)
async def test_a_post_with_needless_slashes_reaches_its_route(
    served: Served, reference_settings: Settings, path: str
) -> None:
    body = {"items": BODY["items"]} if "reference" in path else BODY
    async with served(reference_settings) as client:
        answer = await client.post(f"http://assay{path}", json=body)
    assert (answer.status_code, answer.json()["usage"]["items"]) == (200, 1)


@pytest.mark.parametrize("path", ["/v1/models/", "//v1/models", "//healthz//", "/docs/", "//"])
async def test_a_get_with_needless_slashes_reaches_its_route(
    served: Served, reference_settings: Settings, path: str
) -> None:
    async with served(reference_settings) as client:
        assert (await client.get(f"http://assay{path}")).status_code == 200


async def test_needless_slashes_lead_to_no_other_answer_of_a_path(
    served: Served, reference_settings: Settings
) -> None:
    async with served(reference_settings) as client:
        absent = await client.get("/v1/nothing/")
        assert (absent.status_code, absent.json()["code"]) == (404, "not_found")
        wrong = await client.get("/v1/score/")
        assert (wrong.status_code, wrong.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("prefix", ["", "/assay"])
async def test_routes_are_served_below_a_prefix_that_the_proxy_strips_or_not(
    served: Served, below_assay: Settings, prefix: str
) -> None:
    async with served(below_assay) as client:
        for path in ("/v1/score", "/v1/score/", "//score"):
            answer = await client.post(f"http://assay{prefix}{path}", json=BODY)
            assert answer.status_code == 200, path
        for path in ("/", "/healthz", "/page/app.js", "/static-offline-docs/swagger-ui.css"):
            assert (await client.get(f"{prefix}{path}")).status_code == 200, path
        wrong = await client.post(f"{prefix}/v2/models/none/infer", json={"inputs": []})
        assert isinstance(wrong.json()["error"], str), "the inference protocol's own error"


@pytest.mark.parametrize("prefix", ["", "/assay"])
async def test_the_pages_below_a_prefix_link_to_it(
    served: Served, below_assay: Settings, prefix: str
) -> None:
    async with served(below_assay) as client:
        docs = (await client.get(f"{prefix}/docs")).text
        assert "'/assay/openapi.json'" in docs
        assert '"/assay/static-offline-docs/swagger-ui-bundle.js"' in docs
        schema = (await client.get(f"{prefix}/openapi.json")).json()
        assert schema["servers"] == [{"url": "/assay"}]


async def test_the_prefix_itself_leads_to_the_page(served: Served, below_assay: Settings) -> None:
    async with served(below_assay) as client:
        answer = await client.get("/assay")
    assert (answer.status_code, answer.headers["location"]) == (308, "/assay/")


async def test_keys_cover_the_routes_below_a_prefix(served: Served, below_assay: Settings) -> None:
    settings = below_assay.model_copy(update={"api_keys": (SecretStr("right"),)})
    async with served(settings) as client:
        for prefix in ("", "/assay"):
            assert (await client.get(f"{prefix}/healthz")).status_code == 200
            assert (await client.get(f"{prefix}/v1/models")).status_code == 401
            assert (await client.get(f"http://assay{prefix}//v1/models/")).status_code == 401


def methods_of(router: APIRouter) -> dict[str, set[str]]:
    """Return the methods of each path of a router."""
    methods: dict[str, set[str]] = {}
    for route in router.routes:
        assert isinstance(route, APIRoute)
        methods.setdefault(route.path, set()).update(route.methods or ())
    return methods


async def test_head_is_answered_wherever_get_is(
    served: Served, reference_settings: Settings
) -> None:
    methods = methods_of(v1.router) | methods_of(runs.router) | methods_of(ops.router)
    paths = [path for path, taken in methods.items() if "GET" in taken and "{" not in path]
    assert len(paths) > 8
    async with served(reference_settings) as client:
        for path in paths:
            get, head = await client.get(path), await client.head(path)
            assert (head.status_code, head.content) == (get.status_code, b""), path
            assert head.headers["content-type"] == get.headers["content-type"]
        assert (await client.head("/v1/score")).status_code == 405


async def test_head_of_a_stream_ends(served: Served, reference_settings: Settings) -> None:
    run = {"id": "streamed", "step": 1}
    stream = {"Accept": "text/event-stream"}
    async with served(reference_settings) as client:
        await client.post("/v1/score", json={**BODY, "run": run})
        head = await client.head("/v1/runs/streamed/events", headers=stream)
        while head.status_code == 404:  # a run is stored within a second
            head = await client.head("/v1/runs/streamed/events", headers=stream)
    assert head.status_code == 200
    assert head.headers["content-type"].startswith("text/event-stream")


async def test_the_allowed_methods_are_those_of_all_routes_of_a_path(
    served: Served, reference_settings: Settings
) -> None:
    by_path: dict[str, set[str]] = {}
    for router in (v1.router, runs.router, ops.router, *ROUTERS):
        for template, methods in methods_of(router).items():
            path = re.sub(r"\{\w+(:path)?\}", "x", template)
            by_path.setdefault(path, set()).update(methods)
    async with served(reference_settings) as client:
        for path, methods in by_path.items():
            answer = await client.request("TRACE", path)
            assert answer.status_code == 405, path
            expected = methods | ({"HEAD"} if "GET" in methods else set())
            assert set(answer.headers["Allow"].split(", ")) >= expected, path


def cors(settings: Settings, *origins: str) -> Settings:
    keys = (SecretStr("right"),)
    return settings.model_copy(update={"cors_origins": origins, "api_keys": keys})


async def test_a_preflight_of_an_origin_needs_no_key(
    served: Served, reference_settings: Settings
) -> None:
    async with served(cors(reference_settings, ORIGIN)) as client:
        answer = await client.options("/v1/score", headers=PREFLIGHT)
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, ORIGIN)
        assert "authorization" in answer.headers["Access-Control-Allow-Headers"]
        other = await client.options("/v1/score", headers={**PREFLIGHT, "Origin": "https://evil"})
        assert (other.status_code, allowed_origin(other)) == (400, None)


async def test_replies_and_errors_name_an_allowed_origin(
    served: Served, reference_settings: Settings
) -> None:
    key = {"Authorization": "Bearer right"}
    async with served(cors(reference_settings, "*")) as client:
        scored = await client.post("/v1/score", json=BODY, headers={"Origin": ORIGIN, **key})
        assert (scored.status_code, allowed_origin(scored)) == (200, "*")
        assert "X-Request-ID" in scored.headers["Access-Control-Expose-Headers"]
        refused = await client.post("/v1/score", json=BODY, headers={"Origin": ORIGIN})
        assert (refused.status_code, allowed_origin(refused)) == (401, "*")


async def test_no_origin_is_allowed_by_default(
    served: Served, reference_settings: Settings
) -> None:
    async with served(reference_settings) as client:
        answer = await client.options("/v1/score", headers=PREFLIGHT)
        assert (answer.status_code, allowed_origin(answer)) == (403, None)
        scored = await client.post("/v1/score", json=BODY, headers={"Origin": ORIGIN})
        assert (scored.status_code, allowed_origin(scored)) == (403, None)


def allowed_origin(answer: httpx2.Response) -> Any:
    return answer.headers.get("Access-Control-Allow-Origin")
