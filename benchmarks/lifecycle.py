"""The memory of a model that is loaded and unloaded again and again, and the event loop's delay.

For each cycle: the peak while it loads and the memory once it is unloaded, both as multiples of the
bytes of its loaded weights and over the memory before the cycle, and the longest delay of the event
loop while it is unloaded. The first load imports the family's libraries, which stay: it is left out
of the summary.

Example:
    python -m benchmarks.lifecycle --repository my-models --model my-rm@1 --cycles 6
"""

import argparse
import asyncio
import threading
import time
from pathlib import Path

from assay.api.components import Components, components_of
from assay.app import create_app
from assay.cli.memory import resident_bytes
from assay.lifecycle.lifecycle import LoadOrder
from assay.settings import Settings
from assay_models.repository import ModelRepository
from assay_models.weight_sizes import estimate_bytes

EXAMPLE = "example: python -m benchmarks.lifecycle --repository my-models --model my-rm@1"
SAMPLE_SECONDS = 0.002
WAIT_SECONDS = 600.0


class PeakMemory:
    """The highest resident memory within the block, sampled in a thread."""

    def __enter__(self) -> "PeakMemory":
        self.bytes = resident_bytes()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ending.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._ending.wait(SAMPLE_SECONDS):
            self.bytes = max(self.bytes, resident_bytes())


async def longest_delay(ending: asyncio.Event) -> float:
    """Return the longest delay of the event loop's timers, in seconds, until the event is set."""
    longest = 0.0
    while not ending.is_set():
        began = time.perf_counter()
        await asyncio.sleep(SAMPLE_SECONDS)
        longest = max(longest, time.perf_counter() - began - SAMPLE_SECONDS)
    return longest


async def measure_cycle(components: Components, model: str) -> tuple[int, int, float]:
    """Load and unload a model; return the peak and the rest in bytes, and the delay in seconds."""
    before, ending = resident_bytes(), asyncio.Event()
    with PeakMemory() as peak:
        served = await components.lifecycle.load(LoadOrder(model))
        await components.lifecycle.wait(served, WAIT_SECONDS)
    if served.failure is not None:
        raise SystemExit(f"{model} could not be loaded: {served.failure}")
    delay = asyncio.create_task(longest_delay(ending))
    await components.lifecycle.wait(components.lifecycle.unload(served.id), WAIT_SECONDS)
    ending.set()
    return peak.bytes - before, resident_bytes() - before, await delay


async def measure(arguments: argparse.Namespace) -> None:
    """Print each cycle, and the highest peak of those after the first."""
    size = estimate_bytes(ModelRepository(arguments.repository).find(arguments.model), "float32")
    if not size:
        raise SystemExit(f"{arguments.model} has no weights here")
    settings = Settings(models=("reference",), repository=tuple(arguments.repository), runs="off")
    app = create_app(settings)
    peaks = []
    async with app.router.lifespan_context(app):
        for number in range(arguments.cycles):
            peak, rest, delay = await measure_cycle(components_of(app), arguments.model)
            peaks.append(peak / size)
            print(
                f"cycle {number}: peak {peak / size:.2f}, unloaded {rest / size:+.2f} times "
                f"{size / 2**20:,.0f} MiB of weights, event loop {delay * 1e3:.0f} ms late"
            )
    later = peaks[1:] or peaks
    print(f"peak of the later cycles: {min(later):.2f} to {max(later):.2f} times the weights")


def main() -> None:
    """Parse the arguments and measure."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=EXAMPLE,
    )
    parser.add_argument("--repository", type=Path, action="append", required=True)
    parser.add_argument("--model", required=True, help="name@version")
    parser.add_argument("--cycles", type=int, default=6)
    asyncio.run(measure(parser.parse_args()))


if __name__ == "__main__":
    main()
