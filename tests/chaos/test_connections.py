"""Slow, broken and hostile connections: each gets a true score, an error or a closed connection."""

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from assay.settings import Settings

from .devices import ScriptedDevice, true_score, wait_for_event, wait_until
from .servers import Reply, Server, all_scored, checked_server, request_head, score_request

pytestmark = pytest.mark.slow

TEXTS = ["one", "three", "poison", "refused"]
BODY = score_request(["one"]).partition(b"\r\n\r\n")[2]


def statuses_of(received: bytes) -> list[int]:
    """Return the statuses of all replies in these bytes; fail if one is incomplete."""
    statuses = []
    while received:
        lines, _, after = received.partition(b"\r\n\r\n")
        (length,) = (
            int(line.split(b":")[1])
            for line in lines.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        assert len(after) >= length
        statuses.append(int(lines.split()[1]))
        received = after[length:]
    return statuses


async def send_raw(server: Server, data: bytes) -> list[int]:
    """Send bytes, and return the statuses of the replies until the server closes."""
    async with await server.connect() as connection:
        with contextlib.suppress(ConnectionError):
            await connection.send(data)
        return statuses_of(await connection.read_rest())


class TestSlowCallers:
    @pytest.mark.parametrize("step", [1, 7, 100])
    async def test_a_request_that_arrives_in_small_parts_is_answered(
        self, scripted_settings: Settings, device: ScriptedDevice, step: int
    ) -> None:
        data = score_request(TEXTS)
        async with checked_server(scripted_settings) as server, await server.connect() as slow:
            for begin in range(0, len(data), step):
                await slow.send(data[begin : begin + step])
                await asyncio.sleep(0)
            assert not all_scored(await slow.read_reply(), TEXTS)
            await slow.send(score_request(["one"]))
            assert all_scored(await slow.read_reply(), ["one"])

    async def test_incomplete_requests_delay_no_other_request(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        async with checked_server(scripted_settings) as server:
            idle = [await server.connect() for _ in range(50)]
            starts = (b"", b"POST", request_head(1000), request_head(1000) + b"{")
            for number, caller in enumerate(idle):
                await caller.send(starts[number % len(starts)])
            replies = await asyncio.gather(*(server.score([f"text {n}"]) for n in range(50)))
            assert [reply.scores for reply in replies] == [
                [true_score(f"text {n}")] for n in range(50)
            ]
            for caller in idle:
                caller.close()

    async def test_a_slow_reader_gets_a_complete_reply_and_delays_no_other_request(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        texts = [f"text {number}" for number in range(20_000)]
        settings = scripted_settings.model_copy(update={"max_items": len(texts)})
        async with checked_server(settings) as server:
            slow = await server.connect(receive_buffer=4096)
            await slow.send(score_request(texts, "Connection: close", id_length=256))
            beginning = await slow.reader.readexactly(10)
            assert (await server.score(["quick"])).scores == [true_score("quick")]
            received = [beginning]
            while part := await slow.reader.read(50_000):
                received.append(part)
                await asyncio.sleep(0)
            _, _, body = b"".join(received).partition(b"\r\n\r\n")
            assert len(body) > 8_000_000, "larger than what the sockets hold"
            assert all_scored(Reply(200, {}, body), texts)
            slow.close()

    async def test_a_half_closed_connection_counts_as_disconnected(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        async with checked_server(scripted_settings) as server:
            device.hold()
            first = asyncio.create_task(server.score(["first"]))
            await wait_for_event(device.entered)
            async with await server.connect() as half:
                await half.send(score_request(["half"]))
                await wait_until(lambda: server.queued_tokens == len("first" + "half"))
                half.writer.write_eof()
                assert await half.read_rest() == b"", "the connection is closed without a reply"
            await wait_until(lambda: server.queued_tokens == len("first"))
            device.release()
            assert (await first).scores == [true_score("first")]
            assert device.rows["half"] == 0


GARBAGE = {
    "zeros": b"\0" * 1000,
    "a TLS hello": bytes.fromhex("16030100c8010000c40303"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "words": b"score this, please\r\n\r\n",
    "another protocol": b"*1\r\n$4\r\nPING\r\n",
    "bare newlines": b"GET /healthz HTTP/1.1\nHost: assay\n\n",
    "a future version": b"GET /healthz HTTP/9.9\r\nHost: assay\r\n\r\n",
    "an unknown method": b"SCORE /v1/score HTTP/1.1\r\nHost: assay\r\n\r\n",
    "a tunnel": b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: assay\r\n\r\n",
    "a broken address": b"GET http://[::1 HTTP/1.1\r\nHost: assay\r\n\r\n",
    "bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\nHost: assay\r\n\r\n",
    "an endless path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: assay\r\n\r\n",
    "a header without colon": b"GET /healthz HTTP/1.1\r\nHost\r\n\r\n",
    "a header in a header": b"GET /healthz HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
}

WRONG_LENGTHS: dict[str, tuple[Sequence[str], bytes]] = {
    "negative": (["Content-Length: -5"], BODY),
    "a word": (["Content-Length: many"], BODY),
    "signed": ([f"Content-Length: +{len(BODY)}"], BODY),
    "beyond 64 bits": (["Content-Length: 99999999999999999999999"], BODY),
    "beyond the limit": (["Content-Length: 99999999999"], BODY),
    "too short": ([f"Content-Length: {len(BODY) - 5}"], BODY),
    "twice": ([f"Content-Length: {len(BODY)}", "Content-Length: 3"], BODY),
    "and chunks": (
        [f"Content-Length: {len(BODY)}", "Transfer-Encoding: chunked"],
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY),
    ),
    "chunks of no size": (["Transfer-Encoding: chunked"], b"zz\r\n" + BODY),
    "an unknown coding": (["Transfer-Encoding: squeezed"], BODY),
}


def with_lines(lines: Sequence[str], body: bytes) -> bytes:
    start = ["POST /v1/score HTTP/1.1", "Host: assay", "Content-Type: application/json"]
    return "\r\n".join([*start, *lines, "", ""]).encode() + body


class TestBrokenRequests:
    @pytest.mark.parametrize("garbage", GARBAGE)
    async def test_garbage_is_refused_and_the_connection_closed(
        self, scripted_settings: Settings, device: ScriptedDevice, garbage: str
    ) -> None:
        async with checked_server(scripted_settings) as server:
            status = 414 if garbage == "an endless path" else 400
            assert await send_raw(server, GARBAGE[garbage]) == [status]
            assert not device.forwards

    @pytest.mark.parametrize("wrong", WRONG_LENGTHS)
    async def test_a_wrong_length_is_refused_and_nothing_is_scored(
        self, scripted_settings: Settings, device: ScriptedDevice, wrong: str
    ) -> None:
        async with checked_server(scripted_settings) as server:
            statuses = await send_raw(server, with_lines(*WRONG_LENGTHS[wrong]))
            expected = {"beyond the limit": [413], "too short": [422, 400]}  # the rest is garbage
            assert statuses == expected.get(wrong, [400])
            assert not device.forwards

    @pytest.mark.parametrize("end", [BODY, BODY[:-1], b""])
    @pytest.mark.parametrize("chunked", [False, True])
    async def test_a_body_that_ends_too_soon_is_not_scored(
        self, scripted_settings: Settings, device: ScriptedDevice, end: bytes, chunked: bool
    ) -> None:
        lines = ["Transfer-Encoding: chunked"] if chunked else [f"Content-Length: {len(BODY) + 9}"]
        body = b"%x\r\n%s" % (len(BODY) + 9, end) if chunked else end
        async with checked_server(scripted_settings) as server:
            async with await server.connect() as connection:
                await connection.send(with_lines(lines, body))
                await wait_until(lambda: server.active_requests() == 1)
                connection.writer.write_eof()
                assert await connection.read_rest() == b""
            await server.wait_until_idle()
            assert not device.forwards

    async def test_chunks_beyond_the_limit_are_refused_before_the_last_one(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        settings = scripted_settings.model_copy(update={"max_body_bytes": 1000})
        async with checked_server(settings) as server, await server.connect() as connection:
            chunks = b"1f4\r\n%s\r\n" % (b" " * 500) * 3
            await connection.send(with_lines(["Transfer-Encoding: chunked"], chunks))
            reply = await connection.read_reply()
            assert (reply.status, reply.json["code"]) == (413, "request_too_large")
            assert await connection.read_rest() == b""

    async def test_garbage_after_a_request_is_refused_after_the_reply_to_it(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        async with checked_server(scripted_settings) as server:
            device.hold()
            async with await server.connect() as connection:
                await connection.send(score_request(["one"]))
                await wait_for_event(device.entered)
                await connection.send(GARBAGE["zeros"])
                device.release()
                assert statuses_of(await connection.read_rest()) == [200, 400]


class TestHeaderFloods:
    @pytest.mark.parametrize(
        "lines",
        [
            [f"X-{number}: y" for number in range(20_000)],
            ["X-Long: " + "y" * 4_000_000],
            [f"X-Assay-Timeout-Ms: {number}" for number in range(1, 500)],
            ["X-Request-ID: " + "r" * 100_000],
        ],
        ids=["many", "long", "the same", "an id"],
    )
    async def test_a_flood_of_headers_affects_no_other_request(
        self, scripted_settings: Settings, device: ScriptedDevice, lines: list[str]
    ) -> None:
        async with checked_server(scripted_settings) as server, await server.connect() as flooding:
            neighbour = asyncio.create_task(server.score(["neighbour"]))
            await flooding.send(score_request(["one"], *lines))
            reply = await flooding.read_reply()
            assert (reply.status, reply.json["code"]) == (431, "headers_too_large")
            assert len(reply.headers["x-request-id"]) <= 128
            assert (await neighbour).scores == [true_score("neighbour")]


class TestPipelining:
    @pytest.mark.parametrize("count", [2, 30])
    async def test_requests_sent_together_are_answered_in_order(
        self, scripted_settings: Settings, device: ScriptedDevice, count: int
    ) -> None:
        async with (
            checked_server(scripted_settings) as server,
            await server.connect() as connection,
        ):
            await connection.send(b"".join(score_request([f"text {n}"]) for n in range(count)))
            for number in range(count):
                assert (await connection.read_reply()).scores == [true_score(f"text {number}")]

    async def test_a_malformed_request_between_others_fails_alone(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        bad = with_lines(["Content-Length: 1"], b"{")
        async with (
            checked_server(scripted_settings) as server,
            await server.connect() as connection,
        ):
            await connection.send(score_request(["poison"]) + bad + score_request(["one"]))
            poisoned, malformed, good = [await connection.read_reply() for _ in range(3)]
            assert poisoned.scores == [None]
            assert malformed.status == 422
            assert good.scores == [true_score("one")]

    async def test_a_second_request_waits_for_the_reply_to_the_first(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        async with checked_server(scripted_settings) as server:
            device.hold()
            async with await server.connect() as connection:
                await connection.send(score_request(["first"]))
                await wait_for_event(device.entered)
                await connection.send(score_request(["second"]))
                assert (await server.get("/healthz")).body == b"ok"
                device.release()
                scores = [(await connection.read_reply()).scores for _ in range(2)]
                assert scores == [[true_score("first")], [true_score("second")]]

    async def test_a_caller_that_pipelines_and_disconnects_leaves_nothing_behind(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        async with checked_server(scripted_settings) as server:
            device.hold()
            connection = await server.connect()
            await connection.send(score_request(["first"]) + score_request(["second"]))
            await wait_for_event(device.entered)
            connection.close()
            device.release()
