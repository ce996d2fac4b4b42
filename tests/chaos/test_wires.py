"""Slow, broken and hostile connections: each gets a true answer, an honest refusal or an end."""

import asyncio
import contextlib
from collections.abc import Sequence

import pytest

from assay.settings import Settings

from .devices import Script, happened, truth, until
from .servers import Answer, Server, asking, head, lawful, standing

TEXTS = ["one", "three", "poison", "refused"]
BODY = asking(["one"]).partition(b"\r\n\r\n")[2]


def replies(received: bytes) -> list[int]:
    """The statuses of all replies in these bytes, of which each is whole."""
    found = []
    while received:
        lines, _, after = received.partition(b"\r\n\r\n")
        (length,) = (
            int(line.split(b":")[1])
            for line in lines.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        )
        assert len(after) >= length
        found.append(int(lines.split()[1]))
        received = after[length:]
    return found


async def reply_to(server: Server, data: bytes) -> list[int]:
    """What comes back until the server closes, or the caller who sent `data` has heard enough."""
    async with await server.connect() as connection:
        with contextlib.suppress(ConnectionError):
            await connection.send(data)
        return replies(await connection.rest())


class TestSlowCallers:
    @pytest.mark.parametrize("step", [1, 7, 100])
    async def test_a_request_that_drips_is_answered(
        self, scripted_settings: Settings, script: Script, step: int
    ) -> None:
        data = asking(TEXTS)
        async with standing(scripted_settings) as server, await server.connect() as dripping:
            for begin in range(0, len(data), step):
                await dripping.send(data[begin : begin + step])
                await asyncio.sleep(0)
            assert not lawful(await dripping.answer(), TEXTS)
            await dripping.send(asking(["one"]))
            assert lawful(await dripping.answer(), ["one"])

    async def test_who_never_ends_his_request_holds_up_nobody(
        self, scripted_settings: Settings, script: Script
    ) -> None:
        async with standing(scripted_settings) as server:
            idle = [await server.connect() for _ in range(50)]
            starts = (b"", b"POST", head(1000), head(1000) + b"{")
            for number, caller in enumerate(idle):
                await caller.send(starts[number % len(starts)])
            answers = await asyncio.gather(*(server.ask([f"text {n}"]) for n in range(50)))
            assert [answer.scores for answer in answers] == [
                [truth(f"text {n}")] for n in range(50)
            ]
            for caller in idle:
                caller.close()

    async def test_a_slow_reader_gets_a_large_reply_whole_and_holds_up_nobody(
        self, scripted_settings: Settings, script: Script
    ) -> None:
        texts = [f"text {number}" for number in range(20_000)]
        settings = scripted_settings.model_copy(update={"max_items": len(texts)})
        async with standing(settings) as server:
            slow = await server.connect(receive_buffer=4096)
            await slow.send(asking(texts, "Connection: close", id_length=256))
            beginning = await slow.reader.readexactly(10)
            assert (await server.ask(["quick"])).scores == [truth("quick")]
            received = [beginning]
            while part := await slow.reader.read(50_000):
                received.append(part)
                await asyncio.sleep(0)
            _, _, body = b"".join(received).partition(b"\r\n\r\n")
            assert len(body) > 8_000_000, "larger than what the sockets hold"
            assert lawful(Answer(200, {}, body), texts)
            slow.close()

    async def test_half_a_connection_is_taken_for_a_caller_who_left(
        self, scripted_settings: Settings, script: Script
    ) -> None:
        async with standing(scripted_settings) as server:
            script.hold()
            first = asyncio.create_task(server.ask(["first"]))
            await happened(script.entered)
            async with await server.connect() as half:
                await half.send(asking(["half"]))
                await until(lambda: server.queued == len("first" + "half"))
                half.writer.write_eof()
                assert await half.rest() == b"", "an end, and no number"
            await until(lambda: server.queued == len("first"))
            script.release()
            assert (await first).scores == [truth("first")]
            assert script.rows["half"] == 0


GARBAGE = {
    "zeros": b"\0" * 1000,
    "a TLS hello": bytes.fromhex("16030100c8010000c40303"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "words": b"score this, please\r\n\r\n",
    "another protocol": b"*1\r\n$4\r\nPING\r\n",
    "bare newlines": b"GET /healthz HTTP/1.1\nHost: assay\n\n",
    "a version to come": b"GET /healthz HTTP/9.9\r\nHost: assay\r\n\r\n",
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
        self, scripted_settings: Settings, script: Script, garbage: str
    ) -> None:
        async with standing(scripted_settings) as server:
            assert await reply_to(server, GARBAGE[garbage]) == [400]
            assert not script.forwards

    @pytest.mark.parametrize("wrong", WRONG_LENGTHS)
    async def test_a_wrong_length_is_refused_and_nothing_is_scored(
        self, scripted_settings: Settings, script: Script, wrong: str
    ) -> None:
        async with standing(scripted_settings) as server:
            (status,) = await reply_to(server, with_lines(*WRONG_LENGTHS[wrong]))
            assert status == (413 if wrong == "beyond the limit" else 400)
            assert not script.forwards

    @pytest.mark.parametrize("end", [BODY, BODY[:-1], b""])
    @pytest.mark.parametrize("chunked", [False, True])
    async def test_a_body_that_ends_too_soon_is_not_scored(
        self, scripted_settings: Settings, script: Script, end: bytes, chunked: bool
    ) -> None:
        lines = ["Transfer-Encoding: chunked"] if chunked else [f"Content-Length: {len(BODY) + 9}"]
        body = b"%x\r\n%s" % (len(BODY) + 9, end) if chunked else end
        async with standing(scripted_settings) as server:
            async with await server.connect() as connection:
                await connection.send(with_lines(lines, body))
                await until(lambda: server.requests() == 1)
                connection.writer.write_eof()
                assert await connection.rest() == b""
            await server.at_rest()
            assert not script.forwards

    async def test_chunks_beyond_the_limit_are_refused_before_the_last_one(
        self, scripted_settings: Settings, script: Script
    ) -> None:
        settings = scripted_settings.model_copy(update={"max_body_bytes": 1000})
        async with standing(settings) as server, await server.connect() as connection:
            chunks = b"1f4\r\n%s\r\n" % (b" " * 500) * 3
            await connection.send(with_lines(["Transfer-Encoding: chunked"], chunks))
            answer = await connection.answer()
            assert (answer.status, answer.json["code"]) == (413, "request_too_large")
            assert await connection.rest() == b""

    async def test_garbage_after_a_request_ends_the_connection_without_a_second_answer(
        self, scripted_settings: Settings, script: Script
    ) -> None:
        async with standing(scripted_settings) as server:
            script.hold()
            async with await server.connect() as connection:
                await connection.send(asking(["one"]))
                await happened(script.entered)
                await connection.send(GARBAGE["zeros"])
                assert replies(await connection.rest()) == [400]
                script.release()


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
    async def test_a_flood_is_refused_or_answered_truly_and_nobody_else_suffers(
        self, scripted_settings: Settings, script: Script, lines: list[str]
    ) -> None:
        async with standing(scripted_settings) as server, await server.connect() as flooding:
            neighbour = asyncio.create_task(server.ask(["neighbour"]))
            await flooding.send(asking(["one"], *lines))
            answer = await flooding.answer()
            assert answer.status in (200, 400, 413, 422, 431, 504)
            assert answer.status != 200 or lawful(answer, ["one"])
            assert len(answer.headers["x-request-id"]) <= 128
            assert (await neighbour).scores == [truth("neighbour")]


class TestPipelining:
    @pytest.mark.parametrize("count", [2, 30])
    async def test_requests_sent_together_are_answered_in_order(
        self, scripted_settings: Settings, script: Script, count: int
    ) -> None:
        async with standing(scripted_settings) as server, await server.connect() as connection:
            await connection.send(b"".join(asking([f"text {n}"]) for n in range(count)))
            for number in range(count):
                assert (await connection.answer()).scores == [truth(f"text {number}")]

    async def test_a_failure_between_them_stays_where_it_is(
        self, scripted_settings: Settings, script: Script
    ) -> None:
        bad = with_lines(["Content-Length: 1"], b"{")
        async with standing(scripted_settings) as server, await server.connect() as connection:
            await connection.send(asking(["poison"]) + bad + asking(["one"]))
            poisoned, malformed, good = [await connection.answer() for _ in range(3)]
            assert poisoned.scores == [None]
            assert malformed.status == 422
            assert good.scores == [truth("one")]

    async def test_the_second_waits_while_the_first_is_computed(
        self, scripted_settings: Settings, script: Script
    ) -> None:
        async with standing(scripted_settings) as server:
            script.hold()
            async with await server.connect() as connection:
                await connection.send(asking(["first"]))
                await happened(script.entered)
                await connection.send(asking(["second"]))
                assert (await server.get("/healthz")).body == b"ok"
                script.release()
                answers = [(await connection.answer()).scores for _ in range(2)]
                assert answers == [[truth("first")], [truth("second")]]

    async def test_who_sends_two_and_leaves_leaves_nothing_behind(
        self, scripted_settings: Settings, script: Script
    ) -> None:
        async with standing(scripted_settings) as server:
            script.hold()
            connection = await server.connect()
            await connection.send(asking(["first"]) + asking(["second"]))
            await happened(script.entered)
            connection.close()
            script.release()
