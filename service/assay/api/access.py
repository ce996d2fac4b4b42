"""Access, which decides whether a request is served: its key, its Host and its origin."""

import base64
import binascii
from collections.abc import Collection, Mapping

from starlette.types import Scope

from assay.api.keys import ApiKeys
from assay.api.paths import clean_path, route_path
from assay.errors import Forbidden, Unauthorized
from assay.types import NO_CALLER, STRANGER, Caller

Headers = Mapping[bytes, bytes]

READ_METHODS = frozenset(("GET", "HEAD"))


class Access:
    """The check of each request before it is routed.

    Args:
        keys: the accepted API keys; None if no key is required.
        public_paths: paths that may be read without a key.
    """

    def __init__(self, keys: ApiKeys | None, public_paths: Collection[str]) -> None:
        self._keys = keys
        self._public_paths = public_paths

    def admit(self, scope: Scope, headers: Headers) -> Caller:
        """Return the request's sender; a public path needs no key.

        Raises:
            Unauthorized: the path needs a key, and the request has none.
            Forbidden: the path needs a key, and the request's is not accepted.
        """
        if self._keys is None:
            return NO_CALLER
        key = key_of(headers)
        caller = self._keys.find(key)
        if caller is not None:
            return caller
        if self._is_public(scope):
            return STRANGER
        if not key:
            raise Unauthorized(
                "this server wants an API key",
                hint="Authorization: Bearer KEY, or http://:KEY@HOST where only a URL can be set",
            )
        raise Forbidden("this API key is not accepted")

    def _is_public(self, scope: Scope) -> bool:
        is_read = scope["method"] in READ_METHODS
        return is_read and clean_path(route_path(scope)) in self._public_paths


def key_of(headers: Headers) -> bytes:
    """Return a request's key: a bearer token, a URL's password (basic), or `X-API-Key`."""
    scheme, _, rest = headers.get(b"authorization", b"").partition(b" ")
    match scheme.lower():
        case b"bearer":
            return rest.strip()
        case b"basic":
            return _password(rest.strip())
    return headers.get(b"x-api-key", b"")


def _password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
