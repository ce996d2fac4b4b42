"""Bounds on the packages and files of ours that one request enters (record 0036)."""

import sys
import threading
from types import FrameType

import pytest
from support.servers import Served

from assay.event_loop import EventLoopMonitor
from assay.settings import Settings

PACKAGES = ("assay", "assay_models", "assay_monitors")
MAX_ROOMS, MAX_FILES = 10, 22


def room_of(module: str) -> str:
    """Return the room of a module: a folder within a package, or a file beside such folders."""
    return ".".join(module.split(".")[:2])


async def test_a_request_enters_few_rooms_and_files(
    served: Served, reference_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules: set[str] = set()

    def record(frame: FrameType, event: str, _: object) -> None:
        """Record the module of a call.

        A dataclass's constructor counts for its module, because it has the module's globals.
        """
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.split(".")[0] in PACKAGES:
            modules.add(module)

    monkeypatch.setattr(EventLoopMonitor, "start", lambda _: None)  # its timer is no request's
    async with served(reference_settings) as client:
        await client.get("/healthz")  # the first request builds the stack of middleware
        body = {"model": "reference", "items": [{"prompt": "one two", "response": "two"}]}
        threading.setprofile(record)
        sys.setprofile(record)
        try:
            answer = await client.post("/v1/score", json=body)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    assert answer.json()["usage"]["computed"] == 1
    assert {"assay.scoring.service", "assay.batching.batcher"} <= modules
    assert len({room_of(module) for module in modules}) <= MAX_ROOMS, sorted(modules)
    assert len(modules) <= MAX_FILES, sorted(modules)
