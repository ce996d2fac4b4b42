"""The dashboard of run health: static files that are shipped with the service."""

import hashlib
import os
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.datastructures import Headers
from starlette.staticfiles import PathLike, StaticFiles
from starlette.types import Scope

from assay.api.errors import PROBLEMS
from assay.api.scopes import ScopedRoute

FOLDER = Path(__file__).parents[1] / "dashboard"
INDEX = "index.html"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
# The page runs its own files only, and connects to no other host.
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
    "Cache-Control": "no-cache",
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {**PROBLEMS[404], "description": "No such file"}}

router = APIRouter(route_class=ScopedRoute, tags=["page"])


class DashboardFiles(StaticFiles):
    """The dashboard's files, with headers that allow no content from elsewhere.

    Their ETag is a digest of the content: times and sizes of files may be the same in two releases.
    """

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        """Return a file's path on disk and its status; of other paths, none."""
        return super().lookup_path(path) if path in file_names() else ("", None)

    def file_response(
        self,
        full_path: PathLike,
        stat_result: os.stat_result,
        scope: Scope,
        status_code: int = 200,
    ) -> Response:
        """Return a whole file, or 304 if the caller's copy is current."""
        path = Path(os.fspath(full_path))
        content, digest = _read(path)
        headers = {**HEADERS, "ETag": f'"{digest}"'}
        response = Response(content, status_code, headers, MEDIA_TYPES[path.suffix])
        if self.is_not_modified(response.headers, Headers(scope=scope)):
            return Response(status_code=304, headers=headers)
        return response


FILES = DashboardFiles(directory=FOLDER, check_dir=False)


@cache
def _read(path: Path) -> tuple[bytes, str]:
    """Return a file's content and its digest."""
    content = path.read_bytes()
    return content, hashlib.blake2b(content, digest_size=16).hexdigest()


@cache
def file_names() -> frozenset[str]:
    """Return the dashboard's files, as paths within their folder."""
    files = [path for path in FOLDER.rglob("*") if path.suffix in MEDIA_TYPES]
    return frozenset(path.relative_to(FOLDER).as_posix() for path in files)


def public_paths() -> frozenset[str]:
    """Return the paths of the dashboard's files, which hold no data of any run."""
    return frozenset(["/", *(f"/page/{name}" for name in file_names())])


@router.get("/", response_class=HTMLResponse)
async def show_page(request: Request) -> Response:
    """Return the dashboard of run health, an HTML page."""
    return await FILES.get_response(INDEX, request.scope)


@router.get("/page/{file:path}", response_class=Response, responses=NOT_FOUND)
async def show_file(request: Request, file: str) -> Response:
    """Return a file of the dashboard: its style, its scripts, the chart library and its licence."""
    return await FILES.get_response(file, request.scope)
