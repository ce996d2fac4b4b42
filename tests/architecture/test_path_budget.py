"""How deep a request goes: at most nine of our files for the reference family (record 0013)."""

import sys
import threading
from pathlib import Path
from types import FrameType

from conftest import Served

import assay
import assay_models
from assay.settings import Settings

ROOMS = [str(Path(room.__file__).parent) for room in (assay, assay_models) if room.__file__]
BUDGET = 9


async def test_a_request_touches_at_most_nine_files(
    served: Served, reference_settings: Settings
) -> None:
    touched: set[str] = set()

    def record(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(tuple(ROOMS)) and frame.f_code.co_name != "<module>":
            touched.add(name)

    async with served(reference_settings) as client:
        body = {"model": "reference", "items": [{"prompt": "one two", "response": "two"}]}
        threading.setprofile(record)
        sys.setprofile(record)
        try:
            answer = await client.post("/v1/score", json=body)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    assert answer.json()["usage"]["computed"] == 1
    names = sorted(Path(name).name for name in touched)
    assert "scoring.py" in names
    assert "batching.py" in names
    assert len(names) <= BUDGET, names
