"""The dashboard's files: their headers, access without a key, references and size."""

import hashlib
import re
from pathlib import Path

import httpx2
import pytest
from support.paths import DOCS
from support.servers import Served

from assay.api.dashboard import FOLDER, MEDIA_TYPES, public_paths
from assay.settings import Settings
from assay_monitors.health import RULES

FILES = {
    path.relative_to(FOLDER).as_posix(): path.read_bytes()
    for path in sorted(FOLDER.rglob("*"))
    if path.is_file()
}
OWN = {name: content for name, content in FILES.items() if not name.startswith("vendor/")}
# Bytes of the whole page; the chart library is half of them.
MAX_BYTES = 160_000


@pytest.mark.parametrize("path", sorted(public_paths()))
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_every_file_has_its_media_type_and_security_headers(
    served: Served, reference_settings: Settings, method: str, path: str
) -> None:
    async with served(reference_settings) as client:
        answer = await client.request(method, path)
    name = path.removeprefix("/page/") if path != "/" else "index.html"
    assert answer.status_code == 200
    assert answer.headers["content-type"] == MEDIA_TYPES[Path(name).suffix]
    assert int(answer.headers["content-length"]) == len(FILES[name])
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert {policy[f"{kind}-src"] for kind in ("script", "style", "img", "connect")} == {"'self'"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-cache"
    if method == "GET":
        assert answer.content == FILES[name]


async def test_an_unchanged_file_is_not_sent_again(
    served: Served, reference_settings: Settings
) -> None:
    async with served(reference_settings) as client:
        tag = (await client.get("/")).headers["etag"]
        for known in (tag, f'W/{tag}, "other"'):
            answer = await client.get("/", headers={"If-None-Match": known})
            assert (answer.status_code, answer.content) == (304, b"")
            assert answer.headers["etag"] == tag
            assert "content-security-policy" in answer.headers
        other = await client.get("/", headers={"If-None-Match": '"other"'})
        assert other.status_code == 200
        tags = {(await client.get(path)).headers["etag"] for path in public_paths() - {"/"}}
        assert len(tags) == len(FILES)


@pytest.mark.parametrize("unit", ["items=0-3", "bytes=a-b", "bytes=999999-", "bytes=0-3"])
async def test_a_range_is_ignored(served: Served, reference_settings: Settings, unit: str) -> None:
    async with served(reference_settings) as client:
        answer = await client.get("/page/app.js", headers={"Range": unit})
    assert (answer.status_code, answer.content) == (200, FILES["app.js"])


async def test_a_date_does_not_decide_whether_a_file_changed(
    served: Served, reference_settings: Settings
) -> None:
    later = {"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"}
    async with served(reference_settings) as client:
        assert (await client.get("/page/app.js", headers=later)).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "nothing.js",
        "../app.py",
        "%2e%2e/app.py",
        "",
        "vendor",
        "app.js/",
        "%2e/app.js",
        "vendor/%2e%2e/app.js",
    ],
)
async def test_an_unknown_file_is_a_problem_detail(
    served: Served, reference_settings: Settings, path: str
) -> None:
    async with served(reference_settings) as client:
        answer = await client.get(f"/page/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_only_the_pages_files_are_readable_without_a_key(
    served: Served, reference_settings: Settings
) -> None:
    keys = Settings(api_keys=("one-0123456789abc",)).api_keys
    async with served(reference_settings.model_copy(update={"api_keys": keys})) as client:
        for path in sorted(public_paths()):
            assert (await client.get(path)).status_code == 200, path
            assert (await client.head(path)).status_code == 200, path
            assert (await client.post(path)).status_code == 401, path
        for path in ("/page/nothing.js", "/page/", "/page", "/v1/models", "/metrics"):
            assert (await client.get(path)).status_code == 401, path
        page = b"".join([(await client.get(path)).content for path in public_paths()])
        assert b"one-0123456789abc" not in re.findall(rb"Bearer (\S+)", page)


def references(name: str) -> set[str]:
    """Return the page's files that a file references."""
    text = OWN[name].decode()
    folder = "page/" if name.endswith(".html") else ""
    linked = set(re.findall(rf'(?:src|href)="{folder}([\w./-]+\.\w+)"', text)) if folder else set()
    return linked | {path.removeprefix("./") for path in re.findall(r'from "(\./[\w.-]+)"', text)}


def test_every_referenced_file_exists_and_every_file_is_referenced() -> None:
    named = {path for name in OWN for path in references(name)}
    assert named <= FILES.keys()
    unused = FILES.keys() - named
    assert unused == {"index.html", "vendor/uplot/LICENSE.txt"}


def test_every_module_is_preloaded() -> None:
    preloaded = set(re.findall(rb'modulepreload" href="page/([\w.]+)"', OWN["index.html"]))
    modules = {name.encode() for name in OWN if name.endswith(".js")}
    assert preloaded == modules - {b"app.js"}


@pytest.mark.parametrize("name", OWN)
def test_the_page_references_no_other_host(name: str) -> None:
    text = OWN[name].decode().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "http://" not in text
    assert "https://" not in text
    assert "//cdn" not in text


@pytest.mark.parametrize("name", OWN)
def test_the_page_keeps_its_content_security_policy(name: str) -> None:
    text = OWN[name].decode()
    assert len(text.splitlines()) <= 400
    if name.endswith(".html"):
        assert not re.search(r"\son\w+=|\sstyle=|<style|<script(?![^>]*\ssrc=)", text)
    if name.endswith(".js"):
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|\beval\(|localStorage", text)


def test_the_page_is_small() -> None:
    assert sum(map(len, FILES.values())) <= MAX_BYTES


def test_the_chart_library_is_the_recorded_one() -> None:
    record = DOCS / "explanation" / "decisions" / "0025-dashboard.md"
    text = record.read_text(encoding="utf-8")
    vendored = {name: file for name, file in FILES.items() if name.startswith("vendor/")}
    assert vendored
    for name, content in vendored.items():
        assert f"`{name}`" in text
        assert hashlib.sha256(content).hexdigest() in text
    assert b"Permission is hereby granted" in FILES["vendor/uplot/LICENSE.txt"]


def test_the_files_are_part_of_the_package() -> None:
    assert FOLDER.parent.name == "assay"
    assert (FOLDER.parent / "__init__.py").exists()


async def test_a_post_to_the_page_is_a_problem_detail(
    served: Served, reference_settings: Settings
) -> None:
    async with served(reference_settings) as client:
        answer: httpx2.Response = await client.post("/")
        assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


@pytest.mark.parametrize("rule", [rule.id for rule in RULES])
def test_the_page_describes_the_value_of_each_rule(rule: str) -> None:
    assert re.search(rf"^  {rule}: (share|plain)\(", OWN["rule_values.js"].decode(), re.M)
