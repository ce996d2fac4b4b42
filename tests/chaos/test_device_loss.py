"""A device that loses its thread: every caller gets an error, and the model is not ready."""

import asyncio
import ctypes
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.doubles import text_input

from assay import app as application
from assay import served_model
from assay.batching.batcher import BatchLimits
from assay.errors import AssayError, ShuttingDown
from assay.settings import Settings

from .devices import (
    TIMEOUT_SECONDS,
    ManualClock,
    ScriptedDevice,
    compute,
    running_batcher,
    true_score,
    wait_for_event,
)
from .processes import DeviceGate, serving
from .servers import Server, all_scored

NAMES = [f"n{number}" for number in range(20)]


class TestBatcher:
    @pytest.mark.parametrize("cancel", [False, True])
    async def test_a_loss_while_idle_fails_the_next_callers(self, cancel: bool) -> None:
        reasons: list[str] = []
        running = running_batcher(ScriptedDevice(), on_death=reasons.append)
        async with running as (batcher, executor):
            assert await compute(batcher, ["before"]) == [(true_score("before"),)]
            executor.shutdown(cancel_futures=cancel)
            async with asyncio.timeout(TIMEOUT_SECONDS):
                results = await compute(batcher, NAMES)
            assert all(isinstance(error, AssayError) for error in results)
            with pytest.raises(ShuttingDown):
                await compute(batcher, ["after"])
            assert not batcher.alive
            assert len(reasons) == 1
            assert "m" in reasons[0]

    @pytest.mark.parametrize("cancel", [False, True])
    async def test_a_loss_while_computing_fails_the_queued_callers(self, cancel: bool) -> None:
        reasons: list[str] = []
        device = ScriptedDevice()
        device.hold()
        running = running_batcher(device, BatchLimits(4, 4, 1000), on_death=reasons.append)
        async with running as (batcher, executor):
            callers = [asyncio.create_task(compute(batcher, [name])) for name in NAMES]
            await wait_for_event(device.entered)
            executor.shutdown(wait=False, cancel_futures=cancel)
            device.release()
            async with asyncio.timeout(TIMEOUT_SECONDS):
                results = await asyncio.gather(*callers)
            for name, (raw,) in zip(NAMES, results, strict=True):
                assert raw == (true_score(name),) or isinstance(raw, AssayError)
            assert any(isinstance(raw, AssayError) for (raw,) in results)
            assert not batcher.alive
            assert len(reasons) == 1

    async def test_an_ordinary_close_is_no_loss(self) -> None:
        reasons: list[str] = []
        async with running_batcher(ScriptedDevice(), on_death=reasons.append) as (batcher, _):
            await compute(batcher, NAMES)
        assert not reasons

    async def test_a_lost_thread_delays_no_caller_beyond_its_deadline(self) -> None:
        async with running_batcher(ScriptedDevice(), hang_seconds=0.0) as (batcher, _):
            assert await compute(batcher, ["before"]) == [(true_score("before"),)]
            end_device_thread()
            outcomes = await batcher.compute([text_input("after")], time.monotonic() + 0.05)
            assert isinstance(outcomes[0].value, AssayError)
            assert batcher.hung or not batcher.alive
            await batcher.close(0.0)


def end_device_thread(prefix: str = "ThreadPoolExecutor") -> None:
    """Make the thread end when it takes its next batch, which is then lost."""
    threads = (thread for thread in threading.enumerate() if thread.name.startswith(prefix))
    (thread,) = (thread for thread in threads if thread.ident)
    ident, error = ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
    assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, error) == 1


@pytest.fixture
def executors(monkeypatch: pytest.MonkeyPatch) -> list[ThreadPoolExecutor]:
    """The device executors of all served models."""
    created: list[ThreadPoolExecutor] = []

    class RecordedExecutor(ThreadPoolExecutor):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            created.append(self)

    monkeypatch.setattr(served_model, "ThreadPoolExecutor", RecordedExecutor)
    return created


class TestServer:
    async def test_a_lost_device_is_not_ready_and_every_request_gets_an_error(
        self,
        scripted_settings: Settings,
        device: ScriptedDevice,
        executors: list[ThreadPoolExecutor],
    ) -> None:
        async with Server(scripted_settings) as server:
            assert (await server.score(["before"])).scores == [true_score("before")]
            assert (await server.get("/readyz")).status == 200
            (executor,) = executors
            executor.shutdown()
            replies = await asyncio.gather(*(server.score([name]) for name in NAMES))
            assert not any(
                all_scored(reply, [name]) for name, reply in zip(NAMES, replies, strict=True)
            )
            assert (await server.get("/readyz")).status == 503
            assert not all_scored(await server.score(["after"]), ["after"])
            cached = await server.score(["before"])
            assert cached.scores == [true_score("before")]
            await server.wait_until_idle()

    async def test_a_hung_device_is_not_ready_until_it_recovers(
        self, scripted_settings: Settings, device: ScriptedDevice, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        clock = ManualClock()
        monkeypatch.setattr(application, "CLOCK", clock)
        async with Server(scripted_settings) as server:
            assert (await server.score(["before"])).scores == [true_score("before")]
            device.hold()
            hung = asyncio.create_task(server.score(["hung"]))
            await wait_for_event(device.entered)
            assert (await server.get("/readyz")).status == 200, "busy is not hung"
            clock.now += 3600
            assert (await server.get("/readyz")).status == 503
            assert (await server.get("/healthz")).status == 200
            device.release()
            all_scored(await hung, ["hung"])
            assert (await server.score(["after"])).scores == [true_score("after")]
            await server.check_serving()


class TestProcess:
    async def test_a_lost_device_answers_every_request_and_ends_the_process(
        self, tmp_path: Path
    ) -> None:
        gate = DeviceGate(tmp_path / "gate")
        async with serving(tmp_path) as process:
            first = await process.start_request([gate.text])
            await gate.wait_for_device()
            queued = await process.start_request(["queued"])
            await process.wait_for_queue(len(gate.text) + len("queued"))
            last = await process.start_request(["shut down device"])
            await process.wait_for_queue(len(gate.text) + len("queued") + len("shut down device"))
            gate.release()
            assert all_scored(await first.read_reply(), [gate.text])
            all_scored(await queued.read_reply(), ["queued"])
            assert not all_scored(await last.read_reply(), ["shut down device"])
            assert await process.wait_for_exit() > 0
            assert "scripted@1" in process.log
            assert "can compute no more" in process.log

    async def test_a_failed_model_with_a_hung_device_ends_the_process(self, tmp_path: Path) -> None:
        one_by_one = "[limits]\nmax_batch_size = 1\n"
        async with serving(tmp_path, options=one_by_one, ASSAY_DRAIN_TIMEOUT="0.2") as process:
            hung = await process.start_request(["hang"])
            await process.wait_for_queue(len("hang"))
            assert not all_scored(await process.score(["unpriced"]), ["unpriced"])
            assert not all_scored(await hung.read_reply(), ["hang"])
            assert await process.wait_for_exit() > 0
            assert "can compute no more" in process.log
