"""A whole run: phases, rounds, cells and systems in turn, so that ratios are taken together."""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from benchmarks.cells import Corpus, Phase, cells_of
from benchmarks.corpora import Scored, build
from benchmarks.environments import versions
from benchmarks.models import Checkpoint, checkpoint, write_card
from benchmarks.results import Results, Run
from benchmarks.stage import Inputs, Stage
from benchmarks.systems import BARE, SERVERS, python_of
from benchmarks.texts import ModelName
from benchmarks.wire import BadReply

PHASES: tuple[Phase, ...] = ("encoder", "decoder", "cache")


class Runner:
    """Carries out a run, and tells how far it is."""

    def __init__(self, run: Run, say: Callable[[str], None]) -> None:
        self.run = run
        self.say = say
        self.results = Results()
        self.logs = run.cache / "logs" / str(os.getpid())
        self.cells = cells_of(run.workloads, run.scale)
        self.found: dict[ModelName, Checkpoint] = {}
        self.corpora: dict[Corpus, Scored] = {}
        self.versions: dict[str, dict[str, str]] = {}

    def all(self, keep: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Run it. After each cell `keep` is given what there is so far, conditions included."""
        began = time.time()
        self._prepare()
        inputs = Inputs(
            self.run,
            self.found,
            self.corpora,
            self.logs,
            self.results,
            self.say,
            lambda: keep(self._told(began)),
        )
        for phase in PHASES:
            cells = [cell for cell in self.cells if cell.phase == phase]
            if not cells:
                continue
            try:
                Stage(inputs, phase, cells).all()
            except (OSError, RuntimeError, BadReply) as error:
                self.results.failures[f"harness.{phase}"] = f"{type(error).__name__}: {error}"
                self.say(f"{phase} broke off: {error}")
        return self._told(began)

    def _told(self, began: float) -> dict[str, Any]:
        return {
            "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(began)),
            "minutes": (time.time() - began) / 60,
            "machine": machine(),
            "versions": self.versions,
            "settings": self._settings(),
            "shapes": [asdict(cell) for cell in self.cells],
            **asdict(self.results),
        }

    def _prepare(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        self.versions = self._versions()
        for name in sorted({cell.model for cell in self.cells}):
            self.say(f"checkpoint: {name}")
            self.found[name] = checkpoint(name, self.run.cache)
            write_card(self.found[name], self.run.batch_tokens)
        names = {cell.corpus for cell in self.cells}
        if names & {"idle", "bulk"}:
            names.add("singles")
        self.say(f"texts and their right scores: {', '.join(sorted(names))}")
        self.corpora = build(names, self.found, self.run.scale, self.run.cache)

    def _versions(self) -> dict[str, dict[str, str]]:
        chosen = [SERVERS[name] for name in self.run.systems if name in SERVERS]
        return {
            one.name: versions(python_of(one, self.run.venvs), one.packages)
            for one in (*chosen, BARE)
        }

    def _settings(self) -> dict[str, Any]:
        chosen = [SERVERS[name] for name in self.run.systems if name in SERVERS]
        return {
            "scale": asdict(self.run.scale),
            "dtype": self.run.dtype,
            "batch_tokens": self.run.batch_tokens,
            "systems": {one.name: one.settings for one in chosen},
        }


def machine() -> dict[str, Any]:
    """What the run ran on."""
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
