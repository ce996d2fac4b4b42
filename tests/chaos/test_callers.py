"""Callers that disconnect at any moment, retry too often or come all at once: each is served."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from assay.settings import Settings

from .devices import ScriptedDevice, true_score, wait_for_event, wait_until
from .servers import (
    MANY,
    MODEL,
    Connection,
    Server,
    all_scored,
    checked_server,
    request_head,
    score_request,
)

pytestmark = pytest.mark.slow

Disconnect = Callable[[Connection], None]
Phase = Callable[[Server, ScriptedDevice, Connection], Awaitable[None]]


async def after_the_head(server: Server, device: ScriptedDevice, caller: Connection) -> None:
    await caller.send(request_head(1000))
    await wait_until(lambda: server.active_requests() == 1)


async def within_the_body(server: Server, device: ScriptedDevice, caller: Connection) -> None:
    await caller.send(request_head(1000) + b'{"model": "scripted", "items": [')
    await wait_until(lambda: server.active_requests() == 1)


async def right_after_the_body(server: Server, device: ScriptedDevice, caller: Connection) -> None:
    await caller.send(score_request(["gone"]))


async def while_queued(server: Server, device: ScriptedDevice, caller: Connection) -> None:
    device.hold()
    staying = await server.connect()
    await staying.send(score_request(["first"]))
    await wait_for_event(device.entered)
    await caller.send(score_request(["gone", "poison"]))
    await wait_until(lambda: server.queued_tokens == len("first" + "gone" + "poison"))
    staying.close()


async def while_computing(server: Server, device: ScriptedDevice, caller: Connection) -> None:
    device.hold()
    await caller.send(score_request(["gone", "poison"]))
    await wait_for_event(device.entered)


async def while_the_reply_is_written(
    server: Server, device: ScriptedDevice, caller: Connection
) -> None:
    await caller.send(score_request([f"{n}" for n in range(1024)], id_length=256))
    assert await caller.reader.readexactly(1) == b"H"


PHASES = [
    after_the_head,
    within_the_body,
    right_after_the_body,
    while_queued,
    while_computing,
    while_the_reply_is_written,
]


class TestDisconnecting:
    @pytest.mark.parametrize("disconnect", [Connection.close, Connection.reset])
    @pytest.mark.parametrize("phase", PHASES)
    async def test_a_caller_that_disconnects_affects_no_other(
        self,
        scripted_settings: Settings,
        device: ScriptedDevice,
        phase: Phase,
        disconnect: Disconnect,
    ) -> None:
        async with checked_server(scripted_settings) as server:
            leaving = await server.connect(receive_buffer=4096)
            await phase(server, device, leaving)
            neighbour = asyncio.create_task(server.score(["neighbour", "gone"]))
            disconnect(leaving)
            device.release()
            assert (await neighbour).scores == [true_score("neighbour"), true_score("gone")]

    @pytest.mark.parametrize("left", range(6))
    async def test_one_of_six_callers_of_a_shared_item_may_disconnect(
        self, scripted_settings: Settings, device: ScriptedDevice, left: int
    ) -> None:
        async with checked_server(scripted_settings) as server:
            device.hold()
            callers = [await server.connect() for _ in range(6)]
            for number, caller in enumerate(callers):
                await caller.send(score_request(["same", f"own {number}"]))
            await wait_until(lambda: server.queued_tokens == len("same") + 6 * len("own 0"))
            callers[left].close()
            device.release()
            for number, caller in enumerate(callers):
                if number != left:
                    reply = await caller.read_reply()
                    assert reply.scores == [true_score("same"), true_score(f"own {number}")]
                    caller.close()
            assert device.rows["same"] == 1

    async def test_the_items_of_a_gone_caller_are_not_computed(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        async with checked_server(scripted_settings) as server:
            device.hold()
            staying = asyncio.create_task(server.score(["first"]))
            await wait_for_event(device.entered)
            leaving = await server.connect()
            await leaving.send(score_request(["abandoned", "poison"]))
            await wait_until(lambda: server.queued_tokens == len("first" + "abandoned" + "poison"))
            leaving.close()
            await wait_until(lambda: server.queued_tokens == len("first"))
            device.release()
            assert (await staying).scores == [true_score("first")]
            assert server.metric("assay_dropped_total", model=MODEL, reason="abandoned") == 2
            assert server.metric("assay_forwards_total", model=MODEL, outcome="failed") == 0
            assert device.forwards == [["first"]]

    async def test_a_caller_that_disconnects_is_no_server_error(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        async with checked_server(scripted_settings) as server:
            for phase in (after_the_head, within_the_body):
                caller = await server.connect()
                await phase(server, device, caller)
                caller.close()
                await server.wait_until_idle()
            assert server.metric("assay_requests_total", route="/v1/score", status="500") == 0


class TestOverload:
    async def test_a_full_queue_refuses_whole_requests_until_it_drains(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        settings = scripted_settings.model_copy(update={"max_queue_tokens": 10})
        async with checked_server(settings) as server:
            device.hold()
            first = asyncio.create_task(server.score(["0123456"]))
            await wait_for_event(device.entered)
            refusals = await asyncio.gather(*(server.score(["ab", f"c{n}"]) for n in range(5)))
            for refusal in refusals:
                assert (refusal.status, refusal.json["code"]) == (429, "overloaded")
                assert refusal.json["retryable"] is True
                assert int(refusal.headers["retry-after"]) >= 1
            assert server.queued_tokens == 7, "no item of a refused request is queued"
            assert server.metric("assay_refused_total", model=MODEL) == 5
            fits = asyncio.create_task(server.score(["abc"]))
            await wait_until(lambda: server.queued_tokens == 10)
            device.release()
            assert (await first).scores == [true_score("0123456")]
            assert (await fits).scores == [true_score("abc")]
            await server.wait_until_idle()
            assert (await server.score(["ab", "c0"])).scores == [true_score("ab"), true_score("c0")]

    async def test_a_request_larger_than_the_queue_is_a_413(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        settings = scripted_settings.model_copy(update={"max_queue_tokens": 10})
        async with checked_server(settings) as server:
            refusal = await server.score(["0123456", "01234567"])
            assert (refusal.status, refusal.json["code"]) == (413, "request_too_large")
            assert not device.forwards


class TestRetryStorms:
    async def test_ten_equal_requests_compute_each_item_once(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        texts = [f"item {n}" for n in range(50)]
        async with checked_server(scripted_settings) as server:
            device.hold()
            copies = [asyncio.create_task(server.score(texts)) for _ in range(10)]
            looked_up = {"tier": "memory", "outcome": "miss"}
            await wait_until(lambda: server.metric("assay_cache_lookups_total", **looked_up) == 500)
            device.release()
            replies = await asyncio.gather(*copies)
            expected = [true_score(text) for text in texts]
            assert [reply.scores for reply in replies] == [expected] * 10
            assert device.rows == dict.fromkeys(texts, 1)
            assert sum(reply.json["usage"]["computed"] for reply in replies) == 50

    async def test_retries_of_requests_abandoned_while_computing_compute_nothing_again(
        self, scripted_settings: Settings, device: ScriptedDevice
    ) -> None:
        texts = [f"item {n}" for n in range(50)]
        async with checked_server(scripted_settings) as server:
            device.hold()
            for _ in range(10):
                impatient = await server.connect()
                await impatient.send(score_request(texts))
                await wait_until(lambda: server.active_requests() == 1)
                await wait_for_event(device.entered)
                impatient.close()
                await wait_until(lambda: server.active_requests() == 0)
            patient = asyncio.create_task(server.score(texts))
            await wait_until(lambda: server.active_requests() == 1)
            device.release()
            assert (await patient).scores == [true_score(text) for text in texts]
            assert device.rows == dict.fromkeys(texts, 1)


@pytest.mark.usefixtures("many_files")
async def test_two_thousand_connections_at_once_are_answered_twice(
    scripted_settings: Settings, device: ScriptedDevice
) -> None:
    async with checked_server(scripted_settings) as server:
        for wave in range(2):
            callers = await asyncio.gather(*(server.connect() for _ in range(MANY)))
            device.hold()
            for number, caller in enumerate(callers):
                await caller.send(score_request([f"wave {wave} caller {number}"]))
            await wait_until(lambda: server.active_requests() == MANY)
            device.release()
            replies = await asyncio.gather(*(caller.read_reply() for caller in callers))
            for number, (caller, reply) in enumerate(zip(callers, replies, strict=True)):
                assert all_scored(reply, [f"wave {wave} caller {number}"])
                caller.close()
        assert set(device.rows.values()) == {1}
