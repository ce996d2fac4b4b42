"""A whole run: phases, repeats, scenarios and systems, alternated so that ratios are comparable."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.corpora import ScoredTexts, build_corpora
from benchmarks.environments import versions
from benchmarks.models import Checkpoint, make_checkpoint, write_card
from benchmarks.phase import PhaseInputs, PhaseRunner
from benchmarks.results import Results, RunConfig
from benchmarks.scenarios import Corpus, Phase, scenarios_of
from benchmarks.systems import BARE, SERVERS, System, python_of
from benchmarks.texts import ModelName
from benchmarks.wire import BadReply

PHASES: tuple[Phase, ...] = ("encoder", "decoder", "cache")


class Runner:
    """A run of the configured systems and workloads, with lines of progress."""

    def __init__(self, config: RunConfig, log: Callable[[str], None]) -> None:
        self.config = config
        self.log = log
        self.results = Results()
        self.logs = config.cache / "logs" / str(os.getpid())
        self.scenarios = scenarios_of(config.workloads, config.scale)
        self.checkpoints: dict[ModelName, Checkpoint] = {}
        self.corpora: dict[Corpus, ScoredTexts] = {}
        self.versions: dict[str, dict[str, str]] = {}

    def run(self, save: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Run all phases and return the results.

        After each scenario `save` is called with the results so far, conditions included.
        """
        started = time.time()
        self._prepare()
        inputs = PhaseInputs(
            config=self.config,
            checkpoints=self.checkpoints,
            corpora=self.corpora,
            logs=self.logs,
            results=self.results,
            log=self.log,
            save=lambda: save(self._to_dict(started)),
        )
        for phase in PHASES:
            scenarios = [scenario for scenario in self.scenarios if scenario.phase == phase]
            if not scenarios:
                continue
            try:
                PhaseRunner(inputs, phase, scenarios).run()
            except (OSError, RuntimeError, BadReply) as error:
                self.results.failures[f"harness.{phase}"] = f"{type(error).__name__}: {error}"
                self.log(f"{phase} broke off: {error}")
        return self._to_dict(started)

    def _to_dict(self, started: float) -> dict[str, Any]:
        return {
            "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started)),
            "minutes": (time.time() - started) / 60,
            "machine": machine(),
            "versions": self.versions,
            "settings": self._settings(),
            "shapes": [asdict(scenario) for scenario in self.scenarios],
            **asdict(self.results),
        }

    def _prepare(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        self.versions = self._versions()
        for name in sorted({scenario.model for scenario in self.scenarios}):
            self.log(f"checkpoint: {name}")
            self.checkpoints[name] = make_checkpoint(name, self.config.cache)
            write_card(self.checkpoints[name], self.config.batch_tokens)
        names = {scenario.corpus for scenario in self.scenarios}
        if names & {"idle", "bulk"}:
            names.add("singles")
        self.log(f"texts and their expected scores: {', '.join(sorted(names))}")
        self.corpora = build_corpora(names, self.checkpoints, self.config.scale, self.config.cache)

    def _systems(self) -> list[System]:
        return [SERVERS[name] for name in self.config.systems if name in SERVERS]

    def _versions(self) -> dict[str, dict[str, str]]:
        return {
            system.name: versions(python_of(system, self.config.venvs), system.packages)
            for system in (*self._systems(), BARE)
        }

    def _settings(self) -> dict[str, Any]:
        return {
            "scale": asdict(self.config.scale),
            "dtype": self.config.dtype,
            "batch_tokens": self.config.batch_tokens,
            "systems": {system.name: system.settings for system in self._systems()},
        }


def machine() -> dict[str, Any]:
    """Return a description of the machine."""
    cpu = "unknown"
    for text in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if text.startswith("model name"):
            cpu = text.partition(":")[2].strip()
            break
    return {
        "cpu": cpu,
        "cores": len(psutil.Process().cpu_affinity()),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
