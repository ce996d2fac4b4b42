"""A server that records runs and is killed: results a second old are in the file."""

import signal
import time
from collections import Counter
from pathlib import Path

import httpx2

from assay_monitors.history import RunHistory, Stream

from .processes import serving

STREAM = Stream("scripted@1", "train")
COMMITTED_AFTER_SECONDS = 1.0
# Long enough that at the kill some results are committed and some are not.
RECORDING_SECONDS = 1.6
ITEMS_PER_RUN = 40


async def test_a_killed_server_loses_at_most_one_second_and_no_run(tmp_path: Path) -> None:
    path = tmp_path / "state" / "runs.db"
    answered: list[tuple[str, float]] = []
    async with serving(tmp_path, ASSAY_RUNS=str(path)) as process:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{process.port}") as client:
            while not answered or answered[-1][1] - answered[0][1] < RECORDING_SECONDS:
                run = f"run-{len(answered) // ITEMS_PER_RUN}"
                items = [{"text": f"number {len(answered)}"}]
                body = {"model": "scripted", "items": items, "run": {"id": run, "step": 1}}
                reply = await client.post("/v1/score", json=body)
                assert reply.status_code == 200
                answered.append((run, time.monotonic()))
            killed = time.monotonic()
            process.stop(signal.SIGKILL)
        assert await process.wait_for_exit() == -signal.SIGKILL
    history = RunHistory(path)
    stored = {
        run: sum(point.summary.items for point in history.series(run, STREAM))
        for run, *_ in history.runs()
    }
    safe = Counter(run for run, when in answered if when <= killed - COMMITTED_AFTER_SECONDS)
    sent = Counter(run for run, _ in answered)
    assert safe
    assert {run: items for run, items in safe.items() if stored.get(run, 0) < items} == {}
    assert {run: items for run, items in stored.items() if items > sent[run]} == {}
