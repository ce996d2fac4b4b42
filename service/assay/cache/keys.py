"""Cache keys, and raws as bytes with a checksum."""

import hashlib
import math
import struct

from assay_models.base import Raw

SCHEMA = b"assay-raw-1"


def cache_key(fingerprint: str, input_key: bytes) -> bytes:
    """Return the key of one raw: schema, fingerprint and canonical input, each with its length.

    No header, no id and no run enters the key.

    Args:
        fingerprint: the model's fingerprint.
        input_key: the prepared input's key.
    """
    digest = hashlib.blake2b(digest_size=32)
    for part in (SCHEMA, fingerprint.encode(), input_key):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def owned_key(owner: bytes, key: bytes) -> bytes:
    """Return the key of a raw that only requests of one owner share.

    Args:
        owner: the owner's name, of at most 64 bytes.
        key: the key of the same raw without an owner.
    """
    return hashlib.blake2b(key, digest_size=32, key=owner).digest()


def encode(key: bytes, raw: Raw) -> bytes:
    """Return a raw as bytes: a checksum keyed by `key`, then the numbers as big-endian doubles."""
    numbers = struct.pack(f">{len(raw)}d", *raw)
    return _checksum(key, numbers) + numbers


def decode(key: bytes, value: object) -> Raw | None:
    """Return the raw that `encode` wrote under this very key; None for anything else.

    NaN and the infinities are none of a raw's numbers.
    """
    if not isinstance(value, bytes) or len(value) < 16 or len(value) % 8:
        return None
    checksum, numbers = value[:8], value[8:]
    if checksum != _checksum(key, numbers):
        return None
    raw = struct.unpack(f">{len(numbers) // 8}d", numbers)
    return raw if all(map(math.isfinite, raw)) else None


def _checksum(key: bytes, numbers: bytes) -> bytes:
    return hashlib.blake2b(numbers, digest_size=8, key=key).digest()
