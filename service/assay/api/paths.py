"""Paths of requests: below a proxy's prefix, and with needless slashes."""

import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import RedirectResponse
from starlette.routing import Router
from starlette.types import Receive, Scope, Send


def route_path(scope: Mapping[str, Any]) -> str:
    """Return the path of a request as routes state it, without the prefix of a proxy."""
    path = str(scope.get("path", ""))
    rest = path.removeprefix(scope.get("root_path", ""))
    return rest if not rest or rest.startswith("/") else path


def clean_path(path: str) -> str:
    """Return a path without repeated slashes, and without one at its end."""
    return re.sub("/+", "/", path).rstrip("/") or "/"


def below_root(scope: Scope, root_path: str) -> Scope:
    """Return the scope of a request that came by a proxy, whether it stripped its prefix or not.

    Args:
        scope: the request's scope.
        root_path: the prefix.
    """
    path = route_path(scope)
    path = route_path({"path": path, "root_path": root_path})
    root = scope.get("root_path", "") + root_path
    return {**scope, "root_path": root, "path": root + path}


class TolerantPaths:
    """The default of a router: it tries a path that matches no route without needless slashes.

    So `POST /v1/rerank/` and `//rerank` reach their route; a redirect would lose the body.

    Args:
        router: the router, which must not redirect on its own.
    """

    def __init__(self, router: Router) -> None:
        self._router = router
        self._not_found = router.not_found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request that matches no route as it stands."""
        path, root = route_path(scope), scope.get("root_path", "")
        if scope["type"] != "http" or path == clean_path(path):
            await self._not_found(scope, receive, send)
        elif not path:  # the links of the page are relative to this address
            await RedirectResponse(f"{root}/", 308)(scope, receive, send)
        else:
            scope["path"] = root + clean_path(path)
            await self._router(scope, receive, send)
