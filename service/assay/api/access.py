"""Access, which decides whether a request is served: its key, its `Host` and its origin."""

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable, Collection, Mapping
from ipaddress import ip_address, ip_network

from cachetools import TTLCache
from starlette.types import Scope

from assay.api.hosts import HostCheck
from assay.api.keys import ApiKeys
from assay.api.paths import clean_path, route_path
from assay.errors import AssayError, Forbidden, HostNotAllowed, OriginNotAllowed, Unauthorized
from assay.metrics import Metrics
from assay.types import NO_CALLER, STRANGER, Caller

logger = logging.getLogger(__name__)

Headers = Mapping[bytes, bytes]

READ_METHODS = frozenset(("GET", "HEAD"))
MAX_ADMITTED = 1024
LOG_SECONDS, MAX_LOGGED_ADDRESSES = 60.0, 1024
FREE_GUESSES, GUESS_SECONDS, MAX_SLOWED = 20, 1.0, 256
"""Wrong keys of an address within `LOG_SECONDS` that are answered at once; the delay of each later
one; and the replies that are delayed at a time.
"""
OTHER_ADDRESSES = "other addresses"
IPV6_SITE_BITS = 64
REASONS: Mapping[type[AssayError], str] = {
    Unauthorized: "missing",
    Forbidden: "wrong",
    HostNotAllowed: "host",
    OriginNotAllowed: "origin",
}


class Refusals:
    """The refused requests and wrong keys: counted by reason, logged by address, and slowed.

    An address is logged once a minute. Addresses beyond those that are kept count as one. A right
    key is never delayed.

    Args:
        metrics: the counter of refusals.
        clock: monotonic seconds.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._series = {kind: metrics.refusals.labels(name) for kind, name in REASONS.items()}
        self._guesses: TTLCache[str, list[int]] = TTLCache(
            MAX_LOGGED_ADDRESSES + 1, ttl=LOG_SECONDS, timer=clock
        )
        self._slowed = 0

    async def record(self, scope: Scope, error: AssayError) -> None:
        """Record a refused request, or a wrong key. Return when its reply may be sent."""
        self._series[type(error)].inc()
        guesses = self._count(_address(scope), error)
        if guesses > FREE_GUESSES and self._slowed < MAX_SLOWED:
            self._slowed += 1
            try:
                await asyncio.sleep(GUESS_SECONDS)
            finally:
                self._slowed -= 1

    def _count(self, address: str, error: AssayError) -> int:
        """Return the wrong keys that an address has sent lately; log the first refusal."""
        if address not in self._guesses and len(self._guesses) >= MAX_LOGGED_ADDRESSES:
            address = OTHER_ADDRESSES
        count = self._guesses.get(address)
        if count is None:
            count = self._guesses[address] = [0]
            logger.warning("refused %s: %s (logged once a minute)", address, error)
        count[0] += type(error) is Forbidden
        return count[0]


class Access:
    """The check of each request before it is routed.

    Args:
        keys: the accepted API keys; None if no key is required.
        public_paths: paths that may be read without a key, and under any `Host`.
        hosts: the check of `Host` and origin; None if requests need a key and may have any `Host`.
        refusals: the record of refused requests.
    """

    def __init__(
        self,
        keys: ApiKeys | None,
        public_paths: Collection[str],
        hosts: HostCheck | None,
        refusals: Refusals,
    ) -> None:
        self.keys = keys
        self._public_paths = public_paths
        self._hosts = hosts
        self.refusals = refusals
        self.admitted: dict[tuple[object, ...], Caller] = {}
        """The senders of requests without keys by `Host` and by the server's address, which decides
        whether `Host` is checked. A request like one of them that no browser sent needs no check.
        """

    async def admit(self, scope: Scope, headers: Headers) -> Caller:
        """Return the request's sender; a public path needs no key, but a wrong one is recorded.

        Raises:
            Unauthorized: the path needs a key, and the request has none.
            Forbidden: the path needs a key, and the request's is not accepted.
            HostNotAllowed, OriginNotAllowed: see `HostCheck`.
        """
        try:
            return self._find(scope, headers)
        except (Unauthorized, Forbidden) as error:
            is_stranger = not isinstance(error, OriginNotAllowed) and self._is_public(scope)
            if not is_stranger or type(error) is Forbidden:
                await self.refusals.record(scope, error)
            if not is_stranger:
                raise
            return STRANGER  # a probe calls the server by any name, and may have an old key

    def _find(self, scope: Scope, headers: Headers) -> Caller:
        if self._hosts is not None:
            self._hosts.check(scope, headers)
        if self.keys is None:
            if len(self.admitted) < MAX_ADMITTED:
                self.admitted[headers.get(b"host"), *(scope.get("server") or ())] = NO_CALLER
            return NO_CALLER
        (key, is_authorization), admitted = key_of(headers), self.keys.admitted
        caller = self.keys.find(key)
        if caller is not None:
            if self._hosts is None and is_authorization and len(admitted) < MAX_ADMITTED:
                admitted[headers[b"authorization"]] = caller
            return caller
        if not key:
            raise Unauthorized(
                "this server wants an API key",
                hint="Authorization: Bearer KEY, or http://:KEY@HOST where only a URL can be set",
            )
        raise Forbidden("this API key is not accepted")

    def _is_public(self, scope: Scope) -> bool:
        is_read = scope["method"] in READ_METHODS
        return is_read and clean_path(route_path(scope)) in self._public_paths


def key_of(headers: Headers) -> tuple[bytes, bool]:
    """Return a request's key, and whether `Authorization` has it.

    It is a bearer token, a URL's password (basic), or `X-API-Key`.
    """
    scheme, _, rest = headers.get(b"authorization", b"").partition(b" ")
    match scheme.lower():
        case b"bearer":
            return rest.strip(), True
        case b"basic":
            return _password(rest.strip()), True
    return headers.get(b"x-api-key", b""), False


def _password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def _address(scope: Scope) -> str:
    """Return the address of a request's sender; of IPv6, the network that one site has."""
    client = scope.get("client")
    if client is None:
        return "a Unix socket"
    host = str(client[0])
    try:
        address = ip_address(host)
    except ValueError:  # a proxy may send any text
        return repr(host[:64])
    if address.version == 4:
        return host
    return str(ip_network((int(address), IPV6_SITE_BITS), strict=False))
