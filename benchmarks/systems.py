"""The systems that are measured: how each is started, asked, and with which settings."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cells import Cell, Workload
from benchmarks.models import Checkpoint
from benchmarks.texts import ModelName

ROOT = Path(__file__).resolve().parents[1]
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, slots=True)
class Launch:
    """What a start depends on. `replies` are what the bare endpoint answers, `cache` is the memory
    for Assay's scores (None: its default).
    """

    found: Checkpoint
    port: int
    folder: Path
    dtype: str = "float32"
    cache: int | None = 0
    replies: Path | None = None


Command = Callable[[str, Launch], list[str]]
Environment = Callable[[Launch], Mapping[str, str]]


def _nothing(_: Launch) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class System:
    """One server. `home` is its own virtual environment, None for the one that runs the harness;
    `packages` are those whose versions are reported; `settings` are told in the report; it is put
    to `workloads` only, if it names some.
    """

    name: str
    title: str
    wire: str
    command: Command
    environment: Environment = _nothing
    home: str | None = None
    packages: tuple[str, ...] = ()
    settings: str = ""
    decoder_wire: str | None = None
    workloads: tuple[Workload, ...] = ()

    @property
    def is_assay(self) -> bool:
        """Whether it is Assay, whose counters are known."""
        return self.command is _assay

    def takes(self, cell: Cell) -> bool:
        """Whether it is put to that cell."""
        return not self.workloads or cell.workload in self.workloads

    def wire_of(self, model: ModelName) -> str:
        """The request format for a model."""
        return self.decoder_wire if model == "decoder" and self.decoder_wire else self.wire

    def model_name(self, found: Checkpoint) -> str:
        """The model's name in a request."""
        return str(found.weights) if self.name in ("infinity", "vllm") else found.card


def variables(system: System, launch: Launch) -> dict[str, str]:
    """The environment a server is started in: this one's, less what would steer Assay."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("ASSAY_")}
    return {**kept, **OFFLINE, "PYTHONPATH": str(ROOT), **system.environment(launch)}


def python_of(system: System, venvs: Path) -> str:
    """The interpreter that runs a system."""
    return sys.executable if system.home is None else str(venvs / system.home / "bin" / "python")


def _assay(python: str, launch: Launch) -> list[str]:
    return [str(Path(python).parent / "assay"), "serve", "--port", str(launch.port)]


def _assay_environment(launch: Launch) -> dict[str, str]:
    own = {
        "ASSAY_REPOSITORY": str(launch.found.repository),
        "ASSAY_MODELS": f"{launch.found.card}@1",
        "ASSAY_DTYPE": launch.dtype,
    }
    if launch.cache is not None:
        own["ASSAY_CACHE_BYTES"] = str(launch.cache)
    return own


def _deterministic_environment(launch: Launch) -> dict[str, str]:
    return {**_assay_environment(launch), "ASSAY_DETERMINISTIC": "1"}


def _program(module: str) -> Command:
    def command(python: str, launch: Launch) -> list[str]:
        weights, port = str(launch.found.weights), str(launch.port)
        return [python, "-m", f"benchmarks.peers.{module}", "--model", weights, "--port", port]

    return command


def _bare(python: str, launch: Launch) -> list[str]:
    module = [python, "-m", "benchmarks.peers.bare_server"]
    return [*module, "--replies", str(launch.replies), "--port", str(launch.port)]


def _mosec(python: str, launch: Launch) -> list[str]:
    flags = ["--address", "127.0.0.1", "--timeout", "300000", "--capacity", "8192"]
    module = [python, "-m", "benchmarks.peers.mosec_server"]
    return [*module, "--port", str(launch.port), *flags]


def _infinity(python: str, launch: Launch) -> list[str]:
    given = {
        "--model-id": str(launch.found.weights),
        "--served-model-name": str(launch.found.weights),
        "--host": "127.0.0.1",
        "--port": str(launch.port),
        "--engine": "torch",
        "--device": "cpu",
        "--dtype": "float32",
        "--batch-size": "32",
    }
    switches = ["--no-bettertransformer", "--no-compile", "--no-model-warmup"]
    program = str(Path(python).parent / "infinity_emb")
    return [program, "v2", *(part for pair in given.items() for part in pair), *switches]


def _vllm(python: str, launch: Launch) -> list[str]:
    given = {
        "--host": "127.0.0.1",
        "--port": str(launch.port),
        "--runner": "pooling",
        "--dtype": "float32",
        "--max-model-len": str(launch.found.max_tokens),
    }
    program = [str(Path(python).parent / "vllm"), "serve", str(launch.found.weights)]
    return [*program, *(part for pair in given.items() for part in pair)]


def _vllm_environment(_: Launch) -> dict[str, str]:
    return {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }


ASSAY = System(
    "assay",
    "Assay",
    "assay",
    _assay,
    _assay_environment,
    packages=("assay", "torch", "transformers", "fastapi", "uvicorn"),
    settings="defaults; score cache off except where the workload is the cache",
)
DETERMINISTIC = System(
    "deterministic",
    "Assay, bit-equal",
    "assay",
    _assay,
    _deterministic_environment,
    packages=("assay",),
    settings="deterministic mode",
    workloads=("fresh",),
)
BARE = System(
    "bare",
    "bare endpoint",
    "assay",
    _bare,
    packages=("fastapi", "uvicorn", "uvloop", "httptools"),
    workloads=("cached",),
)
PEERS = (
    System(
        "naive",
        "trainer's server",
        "trainer",
        _program("naive_server"),
        packages=("torch", "transformers"),
        settings="model called inside the event loop, one request at a time",
    ),
    System(
        "infinity",
        "infinity",
        "infinity",
        _infinity,
        home="infinity",
        packages=("infinity-emb", "torch", "transformers"),
        settings="engine torch, batch size 32, /rerank with raw_scores",
    ),
    System(
        "litserve",
        "LitServe",
        "predict",
        _program("litserve_server"),
        home="litserve",
        packages=("litserve", "torch", "transformers"),
        settings="max_batch_size 32, batch_timeout 10 ms, 1 worker with all cores",
    ),
    System(
        "mosec",
        "mosec",
        "inference",
        _mosec,
        lambda launch: {"BENCH_MODEL": str(launch.found.weights)},
        home="mosec",
        packages=("mosec", "torch", "transformers"),
        settings="max_batch_size 32, max_wait_time 10 ms, 1 worker with all cores",
    ),
    System(
        "vllm",
        "vLLM (CPU)",
        "vllm-score",
        _vllm,
        _vllm_environment,
        home="vllm",
        packages=("vllm-cpu", "torch", "transformers"),
        decoder_wire="vllm-classify",
        settings="pooling runner, float32, /score and /classify without activation",
    ),
)
SERVERS: Mapping[str, System] = {system.name: system for system in (ASSAY, DETERMINISTIC, *PEERS)}
