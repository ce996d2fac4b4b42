"""The unit costs of each layer: processor time, bytes and operations of one item.

The layers are measured in this process, around the calls that the server makes; whole requests, a
shared Redis, a recorded run and traces on real servers, as additions to a plain one. Processor time
is measured, not time, so that other programs of the machine change it little.

Example:
    python -m benchmarks.unit_costs --repeats 9
"""

import argparse
from collections.abc import Iterable, Iterator

import uvloop

from assay.api.components import components_of
from assay.app import create_app
from assay.served_model import Ready
from assay.settings import Settings
from benchmarks.layer_costs import MODEL, Cost, Layers
from benchmarks.server_costs import measure_servers


async def measure(repeats: int) -> list[Cost]:
    """Return all rows, each from `repeats` measurements."""
    app = create_app(Settings(models=(MODEL,), runs="off"))
    async with app.router.lifespan_context(app):
        served = components_of(app).service.find(MODEL)
        await served.loaded()
        assert isinstance(served.state, Ready), served.failure
        layers = await Layers(served, served.state).measure(repeats)
    return [*layers, *await measure_servers(repeats)]


def table(costs: Iterable[Cost]) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield "| layer | of one item | cost | measured |"
    yield "| --- | --- | --- | --- |"
    for cost in costs:
        span = f"{_number(cost.low)} to {_number(cost.high)}"
        yield f"| {cost.layer} | {cost.quantity} | {_number(cost.value)} {cost.unit} | {span} |"


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9, help="measurements of each cost (9)")
    print("\n".join(table(uvloop.run(measure(parser.parse_args().repeats)))))


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
