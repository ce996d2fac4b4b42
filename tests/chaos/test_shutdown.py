"""A real process is told to stop, at every moment: what it accepted is answered, and it ends."""

import signal
from pathlib import Path

import pytest

from .devices import truth
from .processes import Meeting, serving
from .servers import asking, head, lawful

# The signal is raised again once everything is put away, so that the parent learns of it.
STOPPED = {0, -signal.SIGTERM}
INTERRUPTED = {0, -signal.SIGINT, 130}


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    return Meeting(tmp_path / "meeting")


async def test_before_any_model_is_loaded(tmp_path: Path, meeting: Meeting) -> None:
    waits = f'options = {{ wait = "{meeting.path}" }}'
    async with serving(tmp_path, options=waits, loaded=False) as process:
        await meeting.met()
        answer = await process.ask(["too early"])
        assert (answer.status, answer.json["code"]) == (503, "model_not_ready")
        assert (await process.get("/readyz")).status == 503
        process.stop()
        await process.said("Shutting down")
        meeting.leave()
        assert await process.ended() in STOPPED


async def test_while_a_model_loads_for_longer_than_the_drain_may_take(
    tmp_path: Path, meeting: Meeting
) -> None:
    waits = f'options = {{ wait = "{meeting.path}" }}'
    async with serving(tmp_path, options=waits, loaded=False, ASSAY_DRAIN_TIMEOUT="0.2") as process:
        await meeting.met()
        process.stop()
        assert await process.ended() in STOPPED
        assert "Traceback" not in process.told
        meeting.leave()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_idle(tmp_path: Path, number: int) -> None:
    async with serving(tmp_path) as process:
        kept_alive = await process.call(["one"])
        assert lawful(await kept_alive.answer(), ["one"])
        process.stop(number)
        assert await process.ended() in (INTERRUPTED if number == signal.SIGINT else STOPPED)
        assert await kept_alive.rest() == b""
        assert "Traceback" not in process.told


@pytest.mark.parametrize("signals", [1, 2, 5])
async def test_while_computing_with_work_in_the_queue(
    tmp_path: Path, meeting: Meeting, signals: int
) -> None:
    async with serving(tmp_path) as process:
        first = await process.call([meeting.text])
        await meeting.met()
        queued = [await process.call([f"text {n}", "fail", "same"]) for n in range(10)]
        await process.holds(len(meeting.text) + 10 * len("text 0") + len("fail") + len("same"))
        for _ in range(signals):
            process.stop()
        await process.said("Waiting for connections to close")
        with pytest.raises(ConnectionRefusedError):
            await process.connect()
        meeting.leave()
        assert lawful(await first.answer(), [meeting.text])
        for number, caller in enumerate(queued):
            assert (await caller.answer()).scores == [truth(f"text {number}"), None, truth("same")]
        assert await process.ended() in STOPPED
        assert "Traceback" not in process.told


async def test_requests_that_arrive_on_open_connections_while_it_drains(
    tmp_path: Path, meeting: Meeting
) -> None:
    async with serving(tmp_path) as process:
        first = await process.call([meeting.text])
        await meeting.met()
        late = await process.connect()
        await late.send(asking(["one"])[:60])
        half = await process.connect()
        body = asking(["two"]).partition(b"\r\n\r\n")[2]
        await half.send(head(len(body), "Expect: 100-continue"))
        assert (await half.reader.readline()).startswith(b"HTTP/1.1 100")
        process.stop()
        await process.said("Waiting for connections to close")
        await half.send(body)
        meeting.leave()
        assert await half.reader.readline() == b"\r\n"
        assert lawful(await half.answer(), ["two"])
        assert lawful(await first.answer(), [meeting.text])
        assert await late.rest() == b"", "no head, no request"
        assert await process.ended() in STOPPED


async def test_a_drain_that_takes_too_long_ends_with_an_honest_error(tmp_path: Path) -> None:
    async with serving(tmp_path, ASSAY_DRAIN_TIMEOUT="1") as process:
        hung = await process.call(["hang"])
        queued = await process.call(["queued"])
        await process.holds(len("hang") + len("queued"))
        process.stop()
        for caller in (hung, queued):
            answer = await caller.answer()
            assert answer.status == 503
            assert not lawful(answer, [])
        assert await process.ended() in STOPPED


async def test_a_caller_who_does_not_read_holds_up_the_end_no_longer_than_the_drain(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, ASSAY_DRAIN_TIMEOUT="1", ASSAY_MAX_ITEMS="20000") as process:
        slow = await process.connect(receive_buffer=4096)
        await slow.send(asking([f"text {n}" for n in range(20_000)], id_length=256))
        assert await slow.reader.readexactly(1) == b"H"
        process.stop()
        assert await process.ended() in STOPPED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_hung_device_does_not_outlive_the_process(tmp_path: Path, number: int) -> None:
    async with serving(tmp_path, ASSAY_DRAIN_TIMEOUT="0.2") as process:
        hung = await process.call(["hang"])
        await process.holds(len("hang"))
        hung.close()
        process.stop(number)
        assert await process.ended() in (INTERRUPTED if number == signal.SIGINT else STOPPED)


async def test_a_hung_device_does_not_outlive_a_background_job(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # a process inherits what is ignored
    try:
        async with serving(tmp_path, ASSAY_DRAIN_TIMEOUT="0.2") as process:
            hung = await process.call(["hang"])
            await process.holds(len("hang"))
            hung.close()
            process.stop(signal.SIGINT)
            assert await process.ended() in INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
