"""The page of run health: files that are shipped with the service, served from memory."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from assay.api.errors import PROBLEMS

FOLDER = Path(__file__).parents[1] / "page"
INDEX = "index.html"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# Nothing but the page's own files runs in it, and nothing in it speaks with another host.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {**PROBLEMS[404], "description": "No such file"}}

router = APIRouter(tags=["page"])


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page, and the tag that changes with it."""

    content: bytes
    kind: str
    tag: str


def page_files(folder: Path = FOLDER) -> dict[str, PageFile]:
    """The page's files by their path in the folder."""
    return {
        path.relative_to(folder).as_posix(): _page_file(path.read_bytes(), KINDS[path.suffix])
        for path in sorted(folder.rglob("*"))
        if path.suffix in KINDS
    }


def page_paths(files: Mapping[str, PageFile]) -> frozenset[str]:
    """Where they are found. They are the same for everybody and tell nothing of models or runs."""
    return frozenset(["/", *(f"/page/{name}" for name in files)])


@router.get("/", response_class=HTMLResponse)
@router.head("/", include_in_schema=False)
async def show_page(request: Request) -> Response:
    """The page of run health, for people."""
    return _answer(request, INDEX)


@router.get("/page/{file:path}", response_class=Response, responses=NOT_FOUND)
@router.head("/page/{file:path}", include_in_schema=False)
async def show_file(request: Request, file: str) -> Response:
    """A file of the page: its style, its scripts, the charts' library and its licence."""
    return _answer(request, file)


def _page_file(content: bytes, kind: str) -> PageFile:
    return PageFile(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


def _answer(request: Request, name: str) -> Response:
    files: Mapping[str, PageFile] = request.app.state.page
    found = files.get(name)
    if found is None:
        raise HTTPException(404)
    headers = {**HEADERS, "ETag": found.tag}
    if found.tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(found.content, headers={**headers, "Content-Type": found.kind})
