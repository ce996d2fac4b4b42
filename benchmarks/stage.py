"""One phase of a run: its servers started, their cells measured in turn, the servers ended."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks import limits
from benchmarks.cells import Cell, Corpus, Phase
from benchmarks.corpora import Scored, groups_of, storm_of
from benchmarks.measure import NotServing, Server, post, run_cell, start
from benchmarks.models import Checkpoint
from benchmarks.processes import free_port, turn
from benchmarks.results import Results, Run
from benchmarks.systems import ASSAY, BARE, SERVERS, Launch, System
from benchmarks.texts import ModelName
from benchmarks.wire import WIRES

PATIENCE = {"vllm": 240.0}
START_PATIENCE = 90.0
SINGLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the phases share: the order, the checkpoints, the texts, where logs and findings go.
    `keep` is called when a cell has been measured on every system."""

    run: Run
    found: Mapping[ModelName, Checkpoint]
    corpora: Mapping[Corpus, Scored]
    logs: Path
    results: Results
    say: Callable[[str], None]
    keep: Callable[[], None]


class Stage:
    """One phase of a run: its servers started, their cells measured in turn, the servers ended."""

    def __init__(self, inputs: Inputs, phase: Phase, cells: Sequence[Cell]) -> None:
        self.inputs = inputs
        self.run = inputs.run
        self.phase = phase
        self.cells = cells
        self.found = inputs.found[cells[0].model]
        self.servers: list[Server] = []
        self.limits: list[limits.Limit] = []

    def all(self) -> None:
        """Start, measure, end."""
        try:
            self._start_limits()
            for system in self._systems():
                self._start(system)
            if self.phase == "cache":
                self._start_bare()
            for number in range(self.run.scale.repeats):
                self._round(number)
        finally:
            for server in self.servers:
                server.tree.end()
            for limit in self.limits:
                limit.helper.end()

    def _systems(self) -> list[System]:
        names = self.run.systems if self.phase != "cache" else ("assay",)
        chosen = [SERVERS[name] for name in names if name in SERVERS]
        return [system for system in chosen if any(map(system.takes, self.cells))]

    def _start(self, system: System, replies: Path | None = None) -> None:
        # What the server has to get right before it is measured; the bare endpoint knows no others.
        scored = self.inputs.corpora["cached" if replies else self.cells[0].corpus]
        cache = None if self.phase == "cache" else 0
        launch = Launch(self.found, free_port(), self.inputs.logs, self.run.dtype, cache, replies)
        patience = PATIENCE.get(system.name, START_PATIENCE)
        try:
            server = start(system, launch, self.run.venvs, scored, patience)
        except NotServing as error:
            self.inputs.say(f"{system.title} does not serve the {self.found.name}: {error}")
            self.inputs.results.failures[f"{system.name}.{self.phase}"] = str(error)
            return
        self.inputs.say(f"{system.title} serves the {self.found.name}")
        self.inputs.results.starts[f"{system.name}.{self.phase}"] = server.start_seconds
        server.tree.sleep()
        self.servers.append(server)

    def _start_bare(self) -> None:
        """The bare endpoint answers with what Assay answers, which also fills Assay's cache."""
        cells = [cell for cell in self.cells if cell.workload == "cached"]
        if not cells or not self.servers:
            return
        (assay,) = self.servers
        scored = self.inputs.corpora["cached"]
        wire, replies = WIRES[ASSAY.wire], self.inputs.logs / "replies.json"
        assay.tree.wake()
        answers = []
        for size in sorted({cell.per_request for cell in cells}, reverse=True):
            for _ in range(2):
                body = orjson.dumps(wire.body(self.found.card, scored.texts[:size]))
                answer = post(assay.port, wire.path, body)
            answers.append(orjson.loads(answer))
        assay.tree.sleep()
        replies.write_bytes(orjson.dumps(answers))
        self._start(BARE, replies)

    def _start_limits(self) -> None:
        if "limit" not in self.run.systems or self.phase == "cache":
            return
        corpus: Corpus = "groups" if self.phase == "decoder" else "singles"
        texts = limits.texts_of(corpus, self.inputs.corpora[corpus], self.run.scale)
        for kind, title in limits.KINDS.items():
            self.inputs.say(f"{title} of the {self.found.name}: looking for the best batches")
            launch = Launch(self.found, 0, self.inputs.logs, self.run.dtype)
            with turn(self.run.lock):
                limit = limits.open_limit(kind, launch, ASSAY)
                self.limits.append(limit)
                limits.search(limit, texts, corpus == "groups")

    def _round(self, number: int) -> None:
        self._measure_limits(number)
        for cell in self.cells:
            if cell.long and number >= self.run.scale.long_repeats:
                continue
            for server in self.servers:
                if server.system.takes(cell) and not self._left_out(cell, server):
                    self._measure(cell, server, number)
            self.inputs.keep()

    def _left_out(self, cell: Cell, server: Server) -> bool:
        name, results = server.system.name, self.inputs.results
        seconds = results.seconds(cell, name, self.cells)
        if seconds <= self.run.scale.patience:
            return False
        results.left_out.setdefault(name, {})[cell.name] = seconds
        self.inputs.say(f"  {cell.name:18} {server.system.title:17} left out: {seconds:.0f} s")
        return True

    def _measure(self, cell: Cell, server: Server, number: int) -> None:
        scored = self.inputs.corpora[cell.corpus]
        if cell.corpus == "storm":
            scored = storm_of(scored, number)
        if cell.corpus == "groups":
            scored = groups_of(scored, self.cells.index(cell), number, self.run.scale)
        with turn(self.run.lock):
            server.tree.wake()
            try:
                found = run_cell(cell, server, scored, self.run.scale.patience)
            except (RuntimeError, OSError, AssertionError) as error:
                found = {"failed": f"{type(error).__name__}: {error}"}
            server.tree.sleep()
        self.inputs.results.add(cell, server.system.name, found)
        self.inputs.say(f"{number + 1} {cell.name:18} {server.system.title:17} {line(found)}")

    def _measure_limits(self, number: int) -> None:
        idle = any(cell.workload == "idle" for cell in self.cells)
        for limit in self.limits:
            with turn(self.run.lock):
                found = limits.measure(limit)
                if idle:
                    text = self.inputs.corpora["idle"]
                    limits.measure_single(limit, text, SINGLE_SECONDS)
            self.inputs.results.limits[f"{self.phase}.{limit.kind}"] = limit.told()
            rate = found["items_per_second"]
            self.inputs.say(f"{number + 1} {limits.KINDS[limit.kind]:36} {rate:8.1f} items/s")


def line(found: dict[str, Any]) -> str:
    """One cell's figures in a line."""
    if "failed" in found:
        return str(found["failed"])
    errors = sum(found["errors"].values())
    p50, p99 = (
        "-" if found[name] is None else f"{found[name]:.1f} ms" for name in ("p50_ms", "p99_ms")
    )
    return f"{found['items_per_second']:8.1f} items/s  p50 {p50}  p99 {p99}  errors {errors}"
