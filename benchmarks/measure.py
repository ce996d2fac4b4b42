"""A server under one load: started, checked for the right score, loaded, and sampled."""

import contextlib
import http.client
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil

from benchmarks.corpora import ScoredTexts
from benchmarks.load import LoadConfig
from benchmarks.processes import HelperProcess, MemorySampler, ProcessTree, wait_until_idle
from benchmarks.scenarios import Scenario
from benchmarks.systems import Launch, System, environment_of, python_of
from benchmarks.wire import WIRES, BadReply

READY_PAUSE_SECONDS = 0.25
IDLE_SECONDS = 60.0
POST_SECONDS = 120.0
MIB = 2**20
TOLERANCE, BFLOAT16_TOLERANCE = 0.02, 0.25
SAMPLE = re.compile(r"^(assay_\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
OUTCOME = re.compile(r'outcome="(\w+)"')


class NotServing(Exception):
    """A server did not start, or its first score was wrong."""


@dataclass(slots=True)
class Server:
    """A running server."""

    system: System
    launch: Launch
    tree: ProcessTree
    start_seconds: float

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.launch.port


def start(
    system: System, launch: Launch, *, venvs: Path, probe: ScoredTexts, timeout: float
) -> Server:
    """Start a server and wait until it returns the right score of the probe's first text.

    Raises:
        NotServing: it ended, returned another score, or was not ready in time; the text says which.
    """
    started = time.monotonic()
    log = launch.folder / f"{system.name}-{launch.checkpoint.name}.log"
    command = system.command(python_of(system, venvs), launch)
    if not Path(command[0]).exists():
        raise NotServing(f"not installed: python -m benchmarks --install {system.name}")
    tree = ProcessTree(command, environment_of(system, launch), log)
    server = Server(system, launch, tree, 0.0)
    with contextlib.ExitStack() as unless_ready:
        unless_ready.callback(tree.stop)
        _wait_for_right_score(server, probe, started + timeout)
        unless_ready.pop_all()
    server.start_seconds = time.monotonic() - started
    return server


def _wait_for_right_score(server: Server, probe: ScoredTexts, ends: float) -> None:
    latest = "no answer"
    while time.monotonic() < ends:
        if not server.tree.is_alive:
            raise NotServing(f"it ended: {server.tree.log_tail()}")
        try:
            score = request_score(server, probe)
        except (OSError, http.client.HTTPException, BadReply) as error:
            latest = f"{type(error).__name__}: {error}"
            time.sleep(READY_PAUSE_SECONDS)
            continue
        expected = probe.expected[0]
        if abs(score - expected) > tolerance_of(server):
            raise NotServing(f"it scores {score:.6g} where {expected:.6g} is right")
        return
    raise NotServing(f"not ready in time ({latest}): {server.tree.log_tail(2)}")


def tolerance_of(server: Server) -> float:
    """Return how much a score may differ from the right one; bf16 keeps about two digits."""
    is_rounded = server.system.is_assay and server.launch.dtype != "float32"
    return BFLOAT16_TOLERANCE if is_rounded else TOLERANCE


def request_score(server: Server, probe: ScoredTexts) -> float:
    """Request the score of the first text."""
    wire = WIRES[server.system.wire_of(server.launch.checkpoint.name)]
    model = server.system.model_name(server.launch.checkpoint)
    body = orjson.dumps(wire.body(model, probe.texts[:1]))
    return wire.read(post(server.port, wire.path, body), 1)[0]


def post(port: int, path: str, body: bytes) -> bytes:
    """Return the reply to one request.

    Raises:
        BadReply: its status is not 200.
        OSError: the server cannot be reached.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=POST_SECONDS)
    with contextlib.closing(connection):
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        data = reply.read()
    if reply.status != 200:
        raise BadReply(f"status {reply.status}: {data[:200].decode(errors='replace')}")
    return data


def run_scenario(
    scenario: Scenario, server: Server, scored: ScoredTexts, timeout: float
) -> dict[str, Any]:
    """Measure one scenario on one server and return all figures."""
    config = LoadConfig(
        host="127.0.0.1",
        port=server.port,
        wire=server.system.wire_of(scenario.model),
        model=server.system.model_name(server.launch.checkpoint),
        new_connection=scenario.new_connection,
        concurrency=scenario.concurrency,
        per_request=scenario.per_request,
        seconds=scenario.seconds,
        requests=scenario.requests,
        timeout=timeout,
        tolerance=tolerance_of(server),
        texts=scored.texts,
        expected=[] if server.system.name == "bare" else scored.expected,
    )
    path = server.launch.folder / "load.json"
    path.write_bytes(config.dump())
    log = server.launch.folder / "load.log"
    command = [sys.executable, "-m", "benchmarks.load", str(path)]
    generator = HelperProcess(command, environment_of(server.system, server.launch), log)
    try:
        return _measure_load(server, generator)
    finally:
        generator.stop()


def _measure_load(server: Server, generator: HelperProcess) -> dict[str, Any]:
    assert generator.receive() == "ready"
    began_idle = wait_until_idle(server.tree, IDLE_SECONDS)
    before, busy, machine = counters(server), server.tree.cpu_seconds(), machine_cpu_seconds()
    with MemorySampler(server.tree) as memory:
        generator.send("go")
        assert generator.receive() == "done"
        busy = server.tree.cpu_seconds() - busy
        machine = machine_cpu_seconds() - machine
    after = counters(server)
    figures: dict[str, Any] = orjson.loads(generator.receive())
    figures["server_cpu"] = busy / figures["seconds"]
    own_cpu = figures["server_cpu"] + figures["generator_cpu"]
    figures["other_cpu"] = max(0.0, machine / figures["seconds"] - own_cpu)
    figures["peak_mib"] = memory.peak_bytes / MIB
    figures["began_at_rest"] = began_idle
    if after:
        figures["counters"] = {name: after[name] - before.get(name, 0.0) for name in after}
        figures.update(_counter_figures(figures["counters"]))
    return figures


def machine_cpu_seconds() -> float:
    """Return the CPU seconds that all processes of the machine have used so far."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def counters(server: Server) -> dict[str, float]:
    """Return Assay's own counters, by name and outcome; none of other servers."""
    if not server.system.is_assay:
        return {}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        return read_counters(connection.getresponse().read().decode())


def read_counters(exposition: str) -> dict[str, float]:
    """Return the counters in a Prometheus exposition, summed over all labels but the outcome."""
    totals: dict[str, float] = {}
    for name, labels, value in SAMPLE.findall(exposition):
        if not name.endswith("_total"):
            continue
        outcome = OUTCOME.search(labels)
        short = name.removeprefix("assay_").removesuffix("_total")
        key = f"{short}.{outcome[1]}" if outcome else short
        totals[key] = totals.get(key, 0.0) + float(value)
    return totals


def _counter_figures(counts: Mapping[str, float]) -> dict[str, float | None]:
    padded = counts.get("padded_tokens", 0.0)
    forwards = sum(value for name, value in counts.items() if name.startswith("forwards."))
    waste = 1.0 - counts.get("tokens", 0.0) / padded if padded else None
    return {
        "forwards": forwards,
        "padding_waste": waste,
        "computed": counts.get("items.computed", 0.0),
    }
