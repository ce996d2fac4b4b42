"""Servers for clients of other projects: `assay serve` as a process, and a server in a thread with
a scripted model.
"""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.doubles import SCRIPTED_CARD
from support.servers import listening

from assay.settings import Settings
from assay_models.items import TextItem
from assay_models.registry import FAMILIES, Family

TIMEOUT_SECONDS = 300


@pytest.fixture(scope="session", autouse=True)
def local_prices() -> Iterator[None]:
    """Makes LiteLLM read prices from its package; it would fetch them when it is imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        yield


@contextmanager
def process(**variables: str) -> Iterator[str]:
    """Run `assay serve` with these variables; yield its address when its models are ready."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("ASSAY_")}
    running = subprocess.Popen(
        [sys.executable, "-c", "from assay.cli import app; app()", "serve", "--port", "0"],
        env={**inherited, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    timer = threading.Timer(TIMEOUT_SECONDS, running.kill)
    timer.start()
    lines = list(_lines_until_ready(running.stderr))
    timer.cancel()
    reader = threading.Thread(target=running.stderr.read)
    reader.start()
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", "".join(lines))
        assert address is not None, "".join(lines)
        assert "is ready" in lines[-1], "".join(lines)
        yield address[0]
    finally:
        running.terminate()
        running.wait(TIMEOUT_SECONDS)
        reader.join(TIMEOUT_SECONDS)
        running.stderr.close()


def _lines_until_ready(lines: Iterable[str]) -> Iterator[str]:
    """Yield the server's lines, up to the one that its model is ready."""
    for line in lines:
        yield line
        if "is ready" in line:
            return


@pytest.fixture(scope="session")
def reference_url() -> Iterator[str]:
    """The address of a server process with the model that needs no weights."""
    with process(ASSAY_MODELS="reference") as url:
        yield url


@pytest.fixture(scope="module")
def scripted_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server in a thread with the model that counts letters."""
    with scripted(tmp_path_factory.mktemp("scripted")) as settings, listening(settings) as url:
        yield url


@contextmanager
def scripted(folder: Path) -> Iterator[Settings]:
    """Yield settings that serve the scripted model."""
    family = Family(
        "support.doubles", "ScriptedModel", item=TextItem, candidate="text", probe={"text": "probe"}
    )
    card = folder / "scripted" / "1" / "card.toml"
    card.parent.mkdir(parents=True)
    card.write_text(SCRIPTED_CARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "scripted", family)
        yield Settings(models=("scripted",), repository=(folder,))
