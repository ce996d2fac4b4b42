"""Who follows a run on a real process that is told to stop hears the end, and holds nothing up."""

import json
import signal
from pathlib import Path

from .devices import eventually
from .processes import Process, serving
from .test_shutdown import STOPPED

TOLD = json.dumps({"step": 4, "values": {"kl": 0.5}})

FOLLOWING = b"GET /v1/runs/r/events HTTP/1.1\r\nHost: assay\r\nAccept: text/event-stream\r\n\r\n"


async def tell(process: Process) -> None:
    """Have something recorded of run `r`, and wait until it is."""
    caller = await process.connect()
    head = "POST /v1/runs/r/telemetry HTTP/1.1\r\nHost: assay\r\nContent-Type: application/json\r\n"
    await caller.send(f"{head}Content-Length: {len(TOLD)}\r\n\r\n{TOLD}".encode())
    assert (await caller.answer()).status == 200

    async def kept() -> bool:
        return (await process.get("/v1/runs/r/events")).status == 200

    await eventually(kept)


async def test_a_follower_hears_the_end_before_connections_are_waited_for(tmp_path: Path) -> None:
    # The drain is longer than any test waits: only an end of the events lets the process end.
    async with serving(tmp_path, ASSAY_DRAIN_TIMEOUT="3600") as process:
        await tell(process)
        followers = [await process.connect() for _ in range(3)]
        for follower in followers:
            await follower.send(FOLLOWING)
            await follower.reader.readuntil(b"event: seen")
        process.stop(signal.SIGTERM)
        for follower in followers:
            assert b"event: end" in await follower.rest()
        assert await process.ended() in STOPPED
        assert "Traceback" not in process.told
