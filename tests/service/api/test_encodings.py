"""Compressed bodies: every encoding, its limits, and damage."""

import asyncio
import gzip
import json
import random
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

import pytest
from backports import zstd
from hypothesis import given, settings
from hypothesis import strategies as st
from support.servers import Served, serving

from assay.api import middleware
from assay.api.components import components_of
from assay.api.encodings import DECOMPRESSORS, PART_BYTES, decompress
from assay.app import create_app
from assay.errors import RequestTooLarge, UnreadableBody
from assay.settings import Settings

BODY = {"model": "reference", "items": [{"text": "a b", "text_pair": "a"}] * 20}
JSON = {"Content-Type": "application/json"}
BOMB = b" " * 50_000_000


def raw_deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(content) + compressor.flush()


def restored(content: bytes, coding: str, max_bytes: int) -> bytes:
    return b"".join(decompress(content, coding.encode(), max_bytes))


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}


def test_every_encoding_is_tested() -> None:
    assert {name.encode() for name in COMPRESSORS} == set(DECOMPRESSORS)


@settings(deadline=None)  # a busy machine is no fault
@given(st.binary(), st.sampled_from(sorted(COMPRESSORS)))
def test_a_body_is_restored(content: bytes, coding: str) -> None:
    compressed = COMPRESSORS[coding](content)
    assert restored(compressed, coding, max(1, len(content))) == content


@pytest.mark.parametrize("coding", COMPRESSORS)
@pytest.mark.parametrize("unit", [bytes(3_000_001), random.Random(1).randbytes(3_000_001)])
def test_a_large_body_is_restored_in_parts(coding: str, unit: bytes) -> None:
    compressed = COMPRESSORS[coding](unit)
    parts = list(decompress(compressed, coding.encode(), len(unit)))
    assert b"".join(parts) == unit
    assert max(map(len, parts)) <= PART_BYTES
    for damaged in (compressed[:-1], compressed + b"x", compressed + bytes(PART_BYTES)):
        with pytest.raises(UnreadableBody):
            restored(damaged, coding, len(unit))


@given(st.binary())
def test_deflate_without_its_header_is_restored(content: bytes) -> None:
    assert restored(raw_deflate(content), "deflate", max(1, len(content))) == content


@given(st.binary(min_size=2), st.sampled_from(sorted(COMPRESSORS)))
def test_a_body_of_one_byte_too_many_is_refused(content: bytes, coding: str) -> None:
    with pytest.raises(RequestTooLarge):
        restored(COMPRESSORS[coding](content), coding, len(content) - 1)


@given(st.binary(min_size=1), st.sampled_from(sorted(COMPRESSORS)))
def test_arbitrary_bytes_are_restored_or_refused(content: bytes, coding: str) -> None:
    with suppress(UnreadableBody, RequestTooLarge):
        assert len(restored(content, coding, 1000)) <= 1000


@pytest.mark.parametrize("coding", COMPRESSORS)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_compressed_request_gets_the_reply_of_a_plain_one(
    served: Served, reference_settings: Settings, coding: str, chunked: bool
) -> None:
    content = COMPRESSORS[coding](json.dumps(BODY).encode())

    async def chunks() -> AsyncIterator[bytes]:
        yield content[:10]
        yield content[10:]

    async with served(reference_settings) as client:
        plain = await client.post("/v1/score", json=BODY)
        packed = await client.post(
            "/v1/score",
            content=chunks() if chunked else content,
            headers={**JSON, "Content-Encoding": coding.upper()},
        )
    assert packed.status_code == 200
    assert packed.json()["results"] == [
        {**result, "source": "cache"} for result in plain.json()["results"]
    ]


@pytest.mark.parametrize("coding", COMPRESSORS)
async def test_a_bomb_is_refused_within_the_limit(
    served: Served, reference_settings: Settings, coding: str
) -> None:
    bomb = COMPRESSORS[coding](BOMB)
    assert len(bomb) < 100_000
    settings = reference_settings.model_copy(update={"max_body_bytes": 100_000})
    async with served(settings) as client:
        answer = await client.post(
            "/v1/score", content=bomb, headers={**JSON, "Content-Encoding": coding}
        )
    assert (answer.status_code, answer.json()["code"]) == (413, "request_too_large")
    assert "the decompressed body is larger than 100000 bytes" in answer.json()["detail"]


def test_a_window_beyond_the_one_of_http_is_refused() -> None:
    options = {int(zstd.CompressionParameter.window_log): 27}
    compressor = zstd.ZstdCompressor(options=options)  # of unknown size, so that it is a stream
    wide = compressor.compress(BOMB) + compressor.flush()
    with pytest.raises(UnreadableBody):
        restored(wide, "zstd", len(BOMB))


@pytest.mark.parametrize("coding", COMPRESSORS)
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: b"not compressed",
        lambda content: content + content,
        lambda content: content + b"x",
    ],
    ids=["cut short", "plain", "twice", "longer"],
)
async def test_a_damaged_body_is_a_bad_request(
    served: Served, reference_settings: Settings, coding: str, damage: Callable[[bytes], bytes]
) -> None:
    content = damage(COMPRESSORS[coding](json.dumps(BODY).encode()))
    async with served(reference_settings) as client:
        answer = await client.post(
            "/v1/score", content=content, headers={**JSON, "Content-Encoding": coding}
        )
    assert (answer.status_code, answer.json()["code"]) == (400, "unreadable_body")
    assert coding in answer.json()["detail"]


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "gzip,zstd", "compress", "utf-8", "\xff"])
async def test_another_encoding_is_refused_with_the_list(
    served: Served, reference_settings: Settings, coding: str
) -> None:
    async with served(reference_settings) as client:
        answer = await client.post(
            "/v1/score", json=BODY, headers={b"Content-Encoding": coding.encode("latin-1")}
        )
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_encoding")
    assert "gzip, deflate, zstd" in answer.json()["hint"]
    assert answer.headers["Accept-Encoding"] == "gzip, deflate, zstd"


@pytest.mark.parametrize("coding", ["", "identity"])
async def test_a_body_as_it_is_is_accepted(
    served: Served, reference_settings: Settings, coding: str
) -> None:
    async with served(reference_settings) as client:
        answer = await client.post("/v1/score", json=BODY, headers={"Content-Encoding": coding})
        assert answer.status_code == 200
        no_body = await client.get("/healthz", headers={"Content-Encoding": "gzip"})
        assert no_body.status_code == 200


async def test_decompressed_bodies_are_held_while_they_grow_and_two_at_a_time(
    reference_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {**BODY, "items": [{"text": " " * 4_000_000}]}
    content = gzip.compress(json.dumps(body).encode())
    app = create_app(reference_settings.model_copy(update={"max_held_bytes": 10_000_000}))
    bodies = components_of(app).bodies
    active: set[object] = set()
    most, held = list[int](), list[int]()
    unrecorded = middleware._decompressed

    async def recorded(
        content: bytes, coding: bytes, max_bytes: int, add: Callable[[int], None]
    ) -> list[bytes]:
        def add_recorded(count: int) -> None:
            before = bodies.held
            most.append(len(active))
            add(count)
            held.append(bodies.held)
            assert bodies.held == before + count

        active.add(add)
        try:
            return await unrecorded(content, coding, max_bytes, add_recorded)
        finally:
            active.remove(add)

    monkeypatch.setattr(middleware, "_decompressed", recorded)
    headers = {**JSON, "Content-Encoding": "gzip"}
    async with serving(app) as client:
        answers = await asyncio.gather(
            *(client.post("/v1/score", content=content, headers=headers) for _ in range(8))
        )
    codes = {answer.status_code for answer in answers}
    assert codes <= {200, 503}
    assert 200 in codes
    assert max(most) == middleware.MAX_DECOMPRESSIONS
    assert 0 < min(held) <= PART_BYTES
    assert max(held) <= bodies.max_bytes
    assert bodies.held == 0
