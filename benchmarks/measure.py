"""One server under one load: started, proven right, loaded, watched."""

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

from benchmarks.cells import Cell
from benchmarks.corpora import Scored
from benchmarks.load import Plan
from benchmarks.processes import Dialogue, Tree, Watch, settle
from benchmarks.systems import Launch, System, python_of, variables
from benchmarks.wire import WIRES, BadReply

READY_PAUSE = 0.25
SETTLE_SECONDS = 60.0
POST_SECONDS = 120.0
MIB = 2**20
FAR_OFF, FAR_OFF_ROUNDED = 0.02, 0.25
SAMPLE = re.compile(r"^(assay_\w+)\{([^}]*)\} (\S+)$", re.MULTILINE)
OUTCOME = re.compile(r'outcome="(\w+)"')


class NotServing(Exception):
    """A server did not start, or its first answer was not the right one."""


@dataclass(slots=True)
class Server:
    """A running server."""

    system: System
    launch: Launch
    tree: Tree
    start_seconds: float

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.launch.port


def start(system: System, launch: Launch, venvs: Path, probe: Scored, patience: float) -> Server:
    """Start a server and wait until it gives the right score of the probe's first text.

    Raises:
        NotServing: it ended, gave another score, or was not ready in time; the text says which.
    """
    began = time.monotonic()
    log = launch.folder / f"{system.name}-{launch.found.name}.log"
    command = system.command(python_of(system, venvs), launch)
    if not Path(command[0]).exists():
        raise NotServing(f"not installed: python -m benchmarks --install {system.name}")
    tree = Tree(command, variables(system, launch), log)
    server = Server(system, launch, tree, 0.0)
    with contextlib.ExitStack() as unless_ready:
        unless_ready.callback(tree.end)
        _await_right_answer(server, probe, began + patience)
        unless_ready.pop_all()
    server.start_seconds = time.monotonic() - began
    return server


def _await_right_answer(server: Server, probe: Scored, ends: float) -> None:
    latest = "no answer"
    while time.monotonic() < ends:
        if not server.tree.alive:
            raise NotServing(f"it ended: {server.tree.tail()}")
        try:
            score = ask_once(server, probe)
        except (OSError, http.client.HTTPException, BadReply) as error:
            latest = f"{type(error).__name__}: {error}"
            time.sleep(READY_PAUSE)
            continue
        if abs(score - probe.truth[0]) > far_off(server):
            raise NotServing(f"it scores {score:.6g} where {probe.truth[0]:.6g} is right")
        return
    raise NotServing(f"not ready in time ({latest}): {server.tree.tail(2)}")


def far_off(server: Server) -> float:
    """How far a score may be from the right one; bf16 keeps about two digits."""
    rounded = server.system.is_assay and server.launch.dtype != "float32"
    return FAR_OFF_ROUNDED if rounded else FAR_OFF


def ask_once(server: Server, probe: Scored) -> float:
    """The score of the first text."""
    wire = WIRES[server.system.wire_of(server.launch.found.name)]
    model = server.system.model_name(server.launch.found)
    body = orjson.dumps(wire.body(model, probe.texts[:1]))
    return wire.read(post(server.port, wire.path, body), 1)[0]


def post(port: int, path: str, body: bytes) -> bytes:
    """The reply to one request.

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


def run_cell(cell: Cell, server: Server, scored: Scored, patience: float) -> dict[str, Any]:
    """Every figure of one cell on one server."""
    plan = Plan(
        host="127.0.0.1",
        port=server.port,
        wire=server.system.wire_of(cell.model),
        model=server.system.model_name(server.launch.found),
        fresh=cell.fresh,
        callers=cell.callers,
        per_request=cell.per_request,
        seconds=cell.seconds,
        requests=cell.requests,
        patience=patience,
        far_off=far_off(server),
        texts=scored.texts,
        truth=[] if server.system.name == "bare" else scored.truth,
    )
    path = server.launch.folder / "plan.json"
    path.write_bytes(plan.dump())
    log = server.launch.folder / "load.log"
    command = [sys.executable, "-m", "benchmarks.load", str(path)]
    load = Dialogue(command, variables(server.system, server.launch), log)
    try:
        return _watched(server, load)
    finally:
        load.end()


def _watched(server: Server, load: Dialogue) -> dict[str, Any]:
    assert load.hear() == "ready"
    rested = settle(server.tree, SETTLE_SECONDS)
    before, busy, machine = counters(server), server.tree.cpu_seconds(), machine_busy()
    with Watch(server.tree) as watch:
        load.say("go")
        assert load.hear() == "done"
        busy = server.tree.cpu_seconds() - busy
        machine = machine_busy() - machine
    after = counters(server)
    found: dict[str, Any] = orjson.loads(load.hear())
    found["server_cpu"] = busy / found["seconds"]
    found["other_cpu"] = max(
        0.0, machine / found["seconds"] - found["server_cpu"] - found["generator_cpu"]
    )
    found["peak_mib"] = watch.peak_bytes / MIB
    found["began_at_rest"] = rested
    if after:
        found["counters"] = {name: after[name] - before.get(name, 0.0) for name in after}
        found.update(_told(found["counters"]))
    return found


def machine_busy() -> float:
    """CPU seconds that all processes of the machine have used so far."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def counters(server: Server) -> dict[str, float]:
    """What Assay counts of itself, by name and outcome; nothing of other servers."""
    if not server.system.is_assay:
        return {}
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        return read_counters(connection.getresponse().read().decode())


def read_counters(exposition: str) -> dict[str, float]:
    """The counters in a Prometheus exposition, summed over all labels but the outcome."""
    found: dict[str, float] = {}
    for name, labels, value in SAMPLE.findall(exposition):
        if not name.endswith("_total"):
            continue
        outcome = OUTCOME.search(labels)
        short = name.removeprefix("assay_").removesuffix("_total")
        key = f"{short}.{outcome[1]}" if outcome else short
        found[key] = found.get(key, 0.0) + float(value)
    return found


def _told(counted: Mapping[str, float]) -> dict[str, float | None]:
    padded = counted.get("padded_tokens", 0.0)
    forwards = sum(value for name, value in counted.items() if name.startswith("forwards."))
    waste = 1.0 - counted.get("tokens", 0.0) / padded if padded else None
    return {
        "forwards": forwards,
        "padding_waste": waste,
        "computed": counted.get("items.computed", 0.0),
    }
