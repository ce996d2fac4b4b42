"""A served checkpoint whose files change on disk: the same scores, not ready, with a reason."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from support.checkpoints import build_checkpoint

SECONDS = 90.0
KEY = "a-key-of-this-test-that-is-long-enough"
ITEM = {"model": "tiny", "items": [{"text": "a short one"}]}


class Server:
    """A running `assay serve`, and the lines that it has logged."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self._is_ready = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if "is ready" in line:
                self._is_ready.set()
        self._is_ready.set()

    def url(self) -> str:
        """Return the address, once the model is ready."""
        assert self._is_ready.wait(SECONDS)
        address = re.search(r"http://127\.0\.0\.1:\d+", "".join(self.lines))
        assert address is not None, "".join(self.lines)
        return address[0]

    def stop(self) -> None:
        """End the process, and read its log to the end."""
        self.process.terminate()
        self.process.wait(SECONDS)
        self._reader.join(SECONDS)


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("ASSAY_")}
    own = {
        "ASSAY_REPOSITORY": str(folder),
        "ASSAY_MODELS": "tiny",
        "ASSAY_API_KEYS": KEY,
        "ASSAY_CACHE_BYTES": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-c", "from assay.cli import app; app()", "serve", "--port", "0"]
    environment = {**inherited, "PYTHONPATH": os.pathsep.join(sys.path), **own}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        server = Server(process)
        try:
            yield server
        finally:
            server.stop()


@pytest.mark.slow
def test_weights_overwritten_and_cut_under_a_server_change_no_score(tmp_path: Path) -> None:
    build_checkpoint("bert", tmp_path)
    weights = tmp_path / "weights" / "model.safetensors"
    with serving(tmp_path) as server, httpx2.Client(base_url=server.url(), timeout=60) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        first = client.post("/v1/score", json=ITEM).json()
        assert client.get("/readyz").status_code == 200
        weights.write_bytes(bytes(weights.stat().st_size))
        overwritten = client.post("/v1/score", json=ITEM).json()
        weights.write_bytes(b"")
        cut = client.post("/v1/score", json=ITEM).json()
        scores = [reply["results"][0]["score"] for reply in (first, overwritten, cut)]
        assert len(set(scores)) == 1
        assert {first["fingerprint"]} == {overwritten["fingerprint"], cut["fingerprint"]}
        for _ in range(3):
            readiness = client.get("/readyz")
            assert readiness.status_code == 503
            reason = f"changed on disk: {weights} is not the file that was loaded"
            assert readiness.json()["models"] == {"tiny@1": reason}
        assert httpx2.get(f"{server.url()}/readyz").json()["models"] == {}, "names are for keys"
        assert server.process.poll() is None
    assert "".join(server.lines).count("is changed on disk") == 1
