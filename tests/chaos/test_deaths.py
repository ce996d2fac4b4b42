"""A device whose thread is taken away: every waiter is told, and nobody calls the model ready."""

import asyncio
import ctypes
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.doubles import one_input

from assay import app as application
from assay import served_model as hosting
from assay.batching.batcher import BatchLimits
from assay.errors import AssayError, ShuttingDown
from assay.settings import Settings

from .devices import SECONDS, Clock, Script, computed, happened, started, truth
from .processes import Meeting, serving
from .servers import Server, lawful

NAMES = [f"n{number}" for number in range(20)]


class TestBatcher:
    @pytest.mark.parametrize("cancel", [False, True])
    async def test_idle(self, cancel: bool) -> None:
        reasons: list[str] = []
        async with started(Script(), on_death=reasons.append) as (batcher, executor):
            assert await computed(batcher, ["before"]) == [(truth("before"),)]
            executor.shutdown(cancel_futures=cancel)
            async with asyncio.timeout(SECONDS):
                found = await computed(batcher, NAMES)
            assert all(isinstance(one, AssayError) for one in found)
            with pytest.raises(ShuttingDown):
                await computed(batcher, ["after"])
            assert not batcher.alive
            assert len(reasons) == 1
            assert "m" in reasons[0]

    @pytest.mark.parametrize("cancel", [False, True])
    async def test_computing_with_work_in_the_queue(self, cancel: bool) -> None:
        reasons: list[str] = []
        script = Script()
        script.hold()
        async with started(script, BatchLimits(4, 4, 1000), on_death=reasons.append) as started_:
            batcher, executor = started_
            callers = [asyncio.create_task(computed(batcher, [name])) for name in NAMES]
            await happened(script.entered)
            executor.shutdown(wait=False, cancel_futures=cancel)
            script.release()
            async with asyncio.timeout(SECONDS):
                answers = await asyncio.gather(*callers)
            for name, (found,) in zip(NAMES, answers, strict=True):
                assert found == (truth(name),) or isinstance(found, AssayError)
            assert any(isinstance(found, AssayError) for (found,) in answers)
            assert not batcher.alive
            assert len(reasons) == 1

    async def test_closing_in_the_ordinary_way_is_no_death(self) -> None:
        reasons: list[str] = []
        async with started(Script(), on_death=reasons.append) as (batcher, _):
            await computed(batcher, NAMES)
        assert not reasons

    async def test_a_lost_thread_strands_nobody_beyond_his_deadline(self) -> None:
        async with started(Script(), hang_seconds=0.0) as (batcher, _):
            assert await computed(batcher, ["before"]) == [(truth("before"),)]
            lose_device_thread()
            outcomes = await batcher.compute([one_input("after")], time.monotonic() + 0.05)
            assert isinstance(outcomes[0].value, AssayError)
            assert batcher.hung or not batcher.alive
            await batcher.close(0.0)


def lose_device_thread(prefix: str = "ThreadPoolExecutor") -> None:
    """Make the thread end when it takes its next batch, which is then lost."""
    (thread,) = (one for one in threading.enumerate() if one.name.startswith(prefix) and one.ident)
    ident, error = ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, error) == 1


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[ThreadPoolExecutor]:
    """The device executors of all models that are served."""
    made: list[ThreadPoolExecutor] = []

    class Recorded(ThreadPoolExecutor):
        def __init__(self, *arguments: int, **named: str) -> None:
            super().__init__(*arguments, **named)
            made.append(self)

    monkeypatch.setattr(hosting, "ThreadPoolExecutor", Recorded)
    return made


class TestServer:
    async def test_the_model_is_not_ready_and_says_so_to_everybody(
        self, scripted_settings: Settings, script: Script, devices: list[ThreadPoolExecutor]
    ) -> None:
        async with Server(scripted_settings) as server:
            assert (await server.ask(["before"])).scores == [truth("before")]
            assert (await server.get("/readyz")).status == 200
            (device,) = devices
            device.shutdown()
            answers = await asyncio.gather(*(server.ask([name]) for name in NAMES))
            assert not any(
                lawful(answer, [name]) for name, answer in zip(NAMES, answers, strict=True)
            )
            assert (await server.get("/readyz")).status == 503
            assert not lawful(await server.ask(["after"]), ["after"])
            assert (await server.ask(["before"])).scores == [truth("before")], "it was kept"
            await server.at_rest()

    async def test_a_hung_device_is_not_ready_after_a_while_and_recovers(
        self, scripted_settings: Settings, script: Script, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = Clock()
        monkeypatch.setattr(application, "CLOCK", clock)
        async with Server(scripted_settings) as server:
            assert (await server.ask(["before"])).scores == [truth("before")]
            script.hold()
            hung = asyncio.create_task(server.ask(["hung"]))
            await happened(script.entered)
            assert (await server.get("/readyz")).status == 200, "busy is not hung"
            clock.now += 3600
            assert (await server.get("/readyz")).status == 503
            assert (await server.get("/healthz")).status == 200
            script.release()
            lawful(await hung, ["hung"])
            assert (await server.ask(["after"])).scores == [truth("after")]
            await server.stands()


class TestProcess:
    async def test_it_tells_everybody_and_ends_with_an_error(self, tmp_path: Path) -> None:
        meeting = Meeting(tmp_path / "meeting")
        async with serving(tmp_path) as process:
            first = await process.call([meeting.text])
            await meeting.met()
            queued = await process.call(["queued"])
            await process.holds(len(meeting.text) + len("queued"))
            taking = await process.call(["take device"])
            await process.holds(len(meeting.text) + len("queued") + len("take device"))
            meeting.leave()
            assert lawful(await first.answer(), [meeting.text])
            lawful(await queued.answer(), ["queued"])
            assert not lawful(await taking.answer(), ["take device"])
            assert await process.ended() > 0
            assert "scripted@1" in process.told
            assert "can compute no more" in process.told

    async def test_a_hung_device_does_not_keep_it_from_ending(self, tmp_path: Path) -> None:
        one_by_one = "[limits]\nmax_batch_size = 1\n"
        async with serving(tmp_path, options=one_by_one, ASSAY_DRAIN_TIMEOUT="0.2") as process:
            hung = await process.call(["hang"])
            await process.holds(len("hang"))
            assert not lawful(await process.ask(["unpriced"]), ["unpriced"])
            assert not lawful(await hung.answer(), ["hang"])
            assert await process.ended() > 0
            assert "can compute no more" in process.told
