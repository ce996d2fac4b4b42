"""A real process that gets a signal at any moment: accepted requests are answered, and it ends."""

import signal
from pathlib import Path

import pytest

from .devices import true_score, wait_until_async
from .processes import DeviceGate, serving
from .servers import all_scored, request_head, score_request

pytestmark = pytest.mark.slow

# The process raises the signal again after its cleanup, so that its parent sees it.
STOPPED = {0, -signal.SIGTERM}
INTERRUPTED = {0, -signal.SIGINT, 130}


@pytest.fixture
def gate(tmp_path: Path) -> DeviceGate:
    return DeviceGate(tmp_path / "gate")


async def test_a_stop_before_any_model_is_loaded(tmp_path: Path, gate: DeviceGate) -> None:
    waits = f'options = {{ wait = "{gate.path}" }}'
    async with serving(tmp_path, options=waits, loaded=False) as process:
        await gate.wait_for_device()
        reply = await process.score(["too early"])
        assert (reply.status, reply.json["code"]) == (503, "model_not_ready")
        assert (await process.get("/readyz")).status == 503
        process.stop()
        await process.wait_for_log("Shutting down")
        gate.release()
        assert await process.wait_for_exit() in STOPPED


async def test_a_stop_while_a_model_loads_for_longer_than_the_drain(
    tmp_path: Path, gate: DeviceGate
) -> None:
    waits = f'options = {{ wait = "{gate.path}" }}'
    async with serving(tmp_path, options=waits, loaded=False, ASSAY_DRAIN_TIMEOUT="0.2") as process:
        await gate.wait_for_device()
        process.stop()
        assert await process.wait_for_exit() in STOPPED
        assert "Traceback" not in process.log
        gate.release()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_of_an_idle_server(tmp_path: Path, number: int) -> None:
    async with serving(tmp_path) as process:
        kept_alive = await process.start_request(["one"])
        assert all_scored(await kept_alive.read_reply(), ["one"])
        process.stop(number)
        assert await process.wait_for_exit() in (
            INTERRUPTED if number == signal.SIGINT else STOPPED
        )
        assert await kept_alive.read_rest() == b""
        assert "Traceback" not in process.log


@pytest.mark.parametrize("signals", [1, 2, 5])
async def test_a_stop_answers_queued_requests_and_refuses_new_connections(
    tmp_path: Path, gate: DeviceGate, signals: int
) -> None:
    async with serving(tmp_path) as process:
        first = await process.start_request([gate.text])
        await gate.wait_for_device()
        queued = [await process.start_request([f"text {n}", "fail", "same"]) for n in range(10)]
        await process.wait_for_queue(
            len(gate.text) + 10 * len("text 0") + len("fail") + len("same")
        )
        for _ in range(signals):
            process.stop()
        await process.wait_for_log("Waiting for connections to close")
        with pytest.raises(ConnectionRefusedError):
            await process.connect()
        gate.release()
        assert all_scored(await first.read_reply(), [gate.text])
        for number, caller in enumerate(queued):
            assert (await caller.read_reply()).scores == [
                true_score(f"text {number}"),
                None,
                true_score("same"),
            ]
        assert await process.wait_for_exit() in STOPPED
        assert "Traceback" not in process.log


async def test_a_request_that_began_before_the_stop_is_answered(
    tmp_path: Path, gate: DeviceGate
) -> None:
    async with serving(tmp_path) as process:
        first = await process.start_request([gate.text])
        await gate.wait_for_device()
        late = await process.connect()
        await late.send(score_request(["one"])[:60])
        half = await process.connect()
        body = score_request(["two"]).partition(b"\r\n\r\n")[2]
        await half.send(request_head(len(body), "Expect: 100-continue"))
        assert (await half.reader.readline()).startswith(b"HTTP/1.1 100")
        process.stop()
        await process.wait_for_log("Waiting for connections to close")
        await half.send(body)
        gate.release()
        assert await half.reader.readline() == b"\r\n"
        assert all_scored(await half.read_reply(), ["two"])
        assert all_scored(await first.read_reply(), [gate.text])
        assert await late.read_rest() == b"", "a request without a complete head is not answered"
        assert await process.wait_for_exit() in STOPPED


@pytest.mark.parametrize("path", ["/v1/score", "/v2/models/scripted/infer"])
async def test_a_body_that_never_ends_is_answered_long_before_the_end_of_the_drain(
    tmp_path: Path, path: str
) -> None:
    async with serving(tmp_path, ASSAY_DRAIN_TIMEOUT="300") as process:
        half = await process.connect()
        head = request_head(100, "Expect: 100-continue").replace(b"/v1/score", path.encode())
        await half.send(head + b"{")
        assert (await half.reader.readline()).startswith(b"HTTP/1.1 100")
        process.stop()
        assert await half.reader.readline() == b"\r\n"
        reply = await half.read_reply()
        assert (reply.status, reply.json["code"]) == (503, "shutting_down")
        assert await half.read_rest() == b""
        assert await process.wait_for_exit() in STOPPED
        assert "Traceback" not in process.log


async def test_a_second_interrupt_answers_all_requests_at_once(
    tmp_path: Path, gate: DeviceGate
) -> None:
    async with serving(tmp_path, ASSAY_DRAIN_TIMEOUT="300") as process:
        running = await process.start_request([gate.text])
        await gate.wait_for_device()
        queued = [await process.start_request([f"text {n}"]) for n in range(10)]
        await process.wait_for_queue(len(gate.text) + 10 * len("text 0"))
        half = await process.connect()
        await half.send(request_head(100, "Expect: 100-continue"))
        assert (await half.reader.readline()).startswith(b"HTTP/1.1 100")
        process.stop(signal.SIGINT)
        await process.wait_for_log("Waiting for connections to close")
        process.stop(signal.SIGINT)
        assert await half.reader.readline() == b"\r\n"
        for caller in (running, *queued, half):
            reply = await caller.read_reply()
            assert (reply.status, reply.json["code"]) == (503, "shutting_down")
        assert await process.wait_for_exit() in INTERRUPTED
        assert "Traceback" not in process.log
        gate.release()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_requests_are_served_between_the_stop_and_the_closed_listener(
    tmp_path: Path, number: int
) -> None:
    async with serving(tmp_path, ASSAY_SHUTDOWN_DELAY="2") as process:
        assert (await process.get("/readyz")).status == 200
        process.stop(number)

        async def is_announced() -> bool:
            return (await process.get("/readyz")).status == 503

        await wait_until_async(is_announced)
        assert (await process.get("/readyz")).json["shutting_down"] is True
        assert (await process.get("/healthz")).status == 200
        assert (await process.score(["one"])).scores == [true_score("one")]
        assert "Shutting down" not in process.log
        await process.wait_for_log("Shutting down")
        assert await process.wait_for_exit() in (
            INTERRUPTED if number == signal.SIGINT else STOPPED
        )


async def test_a_second_interrupt_ends_the_delay(tmp_path: Path) -> None:
    async with serving(tmp_path, ASSAY_SHUTDOWN_DELAY="300") as process:
        process.stop(signal.SIGINT)

        async def is_announced() -> bool:
            return (await process.get("/readyz")).status == 503

        await wait_until_async(is_announced)
        process.stop(signal.SIGINT)
        assert await process.wait_for_exit() in INTERRUPTED


async def test_a_drain_that_takes_too_long_answers_with_an_error(tmp_path: Path) -> None:
    async with serving(tmp_path, ASSAY_DRAIN_TIMEOUT="1") as process:
        hung = await process.start_request(["hang"])
        queued = await process.start_request(["queued"])
        await process.wait_for_queue(len("hang") + len("queued"))
        process.stop()
        for caller in (hung, queued):
            reply = await caller.read_reply()
            assert reply.status == 503
            assert not all_scored(reply, [])
        assert await process.wait_for_exit() in STOPPED


async def test_a_caller_that_does_not_read_delays_the_end_by_the_drain_at_most(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, ASSAY_DRAIN_TIMEOUT="1", ASSAY_MAX_ITEMS="20000") as process:
        slow = await process.connect(receive_buffer=4096)
        await slow.send(score_request([f"text {n}" for n in range(20_000)], id_length=256))
        assert await slow.reader.readexactly(1) == b"H"
        process.stop()
        assert await process.wait_for_exit() in STOPPED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_with_a_hung_device_ends_after_the_drain(
    tmp_path: Path, number: int
) -> None:
    async with serving(tmp_path, ASSAY_DRAIN_TIMEOUT="0.2") as process:
        hung = await process.start_request(["hang"])
        await process.wait_for_queue(len("hang"))
        hung.close()
        process.stop(number)
        assert await process.wait_for_exit() in (
            INTERRUPTED if number == signal.SIGINT else STOPPED
        )


async def test_a_background_process_with_a_hung_device_ends_after_the_drain(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a process inherits ignored signals
    try:
        async with serving(tmp_path, ASSAY_DRAIN_TIMEOUT="0.2") as process:
            hung = await process.start_request(["hang"])
            await process.wait_for_queue(len("hang"))
            hung.close()
            process.stop(signal.SIGINT)
            assert await process.wait_for_exit() in INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
