"""A server that records runs, and that is killed, or loses its file."""

import signal
import sqlite3
import time
from collections import Counter
from contextlib import closing
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


async def record(client: httpx2.AsyncClient, run: str) -> None:
    """Record an item and telemetry, and wait until both are written."""
    body = {"model": "scripted", "items": [{"text": run}], "run": {"id": run, "step": 1}}
    assert (await client.post("/v1/score", json=body)).status_code == 200
    telemetry = {"step": 1, "values": {"kl": 0.5}}
    assert (await client.post(f"/v1/runs/{run}/telemetry", json=telemetry)).status_code == 200
    assert (await client.patch(f"/v1/runs/{run}", json={"note": "x"})).status_code == 200


async def test_a_server_whose_file_is_damaged_and_deleted_goes_on_recording(tmp_path: Path) -> None:
    path = tmp_path / "state" / "runs.db"
    async with (
        serving(tmp_path, ASSAY_RUNS=str(path)) as process,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{process.port}") as client,
    ):
        await record(client, "damaged")
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("UPDATE windows SET summary = x'0011'")
        await record(client, "damaged")
        await record(client, "other")
        health = (await client.get("/v1/runs/damaged/health")).json()
        assert (health["damaged"], health["streams"][0]["step"]) == (2, 1)
        metrics = (await client.get("/metrics")).text
        assert "assay_run_damaged_rows_total 2.0" in metrics
        assert "assay_runs_durable 1.0" in metrics
        for part in path.parent.iterdir():
            part.unlink()
        assert "assay_runs_durable 0.0" in (await client.get("/metrics")).text
        await record(client, "after")
        assert "assay_runs_durable 1.0" in (await client.get("/metrics")).text
    assert [run.run for run in RunHistory(path).runs()] == ["after"]
    assert path.stat().st_mode & 0o777 == 0o600
