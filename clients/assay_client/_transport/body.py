"""ReplyBody: the body of a reply, decompressed and bounded while it arrives."""

from __future__ import annotations

import zlib

from assay_client.errors import ProtocolError

ENCODINGS = ("gzip", "deflate")
"""The content codings that the client asks for."""

_AUTOMATIC_HEADER = zlib.MAX_WBITS | 32  # gzip's or zlib's


class ReplyBody:
    """The body of one reply.

    Args:
        encoding: the `Content-Encoding` header.
        max_bytes: the limit, after decompression.
        url: the server's address, for the errors.

    Raises:
        ProtocolError: the encoding is not one that the client asks for.
    """

    def __init__(self, encoding: str | None, max_bytes: int, url: str) -> None:
        name = (encoding or "identity").strip().lower()
        if name not in (*ENCODINGS, "identity"):
            raise ProtocolError(f"the reply of {url} has the encoding {name[:32]!r}")
        self._decoder = None if name == "identity" else zlib.decompressobj(_AUTOMATIC_HEADER)
        self._max_bytes = max_bytes
        self._url = url
        self._content = bytearray()

    def add(self, chunk: bytes) -> None:
        """Add the next bytes as they arrived.

        Raises:
            ProtocolError: the body is larger than the limit, or damaged.
        """
        room = self._max_bytes - len(self._content) + 1  # one more, which shows the excess
        try:
            part = chunk if self._decoder is None else self._decoder.decompress(chunk, room)
        except zlib.error as error:
            raise ProtocolError(f"the reply of {self._url} cannot be decoded") from error
        if len(part) >= room:
            raise ProtocolError(
                f"the reply of {self._url} is larger than {self._max_bytes} bytes: send fewer "
                "items in a request, or raise max_reply_bytes"
            )
        self._content += part

    def finish(self) -> bytes:
        """Return the whole body.

        Raises:
            ProtocolError: its compressed form is incomplete.
        """
        if self._decoder is not None and self._content and not self._decoder.eof:
            raise ProtocolError(f"the reply of {self._url} cannot be decoded")
        return bytes(self._content)
