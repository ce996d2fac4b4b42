"""The circuit breaker, with an injected clock, alone and between real servers."""

import asyncio

import pytest
from support.engine_calls import Events, ManualClock, call_of, read_status, transport
from support.engine_servers import EngineServer, vllm
from support.servers import free_port

from assay_models import deadlines
from assay_models.engines.breaker import FAILURES_TO_OPEN, MAX_OPEN_SECONDS, CircuitBreaker
from assay_models.engines.errors import EngineError
from assay_models.engines.listener import BreakerState


def opened(clock: ManualClock, states: list[BreakerState]) -> CircuitBreaker:
    breaker = CircuitBreaker(clock, states.append)
    for _ in range(FAILURES_TO_OPEN):
        breaker.fail(breaker.begin())
    return breaker


def test_breaker_opens_half_opens_and_closes() -> None:
    clock, states = ManualClock(), list[BreakerState]()
    breaker = opened(clock, states)
    assert (breaker.state, breaker.allows_call, breaker.retry_after) == ("open", False, 1.0)
    clock.now += 1.0
    assert (breaker.state, breaker.allows_call) == ("half_open", True)
    breaker.begin()
    assert not breaker.allows_call
    breaker.succeed()
    assert (breaker.state, breaker.allows_call) == ("closed", True)
    assert states == ["closed", "open", "half_open", "closed"]


def test_breaker_with_a_success_between_failures_stays_closed() -> None:
    breaker = CircuitBreaker(ManualClock(), lambda state: None)
    for number in range(5 * FAILURES_TO_OPEN):
        call = breaker.begin()
        breaker.succeed() if number % FAILURES_TO_OPEN == 0 else breaker.fail(call)
    assert breaker.state == "closed"


def test_breaker_whose_trials_fail_opens_for_twice_as_long_up_to_a_limit() -> None:
    clock = ManualClock()
    breaker = opened(clock, [])
    pauses = []
    for _ in range(8):
        pauses.append(breaker.retry_after)
        clock.now += breaker.retry_after
        breaker.fail(breaker.begin())
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, MAX_OPEN_SECONDS, MAX_OPEN_SECONDS, 30.0]


def test_breaker_whose_trial_is_cancelled_lets_another_call_through() -> None:
    clock = ManualClock()
    breaker = opened(clock, [])
    clock.now += 1.0
    breaker.forget(breaker.begin())
    assert (breaker.state, breaker.allows_call) == ("half_open", True)


def test_breaker_on_trial_ignores_the_end_of_calls_that_began_before() -> None:
    clock = ManualClock()
    breaker = CircuitBreaker(clock, lambda state: None)
    late = [breaker.begin() for _ in range(2)]
    for _ in range(FAILURES_TO_OPEN):
        breaker.fail(breaker.begin())
    clock.now += 1.0
    trial = breaker.begin()
    breaker.forget(late[0])
    breaker.fail(late[1])
    assert (breaker.state, breaker.allows_call) == ("half_open", False)
    breaker.forget(trial)
    assert breaker.allows_call


def test_breaker_that_is_open_ignores_late_failures() -> None:
    clock = ManualClock()
    breaker = opened(clock, [])
    for _ in range(20):
        breaker.fail(0)
    assert breaker.retry_after == 1.0


async def test_url_that_fails_is_left_alone_and_taken_back_when_it_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "assay_models")
    events, clock, port = Events(), ManualClock(), free_port()
    async with EngineServer(vllm).listening() as healthy:
        sender = transport(
            f"http://127.0.0.1:{port}", healthy.url, events=events, clock=clock, tries=1
        )
        for _ in range(4 * FAILURES_TO_OPEN):
            assert await sender.call(call_of([1]), read_status) == 200
        assert events.calls.count((0, "unavailable")) == FAILURES_TO_OPEN
        assert len(healthy.posts) == 4 * FAILURES_TO_OPEN
        assert events.breakers[-1] == (0, "open")
        clock.now += 1.0
        async with EngineServer(vllm).listening(port) as returned:
            for _ in range(6):
                await sender.call(call_of([1]), read_status)
            assert len(returned.posts) >= 3
        assert events.breakers[2:] == [(0, "open"), (0, "half_open"), (0, "closed")]
        lost, found = [record.getMessage() for record in caplog.records]
        assert f"http://127.0.0.1:{port} is lost: no connection" in lost
        assert f"http://127.0.0.1:{port} answers again" in found
        await sender.close()


async def test_engine_that_fails_everywhere_is_not_called_until_the_pause_is_over() -> None:
    clock = ManualClock()
    async with EngineServer(vllm, status=500).listening() as server:
        sender = transport(server.url, clock=clock)
        for _ in range(FAILURES_TO_OPEN):
            with pytest.raises(EngineError, match="500"):
                await sender.call(call_of([1]), read_status)
        with pytest.raises(EngineError, match="failed repeatedly") as raised:
            await sender.call(call_of([1]), read_status)
        assert (raised.value.code, raised.value.retry_after) == ("engine_unavailable", 1.0)
        assert len(server.posts) == FAILURES_TO_OPEN
        await sender.close()


async def test_half_open_url_gets_one_call_and_the_others_wait_for_its_outcome() -> None:
    clock, gate = ManualClock(), asyncio.Event()
    async with EngineServer(vllm, status=500).listening() as server:
        sender = transport(server.url, clock=clock)
        for _ in range(FAILURES_TO_OPEN):
            with pytest.raises(EngineError):
                await sender.call(call_of([1]), read_status)
        server.status, server.gate = 200, gate
        clock.now += 1.0
        calls = [asyncio.create_task(sender.call(call_of([1]), read_status)) for _ in range(4)]
        await server.wait_for_posts(FAILURES_TO_OPEN + 1)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(server.posts) == FAILURES_TO_OPEN + 1
        gate.set()
        assert await asyncio.gather(*calls) == [200] * 4
        await sender.close()


@pytest.mark.parametrize("status", [400, 401, 404, 429])
async def test_refusals_open_no_breaker(status: int) -> None:
    events = Events()
    async with EngineServer(vllm, status=status).listening() as server:
        sender = transport(server.url, events=events, tries=0)
        for _ in range(2 * FAILURES_TO_OPEN):
            with pytest.raises(EngineError):
                await sender.call(call_of([1]), read_status)
        assert events.breakers == [(0, "closed")]
        await sender.close()


async def test_callers_in_a_hurry_open_no_breaker() -> None:
    events = Events()
    async with EngineServer(vllm, gate=asyncio.Event()).listening() as server:
        clock = ManualClock()
        sender = transport(server.url, events=events, clock=clock, tries=0)
        deadlines.set_latest(lambda: clock.now + 0.01)
        for _ in range(2 * FAILURES_TO_OPEN):
            with pytest.raises(EngineError):
                await sender.call(call_of([1]), read_status)
        assert events.outcomes == ["timeout"] * 2 * FAILURES_TO_OPEN
        assert events.breakers == [(0, "closed")]
        await sender.close()


async def test_engine_that_hangs_opens_its_breaker() -> None:
    events = Events()
    async with EngineServer(vllm, gate=asyncio.Event()).listening() as server:
        sender = transport(server.url, events=events, timeout_seconds=0.01)
        for _ in range(FAILURES_TO_OPEN):
            with pytest.raises(EngineError):
                await sender.call(call_of([1]), read_status)
        assert events.breakers == [(0, "closed"), (0, "open")]
        await sender.close()
