"""HostCheck, which keeps web pages of other sites away from a server without keys."""

from collections.abc import Collection, Mapping
from ipaddress import ip_address

from starlette.types import Scope

from assay.errors import HostNotAllowed, OriginNotAllowed

Headers = Mapping[bytes, bytes]


class HostCheck:
    """The check of a request's `Host` and of the page that sent it.

    A page of another site can make a browser send requests to a server that only this machine
    reaches. With a name of its own that resolves to the server's address it can read the replies
    as well (DNS rebinding). No site has an address for its name, or a name without a dot.

    Args:
        names: the names that `Host` may have; `*` is any. Without names, `Host` is checked only
            where the server listens on loopback alone.
        origins: the origins whose pages may call the server, or `*`.
        is_loopback: whether the server listens on loopback alone.
        has_keys: whether requests need a key, which no page of another site has.
    """

    def __init__(
        self,
        names: Collection[str],
        origins: Collection[str],
        *,
        is_loopback: bool,
        has_keys: bool,
    ) -> None:
        self._names = frozenset(name.lower() for name in names)
        self._origins = frozenset(origins)
        self._is_loopback = is_loopback and not has_keys
        self._has_keys = has_keys

    def check(self, scope: Scope, headers: Headers) -> None:
        """Check a request's `Host` and origin.

        Raises:
            HostNotAllowed: its `Host` is a name that the server does not have.
            OriginNotAllowed: a page of another site sent it.
        """
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if self._names or (self._is_loopback and _is_loopback(scope)):
            self._check_host(_without_port(host))
        if not self._has_keys:
            self._check_origin(scope, headers, host)

    def _check_host(self, name: str) -> None:
        if not name or "*" in self._names or name in self._names or _is_local_name(name):
            return
        raise HostNotAllowed(
            f"this server has no name {name[:128]!r}",
            hint="add the name to ASSAY_ALLOWED_HOSTS, or set ASSAY_API_KEYS",
        )

    def _check_origin(self, scope: Scope, headers: Headers, host: str) -> None:
        origin, site = headers.get(b"origin"), headers.get(b"sec-fetch-site")
        if site == b"same-origin":  # no page can set it; behind a proxy `Host` may be another name
            return
        if origin is None:
            is_refused = site == b"cross-site" and not _is_visit(scope, headers)
        else:
            text = origin.decode("latin-1").lower()
            is_refused = text.partition("://")[2] != host and not self._origins & {text, "*"}
        if is_refused:
            raise OriginNotAllowed(
                "a page of another site sent this request",
                hint="add its origin to ASSAY_CORS_ORIGINS, or set ASSAY_API_KEYS",
            )


def _without_port(host: str) -> str:
    """Return the name or the address in a `Host` header."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].removesuffix(".")


def _is_local_name(name: str) -> bool:
    """Return whether no site of the web has the name: it has no dot, or is an address."""
    return "." not in name or name.endswith(".localhost") or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(scope: Scope) -> bool:
    """Return whether a request came to a loopback address, not to a Unix socket."""
    host, port = scope.get("server") or ("", None)
    return port is not None and _is_address(host) and ip_address(host).is_loopback


def _is_visit(scope: Scope, headers: Headers) -> bool:
    """Return whether a reader follows a link to the server; the page of the link reads nothing."""
    is_page = headers.get(b"sec-fetch-dest") == b"document"
    return is_page and headers.get(b"sec-fetch-mode") == b"navigate" and scope["method"] == "GET"
