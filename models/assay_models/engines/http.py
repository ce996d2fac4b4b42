"""HttpPool: connections to engines, and whole replies. Only this file imports the HTTP library."""

import ssl
from collections.abc import Awaitable, Callable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import NamedTuple

import httpx2

MAX_REPLY_BYTES = 16 * 1024 * 1024
# Common servers drop an idle connection after five seconds; a shorter time here makes it rare that
# a call is sent into a closing one.
KEEP_ALIVE_SECONDS = 4.0


Close = Callable[[], Awaitable[None]]


async def _close_nothing() -> None:
    return


class Reply(NamedTuple):
    """A whole reply. The names of `headers` are in lower case.

    `close_connection` closes the connection that it came on. After a reply that cannot be trusted
    the next one on that connection may be another call's.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    close_connection: Close = _close_nothing


class ConnectionFailed(Exception):
    """No whole reply came. `had_status`: its status had come, and the connection broke later."""

    def __init__(self, kind: str, *, had_status: bool) -> None:
        super().__init__(kind)
        self.kind = kind
        self.had_status = had_status


class ReplyUnreadable(Exception):
    """A reply that is larger than `MAX_REPLY_BYTES`, or is compressed though none was asked for."""


class HttpPool:
    """A pool of connections that are kept alive.

    Redirects are not followed, and cookies not kept: a balancer's cookie would send all calls to
    one engine behind it. Proxies and passwords that the environment or `.netrc` names are not used:
    an engine is called at the URL of its card and nowhere else. Certificates are checked against
    those of the system, and those that `SSL_CERT_FILE` names.

    Args:
        connections: idle connections to keep.
        connect_seconds: until a connection attempt has failed.
        is_encrypted: whether any URL is https. Otherwise no certificates are loaded, which takes
            long, and a connection that needs some fails.
    """

    def __init__(self, connections: int, connect_seconds: float, *, is_encrypted: bool) -> None:
        bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._client = httpx2.AsyncClient(
            verify=httpx2.create_ssl_context() if is_encrypted else bare,
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            timeout=httpx2.Timeout(None, connect=connect_seconds),
            limits=httpx2.Limits(
                max_connections=None,
                max_keepalive_connections=connections,
                keepalive_expiry=KEEP_ALIVE_SECONDS,
            ),
        )

    async def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Reply:
        """Send a request and read the whole reply. A cancelled one closes its connection.

        Raises:
            ConnectionFailed: there is no whole reply.
            ReplyUnreadable: it is too large, or compressed.
        """
        had_status = False
        asked = {**headers, "accept-encoding": "identity"}
        try:
            async with self._client.stream(method, url, headers=asked, content=body) as response:
                had_status = True
                return await _read(response)
        except httpx2.TransportError as error:
            raise ConnectionFailed(type(error).__name__, had_status=had_status) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


async def _read(response: httpx2.Response) -> Reply:
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise ReplyUnreadable("it is compressed")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_REPLY_BYTES:
            raise ReplyUnreadable(f"it has more than {MAX_REPLY_BYTES} bytes")
    headers = {name.lower(): value for name, value in response.headers.items()}
    stream = response.extensions.get("network_stream")
    close = _close_nothing if stream is None else stream.aclose
    return Reply(response.status_code, headers, bytes(body), close)
