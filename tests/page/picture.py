"""Take the screenshot of the page that the docs show, with what `make test` has installed:

PYTHONPATH=tests .venv/bin/python -m page.picture docs/images/run-health.png

With a file of runs and a run's name, it takes a screenshot of that run.
"""

import asyncio
import shutil
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from support.servers import listening

from assay.settings import Settings

from .browser import visiting
from .recorded import HACKED_RUN, record

WIDTH, COLOURS, MARGIN = 1120, 128, 40


async def screenshot(address: str, run: str) -> bytes:
    """Return a screenshot of the run's page, from its top to its rules over time."""
    async with visiting(address, viewport={"width": WIDTH, "height": 900}) as visit:
        await visit.go(f"runs/{run}")
        await visit.page.locator("#live[data-state=live]").wait_for()
        box = await visit.page.locator("#rules").bounding_box()
        assert box is not None
        bottom = box["y"] + box["height"] + MARGIN
        return await visit.page.screenshot(
            full_page=True, clip={"x": 0, "y": 0, "width": WIDTH, "height": bottom}
        )


def main() -> None:
    """Record runs or copy a file of runs, serve it, and write a screenshot in few colours."""
    out, *recorded = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        path, run = Path(folder) / "runs.db", HACKED_RUN
        if recorded:
            shutil.copy(recorded[0], path)
            run = recorded[1]
        else:
            record(path)
        with listening(Settings(models=("reference",), runs=path)) as address:
            picture = asyncio.run(screenshot(address, run))
    small = Image.open(BytesIO(picture)).convert("RGB").quantize(COLOURS)
    small.save(out, optimize=True)


if __name__ == "__main__":
    main()
