"""The systems that are measured: how each is started, its request format and its settings."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from pathlib import Path

from benchmarks.models import Checkpoint
from benchmarks.scenarios import Scenario, Workload
from benchmarks.texts import ModelName

ROOT = Path(__file__).resolve().parents[1]
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True, slots=True)
class Launch:
    """The parameters of a start.

    `folder` is that of the logs, `cache` the memory for Assay's scores (None: its default), and
    `replies` the file of the bare endpoint's replies.
    """

    checkpoint: Checkpoint
    port: int
    _: KW_ONLY
    folder: Path
    dtype: str = "float32"
    cache: int | None = 0
    replies: Path | None = None


Command = Callable[[str, Launch], list[str]]
Environment = Callable[[Launch], Mapping[str, str]]


def _no_variables(_: Launch) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class System:
    """A server.

    `home` is its own virtual environment, None for that of the harness; `packages` are those whose
    versions are reported; `settings` are printed in the report; it runs only `workloads`, if any
    are named.
    """

    name: str
    title: str
    _: KW_ONLY
    wire: str
    command: Command
    environment: Environment = _no_variables
    home: str | None = None
    packages: tuple[str, ...] = ()
    settings: str = ""
    decoder_wire: str | None = None
    workloads: tuple[Workload, ...] = ()

    @property
    def is_assay(self) -> bool:
        """Whether it is Assay, whose counters are known."""
        return self.command is _assay

    def runs(self, scenario: Scenario) -> bool:
        """Return whether that scenario is run on it."""
        return not self.workloads or scenario.workload in self.workloads

    def wire_of(self, model: ModelName) -> str:
        """Return the request format for a model."""
        return self.decoder_wire if model == "decoder" and self.decoder_wire else self.wire

    def model_name(self, checkpoint: Checkpoint) -> str:
        """Return the model's name in a request."""
        return str(checkpoint.weights) if self.name in ("infinity", "vllm") else checkpoint.card


def environment_of(system: System, launch: Launch) -> dict[str, str]:
    """Return the environment of a server: that of this process without Assay's settings, and its
    own variables."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("ASSAY_")}
    return {**kept, **OFFLINE, "PYTHONPATH": str(ROOT), **system.environment(launch)}


def python_of(system: System, venvs: Path) -> str:
    """Return the interpreter that runs a system."""
    return sys.executable if system.home is None else str(venvs / system.home / "bin" / "python")


def _assay(python: str, launch: Launch) -> list[str]:
    return [str(Path(python).parent / "assay"), "serve", "--port", str(launch.port)]


def _assay_variables(launch: Launch) -> dict[str, str]:
    own = {
        "ASSAY_REPOSITORY": str(launch.checkpoint.repository),
        "ASSAY_MODELS": f"{launch.checkpoint.card}@1",
        "ASSAY_DTYPE": launch.dtype,
    }
    if launch.cache is not None:
        own["ASSAY_CACHE_BYTES"] = str(launch.cache)
    return own


def _deterministic_variables(launch: Launch) -> dict[str, str]:
    return {**_assay_variables(launch), "ASSAY_DETERMINISTIC": "1"}


def _peer_program(module: str) -> Command:
    def command(python: str, launch: Launch) -> list[str]:
        weights, port = str(launch.checkpoint.weights), str(launch.port)
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
    options = {
        "--model-id": str(launch.checkpoint.weights),
        "--served-model-name": str(launch.checkpoint.weights),
        "--host": "127.0.0.1",
        "--port": str(launch.port),
        "--engine": "torch",
        "--device": "cpu",
        "--dtype": "float32",
        "--batch-size": "32",
    }
    switches = ["--no-bettertransformer", "--no-compile", "--no-model-warmup"]
    program = str(Path(python).parent / "infinity_emb")
    return [program, "v2", *(part for pair in options.items() for part in pair), *switches]


def _vllm(python: str, launch: Launch) -> list[str]:
    options = {
        "--host": "127.0.0.1",
        "--port": str(launch.port),
        "--runner": "pooling",
        "--dtype": "float32",
        "--max-model-len": str(launch.checkpoint.max_tokens),
    }
    program = [str(Path(python).parent / "vllm"), "serve", str(launch.checkpoint.weights)]
    return [*program, *(part for pair in options.items() for part in pair)]


def _vllm_variables(_: Launch) -> dict[str, str]:
    return {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }


ASSAY = System(
    "assay",
    "Assay",
    wire="assay",
    command=_assay,
    environment=_assay_variables,
    packages=("assay", "torch", "transformers", "fastapi", "uvicorn"),
    settings="defaults; score cache off except where the workload is the cache",
)
DETERMINISTIC = System(
    "deterministic",
    "Assay, bit-equal",
    wire="assay",
    command=_assay,
    environment=_deterministic_variables,
    packages=("assay",),
    settings="deterministic mode",
    workloads=("fresh",),
)
BARE = System(
    "bare",
    "bare endpoint",
    wire="assay",
    command=_bare,
    packages=("fastapi", "uvicorn", "uvloop", "httptools"),
    workloads=("cached",),
)
PEERS = (
    System(
        "naive",
        "trainer's server",
        wire="trainer",
        command=_peer_program("naive_server"),
        packages=("torch", "transformers"),
        settings="model called inside the event loop, one request at a time",
    ),
    System(
        "infinity",
        "infinity",
        wire="infinity",
        command=_infinity,
        home="infinity",
        packages=("infinity-emb", "torch", "transformers"),
        settings="engine torch, batch size 32, /rerank with raw_scores",
    ),
    System(
        "litserve",
        "LitServe",
        wire="predict",
        command=_peer_program("litserve_server"),
        home="litserve",
        packages=("litserve", "torch", "transformers"),
        settings="max_batch_size 32, batch_timeout 10 ms, 1 worker with all cores",
    ),
    System(
        "mosec",
        "mosec",
        wire="inference",
        command=_mosec,
        environment=lambda launch: {"BENCH_MODEL": str(launch.checkpoint.weights)},
        home="mosec",
        packages=("mosec", "torch", "transformers"),
        settings="max_batch_size 32, max_wait_time 10 ms, 1 worker with all cores",
    ),
    System(
        "vllm",
        "vLLM (CPU)",
        wire="vllm-score",
        command=_vllm,
        environment=_vllm_variables,
        home="vllm",
        packages=("vllm-cpu", "torch", "transformers"),
        decoder_wire="vllm-classify",
        settings="pooling runner, float32, /score and /classify without activation",
    ),
)
SERVERS: Mapping[str, System] = {system.name: system for system in (ASSAY, DETERMINISTIC, *PEERS)}
