"""vLLM on the processor as a real process, from a virtual environment of its own."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

FOLDER = Path(__file__).parents[2] / ".venv" / "vllm"
START_SECONDS = 500.0
ABSENT = "no vLLM: `make .venv/vllm` installs it (3.5 GB)"


class VllmServer:
    """One `vllm serve` of a checkpoint's folder on a port, killed with its children at the end."""

    def __init__(self, weights: Path, port: int, *, max_tokens: int = 512) -> None:
        self.weights, self.port = weights, port
        self.url = f"http://127.0.0.1:{port}"
        self._max_tokens = max_tokens
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; return at once."""
        variables = {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        options = (
            *("--runner", "pooling", "--dtype", "float32", "--enforce-eager"),
            *("--host", "127.0.0.1", "--port", str(self.port), "--max-num-seqs", "32"),
            *("--max-model-len", str(self._max_tokens), "--served-model-name", "rm"),
        )
        self._process = subprocess.Popen(
            [str(FOLDER / "bin" / "vllm"), "serve", str(self.weights), *options],
            env={**os.environ, **variables},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def wait(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            assert self._process is not None
            assert self._process.poll() is None, "vLLM ended while it started"
            try:
                if httpx2.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx2.HTTPError:
                pass
            time.sleep(0.5)
        raise AssertionError("vLLM did not start in time")

    def kill(self) -> None:
        """Kill the process and its children."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


@contextmanager
def vllm_serving(weights: Path, port: int, *, max_tokens: int = 512) -> Iterator[VllmServer]:
    """Run vLLM until the end of the block."""
    server = VllmServer(weights, port, max_tokens=max_tokens)
    try:
        server.start()
        server.wait()
        yield server
    finally:
        server.kill()
