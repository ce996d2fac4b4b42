"""Subscribers of a run on a real process that stops: they get the end, and delay nothing."""

import json
import signal
from pathlib import Path

from .devices import wait_until_async
from .processes import Process, serving
from .test_shutdown import STOPPED

TELEMETRY = json.dumps({"step": 4, "values": {"kl": 0.5}})

SUBSCRIBE = b"GET /v1/runs/r/events HTTP/1.1\r\nHost: assay\r\nAccept: text/event-stream\r\n\r\n"


async def record_telemetry(process: Process) -> None:
    """Record telemetry of run `r`, and wait until it is written."""
    caller = await process.connect()
    head = "POST /v1/runs/r/telemetry HTTP/1.1\r\nHost: assay\r\nContent-Type: application/json\r\n"
    await caller.send(f"{head}Content-Length: {len(TELEMETRY)}\r\n\r\n{TELEMETRY}".encode())
    assert (await caller.read_reply()).status == 200

    async def is_recorded() -> bool:
        return (await process.get("/v1/runs/r/events")).status == 200

    await wait_until_async(is_recorded)


async def test_subscribers_get_the_end_before_the_drain(tmp_path: Path) -> None:
    # The drain timeout is longer than the test's: the process can only end if the events do.
    async with serving(tmp_path, ASSAY_DRAIN_TIMEOUT="3600") as process:
        await record_telemetry(process)
        subscribers = [await process.connect() for _ in range(3)]
        for subscriber in subscribers:
            await subscriber.send(SUBSCRIBE)
            await subscriber.reader.readuntil(b"event: seen")
        process.stop(signal.SIGTERM)
        for subscriber in subscribers:
            assert b"event: end" in await subscriber.read_rest()
        assert await process.wait_for_exit() in STOPPED
        assert "Traceback" not in process.log
