"""Callers that leave at any moment, come again too often or all at once: nobody is stranded."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from assay.settings import Settings

from .devices import Script, happened, truth, until
from .servers import CROWD, MODEL, Connection, Server, asking, head, lawful, standing

Leave = Callable[[Connection], None]
Phase = Callable[[Server, Script, Connection], Awaitable[None]]


async def with_headers_alone(server: Server, script: Script, caller: Connection) -> None:
    await caller.send(head(1000))
    await until(lambda: server.requests() == 1)


async def amid_the_body(server: Server, script: Script, caller: Connection) -> None:
    await caller.send(head(1000) + b'{"model": "scripted", "items": [')
    await until(lambda: server.requests() == 1)


async def right_after_the_body(server: Server, script: Script, caller: Connection) -> None:
    await caller.send(asking(["gone"]))


async def while_queued(server: Server, script: Script, caller: Connection) -> None:
    script.hold()
    staying = await server.connect()
    await staying.send(asking(["first"]))
    await happened(script.entered)
    await caller.send(asking(["gone", "poison"]))
    await until(lambda: server.queued == len("first" + "gone" + "poison"))
    staying.close()


async def while_computing(server: Server, script: Script, caller: Connection) -> None:
    script.hold()
    await caller.send(asking(["gone", "poison"]))
    await happened(script.entered)


async def while_the_reply_is_written(server: Server, script: Script, caller: Connection) -> None:
    await caller.send(asking([f"{n}" for n in range(1024)], id_length=256))
    assert await caller.reader.readexactly(1) == b"H"


PHASES = [
    with_headers_alone,
    amid_the_body,
    right_after_the_body,
    while_queued,
    while_computing,
    while_the_reply_is_written,
]


class TestLeaving:
    @pytest.mark.parametrize("leave", [Connection.close, Connection.reset])
    @pytest.mark.parametrize("phase", PHASES)
    async def test_a_caller_who_leaves_leaves_nothing_behind(
        self, scripted_settings: Settings, script: Script, phase: Phase, leave: Leave
    ) -> None:
        async with standing(scripted_settings) as server:
            leaving = await server.connect(receive_buffer=4096)
            await phase(server, script, leaving)
            neighbour = asyncio.create_task(server.ask(["neighbour", "gone"]))
            leave(leaving)
            script.release()
            assert (await neighbour).scores == [truth("neighbour"), truth("gone")]

    @pytest.mark.parametrize("left", range(6))
    async def test_of_six_who_share_an_item_one_may_leave(
        self, scripted_settings: Settings, script: Script, left: int
    ) -> None:
        async with standing(scripted_settings) as server:
            script.hold()
            callers = [await server.connect() for _ in range(6)]
            for number, caller in enumerate(callers):
                await caller.send(asking(["same", f"own {number}"]))
            await until(lambda: server.queued == len("same") + 6 * len("own 0"))
            callers[left].close()
            script.release()
            for number, caller in enumerate(callers):
                if number != left:
                    answer = await caller.answer()
                    assert answer.scores == [truth("same"), truth(f"own {number}")]
                    caller.close()
            assert script.rows["same"] == 1

    async def test_what_a_caller_left_behind_is_dropped_before_it_costs_compute(
        self, scripted_settings: Settings, script: Script
    ) -> None:
        async with standing(scripted_settings) as server:
            script.hold()
            staying = asyncio.create_task(server.ask(["first"]))
            await happened(script.entered)
            leaving = await server.connect()
            await leaving.send(asking(["abandoned", "poison"]))
            await until(lambda: server.queued == len("first" + "abandoned" + "poison"))
            leaving.close()
            await until(lambda: server.queued == len("first"))
            script.release()
            assert (await staying).scores == [truth("first")]
            assert server.counted("assay_dropped_total", model=MODEL, reason="abandoned") == 2
            assert server.counted("assay_forwards_total", model=MODEL, outcome="failed") == 0
            assert script.forwards == [["first"]]

    async def test_a_caller_who_leaves_is_no_fault_of_the_server(
        self, scripted_settings: Settings, script: Script
    ) -> None:
        async with standing(scripted_settings) as server:
            for phase in (with_headers_alone, amid_the_body):
                caller = await server.connect()
                await phase(server, script, caller)
                caller.close()
                await server.at_rest()
            assert server.counted("assay_requests_total", route="/v1/score", status="500") == 0


class TestOverload:
    async def test_a_full_queue_refuses_whole_requests_until_it_has_drained(
        self, scripted_settings: Settings, script: Script
    ) -> None:
        settings = scripted_settings.model_copy(update={"max_queue_tokens": 10})
        async with standing(settings) as server:
            script.hold()
            first = asyncio.create_task(server.ask(["0123456"]))
            await happened(script.entered)
            refusals = await asyncio.gather(*(server.ask(["ab", f"c{n}"]) for n in range(5)))
            for refusal in refusals:
                assert (refusal.status, refusal.json["code"]) == (429, "overloaded")
                assert refusal.json["retryable"] is True
                assert int(refusal.headers["retry-after"]) >= 1
            assert server.queued == 7, "nothing of a refused request is in"
            assert server.counted("assay_refused_total", model=MODEL) == 5
            fits = asyncio.create_task(server.ask(["abc"]))
            await until(lambda: server.queued == 10)
            script.release()
            assert (await first).scores == [truth("0123456")]
            assert (await fits).scores == [truth("abc")]
            await server.at_rest()
            assert (await server.ask(["ab", "c0"])).scores == [truth("ab"), truth("c0")]

    async def test_what_can_never_fit_is_told_so(
        self, scripted_settings: Settings, script: Script
    ) -> None:
        settings = scripted_settings.model_copy(update={"max_queue_tokens": 10})
        async with standing(settings) as server:
            refusal = await server.ask(["0123456", "01234567"])
            assert (refusal.status, refusal.json["code"]) == (413, "request_too_large")
            assert not script.forwards


class TestRetryStorms:
    async def test_ten_copies_at_once_cost_one_forward_row_an_item(
        self, scripted_settings: Settings, script: Script
    ) -> None:
        texts = [f"item {n}" for n in range(50)]
        async with standing(scripted_settings) as server:
            script.hold()
            copies = [asyncio.create_task(server.ask(texts)) for _ in range(10)]
            looked_up = {"tier": "memory", "outcome": "miss"}
            await until(lambda: server.counted("assay_cache_lookups_total", **looked_up) == 500)
            script.release()
            answers = await asyncio.gather(*copies)
            expected = [truth(text) for text in texts]
            assert [answer.scores for answer in answers] == [expected] * 10
            assert script.rows == dict.fromkeys(texts, 1)
            assert sum(answer.json["usage"]["computed"] for answer in answers) == 50

    async def test_retries_of_requests_given_up_while_computing_cost_nothing_more(
        self, scripted_settings: Settings, script: Script
    ) -> None:
        texts = [f"item {n}" for n in range(50)]
        async with standing(scripted_settings) as server:
            script.hold()
            for _ in range(10):
                impatient = await server.connect()
                await impatient.send(asking(texts))
                await until(lambda: server.requests() == 1)
                await happened(script.entered)
                impatient.close()
                await until(lambda: server.requests() == 0)
            patient = asyncio.create_task(server.ask(texts))
            await until(lambda: server.requests() == 1)
            script.release()
            assert (await patient).scores == [truth(text) for text in texts]
            assert script.rows == dict.fromkeys(texts, 1)


@pytest.mark.usefixtures("many_files")
async def test_two_thousand_connections_at_once_are_all_answered_and_then_again(
    scripted_settings: Settings, script: Script
) -> None:
    async with standing(scripted_settings) as server:
        for wave in range(2):
            callers = await asyncio.gather(*(server.connect() for _ in range(CROWD)))
            script.hold()
            for number, caller in enumerate(callers):
                await caller.send(asking([f"wave {wave} caller {number}"]))
            await until(lambda: server.requests() == CROWD)
            script.release()
            answers = await asyncio.gather(*(caller.answer() for caller in callers))
            for number, (caller, answer) in enumerate(zip(callers, answers, strict=True)):
                assert lawful(answer, [f"wave {wave} caller {number}"])
                caller.close()
        assert set(script.rows.values()) == {1}
