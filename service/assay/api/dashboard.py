"""The dashboard of run health: static files that are shipped with the service."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from assay.api.errors import PROBLEMS

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
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {**PROBLEMS[404], "description": "No such file"}}

router = APIRouter(tags=["page"])


class DashboardFiles(StaticFiles):
    """The dashboard's files, with headers that allow no content from elsewhere."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file, or 304 if the caller's copy is current.

        Raises:
            HTTPException: there is no such file (404).
        """
        response = await super().get_response(path, scope)
        media_type = MEDIA_TYPES.get(Path(path).suffix)
        if response.status_code == 200 and media_type is not None:
            response.headers["Content-Type"] = media_type
        response.headers.update(HEADERS)
        return response


FILES = DashboardFiles(directory=FOLDER, check_dir=False)


def public_paths(folder: Path = FOLDER) -> frozenset[str]:
    """Return the paths of the dashboard's files, which hold no data of any run."""
    files = [path for path in folder.rglob("*") if path.suffix in MEDIA_TYPES]
    return frozenset(["/", *(f"/page/{path.relative_to(folder).as_posix()}" for path in files)])


@router.get("/", response_class=HTMLResponse)
@router.head("/", include_in_schema=False)
async def show_page(request: Request) -> Response:
    """Return the dashboard of run health, an HTML page."""
    return await FILES.get_response(INDEX, request.scope)


@router.get("/page/{file:path}", response_class=Response, responses=NOT_FOUND)
@router.head("/page/{file:path}", include_in_schema=False)
async def show_file(request: Request, file: str) -> Response:
    """Return a file of the dashboard: its style, its scripts, the chart library and its licence."""
    return await FILES.get_response(file, request.scope)
