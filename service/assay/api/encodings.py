"""Compressed bodies of requests: gzip, deflate and zstd, one member each."""

import sys
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from assay.errors import RequestTooLarge, UnreadableBody, UnsupportedEncoding

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# A decompressor keeps a window of what it wrote. RFC 9659: at most 8 MiB in HTTP.
MAX_WINDOW_LOG = 23
PART_BYTES = 2**20
GZIP, ZLIB, RAW_DEFLATE = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class Decompressor(Protocol):
    """A decompressor of the standard library."""

    @property
    def eof(self) -> bool:
        """Whether the member is complete."""
        ...

    @property
    def unused_data(self) -> bytes:
        """The bytes after the member."""
        ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        """Return at most `max_length` decompressed bytes."""
        ...


def _deflate(content: bytes) -> Decompressor:
    """Return the decompressor of deflate: many senders omit the zlib header that HTTP asks for."""
    has_header = content[:1] == b"\x78" and int.from_bytes(content[:2], "big") % 31 == 0
    return zlib.decompressobj(ZLIB if has_header else RAW_DEFLATE)


def _gzip(_: bytes) -> Decompressor:
    return zlib.decompressobj(GZIP)


def _zstd(_: bytes) -> Decompressor:
    options = {int(zstd.DecompressionParameter.window_log_max): MAX_WINDOW_LOG}
    return zstd.ZstdDecompressor(options=options)


DECOMPRESSORS: dict[bytes, Callable[[bytes], Decompressor]] = {
    b"gzip": _gzip,
    b"x-gzip": _gzip,
    b"deflate": _deflate,
    b"zstd": _zstd,
}
SUPPORTED_CODINGS = "gzip, deflate, zstd"
IDENTITY = frozenset((b"", b"identity"))


def coding_of(header: bytes) -> bytes | None:
    """Return the coding that a Content-Encoding header names; None if the body is as it is.

    Raises:
        UnsupportedEncoding: it is unknown, or there are several.
    """
    coding = header.strip().lower()
    if coding in IDENTITY:
        return None
    if coding not in DECOMPRESSORS:
        raise UnsupportedEncoding(
            "this Content-Encoding is not supported",
            hint=f"send the body as it is, or as one of {SUPPORTED_CODINGS}",
        )
    return coding


def decompress(content: bytes, coding: bytes, max_bytes: int) -> Iterator[bytes]:
    """Yield a decompressed body in parts of at most `PART_BYTES`.

    Args:
        content: the compressed body.
        coding: a key of `DECOMPRESSORS`.
        max_bytes: the limit of the decompressed body.

    Raises:
        RequestTooLarge: it exceeds the limit.
        UnreadableBody: it is damaged, cut short, or more follows it.
    """
    decompressor = DECOMPRESSORS[coding](content)
    size = reached = 0
    rest = b""
    while not decompressor.eof:
        if not rest and getattr(decompressor, "needs_input", True):
            rest = content[reached : reached + PART_BYTES]
            reached += len(rest)
        is_last = not rest and reached == len(content)
        try:
            part = decompressor.decompress(rest, min(PART_BYTES, max_bytes + 1 - size))
        except (zlib.error, zstd.ZstdError, EOFError) as error:
            raise _unreadable(coding) from error
        rest = getattr(decompressor, "unconsumed_tail", b"")  # zstd keeps it
        size += len(part)
        if size > max_bytes:
            raise RequestTooLarge(
                f"the decompressed body is larger than {max_bytes} bytes", hint="split the request"
            )
        if part:
            yield part
        elif is_last:
            break
    if not decompressor.eof or decompressor.unused_data or reached < len(content):
        raise _unreadable(coding)


def _unreadable(coding: bytes) -> UnreadableBody:
    return UnreadableBody(
        f"the body is not {coding.decode()}, as its Content-Encoding says",
        hint="compress the whole body once, or send it without Content-Encoding",
    )
