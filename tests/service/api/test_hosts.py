"""`Host` and origin: web pages of other sites cannot use a server without keys."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from support.processes import serving
from support.raw_requests import read_all, replies_of
from support.servers import Served, listening

from assay.api.hosts import HostCheck
from assay.app import create_app
from assay.errors import HostNotAllowed, OriginNotAllowed
from assay.settings import Settings

KEY = "a-key-of-this-test"
BODY = json.dumps({"model": "reference", "items": [{"text": "a b", "text_pair": "a"}]})
LOCAL = ("127.0.0.1", 8000)


def check(
    host: str | None,
    *,
    names: tuple[str, ...] = (),
    origins: tuple[str, ...] = (),
    server: object = LOCAL,
    is_loopback: bool = True,
    has_keys: bool = False,
    method: str = "GET",
    headers: Mapping[str, str] = MappingProxyType({}),
) -> None:
    hosts = HostCheck(names, origins, is_loopback=is_loopback, has_keys=has_keys)
    raw = {name.encode(): text.encode() for name, text in headers.items()}
    if host is not None:
        raw[b"host"] = host.encode()
    hosts.check({"type": "http", "method": method, "server": server}, raw)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "app.localhost:1",
        "127.0.0.1:8000",
        "192.168.1.7",
        "[::1]:8000",
        "[::1]",
        "assay:8000",
        "localhost.",
        None,
        "",
    ],
)
def test_a_local_name_or_an_address_is_allowed_on_loopback(host: str | None) -> None:
    check(host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"],
)
def test_the_name_of_a_site_is_refused_on_loopback_without_keys(host: str) -> None:
    with pytest.raises(HostNotAllowed, match=r"evil\.example") as failure:
        check(host)
    assert "ASSAY_ALLOWED_HOSTS" in (failure.value.hint or "")
    check(host, server=("10.0.0.7", 8000))
    check(host, server=("/run/assay.sock", None))
    check(host, is_loopback=False)
    check(host, has_keys=True)
    check(host, names=("*",))


def test_allowed_names_are_required_everywhere_where_they_are_set() -> None:
    options: dict[str, Any] = {"names": ("Assay.example",), "has_keys": True, "is_loopback": False}
    for host in ("assay.EXAMPLE:443", "10.0.0.7"):
        check(host, **options, server=("10.0.0.7", 8000))
    with pytest.raises(HostNotAllowed):
        check("other.example", **options, server=("10.0.0.7", 8000))


@pytest.mark.parametrize(
    ("headers", "is_allowed"),
    [
        ({"origin": "https://evil.example"}, False),
        ({"origin": "http://localhost:3000"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://localhost:8000"}, True),
        ({"origin": "https://good.example"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "same-origin", "origin": "https://assay.example"}, True),
        ({"sec-fetch-site": "same-site", "origin": "https://other.example"}, False),
        ({"sec-fetch-site": "none"}, True),
    ],
)
@pytest.mark.parametrize("is_loopback", [True, False])
def test_pages_of_other_origins_are_refused_without_keys(
    headers: dict[str, str], is_allowed: bool, is_loopback: bool
) -> None:
    options: dict[str, Any] = {
        "origins": ("https://good.example",),
        "method": "POST",
        "headers": headers,
    }
    check("localhost:8000", **options, has_keys=True)
    if is_allowed:
        check("localhost:8000", **options, is_loopback=is_loopback)
    else:
        with pytest.raises(OriginNotAllowed) as failure:
            check("localhost:8000", **options, is_loopback=is_loopback)
        assert "ASSAY_CORS_ORIGINS" in (failure.value.hint or "")
        check("localhost:8000", **{**options, "origins": ("*",)}, has_keys="origin" not in headers)


def test_a_link_on_another_site_may_lead_to_a_page() -> None:
    visit = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    check("localhost", headers={**visit, "sec-fetch-dest": "document"})
    for dest, method in (("iframe", "GET"), ("document", "POST")):
        with pytest.raises(OriginNotAllowed):
            check("localhost", method=method, headers={**visit, "sec-fetch-dest": dest})


@pytest.mark.slow
def test_a_name_used_on_a_unix_socket_is_still_refused_on_loopback(tmp_path: Path) -> None:
    path = tmp_path / "assay.sock"
    request = b"GET /metrics HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    with serving("--port", "0", ASSAY_HOST=f"127.0.0.1,unix:{path}") as server:
        with socket.socket(socket.AF_UNIX) as local:
            local.connect(str(path))
            local.sendall(request)
            (reply,) = replies_of(read_all(local))
            assert reply.status == 200
        with server.connect() as connection:
            connection.sendall(request)
            (reply,) = replies_of(read_all(connection))
    assert (reply.status, reply.json["code"]) == (403, "host_not_allowed")


def ask(url: str, head: str, body: str = "") -> tuple[int, str]:
    """Send a request as it stands; return the status and the whole reply."""
    port = int(url.rpartition(":")[2])
    length = f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall((head + length + body).encode())
        with connection.makefile("rb") as replies:
            text = replies.read().decode()
    return int(text.split()[1]), text


def test_a_rebound_name_and_a_foreign_page_reach_no_route_of_a_real_server() -> None:
    post = "POST /v1/score HTTP/1.1\r\nContent-Type: application/json\r\nHost: {}\r\n"
    infer = "POST /v2/models/reference/infer HTTP/1.1\r\nHost: {}\r\n"
    with listening(Settings(models=("reference",), runs="off")) as url:
        for path in ("/v1/runs", "/metrics", "/v1/models", "/", "/docs"):
            status, text = ask(url, f"GET {path} HTTP/1.1\r\nHost: evil.example\r\n")
            assert status == (200 if path in ("/", "/docs") else 403), path
            assert "host_not_allowed" in text or status == 200
        status, text = ask(url, "GET /readyz HTTP/1.1\r\nHost: evil.example\r\n")
        assert status == 200
        assert "reference" not in text
        for head in (post, infer):
            origin = "Origin: https://evil.example\r\n"
            assert ask(url, head.format("evil.example"), BODY)[0] == 403
            assert ask(url, head.format("localhost") + origin, BODY)[0] == 403
            page = origin + "Sec-Fetch-Site: same-origin\r\n"
            assert ask(url, head.format("evil.example") + page, BODY)[0] == 403
        assert ask(url, post.format("upstream") + page, BODY)[0] == 200, "behind a proxy"
        assert ask(url, post.format("localhost"), BODY)[0] == 200
        assert ask(url, post.format("evil.example"), BODY)[0] == 403, "no name is remembered"


async def test_every_reply_says_nosniff_and_who_may_store_it(
    served: Served, reference_settings: Settings
) -> None:
    async with served(reference_settings) as client:
        for path in ("/metrics", "/v1/models", "/nope", "/healthz", "/", "/docs", "/redoc"):
            headers = (await client.get(path)).headers
            assert headers.get_list("x-content-type-options") == ["nosniff"], path
            assert headers.get_list("cache-control") == ["no-cache" if path == "/" else "no-store"]
        asset = (await client.get("/static-offline-docs/swagger-ui.css")).headers
        assert asset["x-content-type-options"] == "nosniff"
        assert "no-store" not in asset.get("cache-control", "")


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc", "/docs/oauth2-redirect"])
async def test_every_page_forbids_frames_and_content_from_elsewhere(
    served: Served, reference_settings: Settings, path: str
) -> None:
    async with served(reference_settings) as client:
        answer = await client.get(path)
    policy = answer.headers["content-security-policy"]
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    scripts = policy.partition("script-src ")[2].partition(";")[0]
    assert "unsafe" not in scripts
    assert scripts.count("sha256-") == answer.text.count("<script>")


def test_a_setting_that_needs_keys_is_refused_without_any(tmp_path: Path) -> None:
    for changes in ({"key_rate": 1.0}, {"key_concurrency": 1}, {"private_cache": True}):
        with pytest.raises(Exception, match="without API keys"):
            create_app(Settings.model_validate({"models": ("reference",), **changes}))
        keys = {"api_keys": (KEY,), "runs": tmp_path / "runs.db"}
        create_app(Settings.model_validate({"models": ("reference",), **keys, **changes}))
