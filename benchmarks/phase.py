"""A phase of a run: its servers are started, its scenarios measured alternately, then stopped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks import limits
from benchmarks.corpora import ScoredTexts, group_texts, stampede_texts
from benchmarks.measure import NotServing, Server, post, run_scenario, start
from benchmarks.models import Checkpoint
from benchmarks.processes import exclusive, free_port
from benchmarks.results import Results, RunConfig
from benchmarks.scenarios import Corpus, Phase, Scenario
from benchmarks.systems import ASSAY, BARE, SERVERS, Launch, System
from benchmarks.texts import ModelName
from benchmarks.wire import WIRES

START_SECONDS_OF = {"vllm": 240.0}
START_SECONDS = 90.0
SINGLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseInputs:
    """The parts that all phases share.

    `log` prints a line of progress. `save` is called when a scenario has been measured on every
    system.
    """

    config: RunConfig
    checkpoints: Mapping[ModelName, Checkpoint]
    corpora: Mapping[Corpus, ScoredTexts]
    logs: Path
    results: Results
    log: Callable[[str], None]
    save: Callable[[], None]


class PhaseRunner:
    """One phase of a run."""

    def __init__(self, inputs: PhaseInputs, phase: Phase, scenarios: Sequence[Scenario]) -> None:
        self.inputs = inputs
        self.config = inputs.config
        self.phase = phase
        self.scenarios = scenarios
        self.checkpoint = inputs.checkpoints[scenarios[0].model]
        self.servers: list[Server] = []
        self.limits: list[limits.Limit] = []

    def run(self) -> None:
        """Start the servers, measure, and stop the servers."""
        try:
            self._start_limits()
            for system in self._systems():
                self._start(system)
            if self.phase == "cache":
                self._start_bare()
            for repeat in range(self.config.scale.repeats):
                self._run_repeat(repeat)
        finally:
            for server in self.servers:
                server.tree.stop()
            for limit in self.limits:
                limit.helper.stop()

    def _systems(self) -> list[System]:
        names = self.config.systems if self.phase != "cache" else ("assay",)
        systems = [SERVERS[name] for name in names if name in SERVERS]
        return [system for system in systems if any(map(system.runs, self.scenarios))]

    def _start(self, system: System, replies: Path | None = None) -> None:
        # Texts that the server must score right first; the bare endpoint has no other replies.
        probe = self.inputs.corpora["cached" if replies else self.scenarios[0].corpus]
        launch = Launch(
            self.checkpoint,
            free_port(),
            folder=self.inputs.logs,
            dtype=self.config.dtype,
            cache=None if self.phase == "cache" else 0,
            replies=replies,
        )
        timeout = START_SECONDS_OF.get(system.name, START_SECONDS)
        key = f"{system.name}.{self.phase}"
        try:
            server = start(system, launch, venvs=self.config.venvs, probe=probe, timeout=timeout)
        except NotServing as error:
            self.inputs.log(f"{system.title} does not serve the {self.checkpoint.name}: {error}")
            self.inputs.results.failures[key] = str(error)
            return
        self.inputs.log(f"{system.title} serves the {self.checkpoint.name}")
        self.inputs.results.starts[key] = server.start_seconds
        server.tree.suspend()
        self.servers.append(server)

    def _start_bare(self) -> None:
        """Start the bare endpoint with Assay's replies; requesting them fills Assay's cache."""
        scenarios = [row for row in self.scenarios if row.workload == "cached"]
        if not scenarios or not self.servers:
            return
        (assay,) = self.servers
        texts = self.inputs.corpora["cached"].texts
        wire, path = WIRES[ASSAY.wire], self.inputs.logs / "replies.json"
        assay.tree.resume()
        replies = []
        for size in sorted({scenario.per_request for scenario in scenarios}, reverse=True):
            for _ in range(2):
                body = orjson.dumps(wire.body(self.checkpoint.card, texts[:size]))
                reply = post(assay.port, wire.path, body)
            replies.append(orjson.loads(reply))
        assay.tree.suspend()
        path.write_bytes(orjson.dumps(replies))
        self._start(BARE, path)

    def _start_limits(self) -> None:
        if "limit" not in self.config.systems or self.phase == "cache":
            return
        corpus: Corpus = "groups" if self.phase == "decoder" else "singles"
        texts = limits.texts_of(corpus, self.inputs.corpora[corpus], self.config.scale)
        for kind, title in limits.KINDS.items():
            self.inputs.log(f"{title} of the {self.checkpoint.name}: searching the best batches")
            launch = Launch(self.checkpoint, 0, folder=self.inputs.logs, dtype=self.config.dtype)
            with exclusive(self.config.lock):
                limit = limits.start_limit(kind, launch, ASSAY)
                self.limits.append(limit)
                limits.search(limit, texts, corpus == "groups")

    def _run_repeat(self, repeat: int) -> None:
        self._measure_limits(repeat)
        for scenario in self.scenarios:
            if scenario.long and repeat >= self.config.scale.long_repeats:
                continue
            for server in self.servers:
                if server.system.runs(scenario) and not self._is_left_out(scenario, server):
                    self._measure(scenario, server, repeat)
            self.inputs.save()

    def _is_left_out(self, scenario: Scenario, server: Server) -> bool:
        name, results = server.system.name, self.inputs.results
        seconds = results.expected_seconds(scenario, name, self.scenarios)
        if seconds <= self.config.scale.max_seconds:
            return False
        results.left_out.setdefault(name, {})[scenario.name] = seconds
        line = f"  {scenario.name:18} {server.system.title:17} left out: {seconds:.0f} s"
        self.inputs.log(line)
        return True

    def _measure(self, scenario: Scenario, server: Server, repeat: int) -> None:
        scored = self._texts_of(scenario, repeat)
        with exclusive(self.config.lock):
            server.tree.resume()
            try:
                figures = run_scenario(scenario, server, scored, self.config.scale.max_seconds)
            except (RuntimeError, OSError, AssertionError) as error:
                figures = {"failed": f"{type(error).__name__}: {error}"}
            server.tree.suspend()
        self.inputs.results.add(scenario, server.system.name, figures)
        name = f"{repeat + 1} {scenario.name:18} {server.system.title:17}"
        self.inputs.log(f"{name} {progress_line(figures)}")

    def _texts_of(self, scenario: Scenario, repeat: int) -> ScoredTexts:
        scored = self.inputs.corpora[scenario.corpus]
        if scenario.corpus == "stampede":
            return stampede_texts(scored, repeat)
        if scenario.corpus == "groups":
            index = self.scenarios.index(scenario)
            return group_texts(scored, index, repeat, self.config.scale)
        return scored

    def _measure_limits(self, repeat: int) -> None:
        has_idle = any(scenario.workload == "idle" for scenario in self.scenarios)
        for limit in self.limits:
            with exclusive(self.config.lock):
                figures = limits.measure(limit)
                if has_idle:
                    limits.measure_single(limit, self.inputs.corpora["idle"], SINGLE_SECONDS)
            self.inputs.results.limits[f"{self.phase}.{limit.kind}"] = limit.to_dict()
            rate = figures["items_per_second"]
            self.inputs.log(f"{repeat + 1} {limits.KINDS[limit.kind]:36} {rate:8.1f} items/s")


def progress_line(figures: dict[str, Any]) -> str:
    """Return the figures of one measurement in a line."""
    if "failed" in figures:
        return str(figures["failed"])
    errors = sum(figures["errors"].values())
    p50, p99 = (
        "-" if figures[name] is None else f"{figures[name]:.1f} ms" for name in ("p50_ms", "p99_ms")
    )
    return f"{figures['items_per_second']:8.1f} items/s  p50 {p50}  p99 {p99}  errors {errors}"
