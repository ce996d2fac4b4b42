"""Servers for clients that are not ours: `assay serve` as a process, and one in a thread whose
model does what a test says.
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

SECONDS = 300


@pytest.fixture(scope="session", autouse=True)
def nothing_from_outside() -> Iterator[None]:
    """LiteLLM looks for prices on the network when it is imported; it has them in its package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        yield


@contextmanager
def process(**variables: str) -> Iterator[str]:
    """The address of `assay serve` with these variables, its models ready."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("ASSAY_")}
    running = subprocess.Popen(
        [sys.executable, "-c", "from assay.cli import app; app()", "serve", "--port", "0"],
        env={**inherited, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert running.stderr is not None
    late = threading.Timer(SECONDS, running.kill)
    late.start()
    told = list(_until_ready(running.stderr))
    late.cancel()
    drain = threading.Thread(target=running.stderr.read)
    drain.start()
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+", "".join(told))
        assert address is not None, "".join(told)
        assert "is ready" in told[-1], "".join(told)
        yield address[0]
    finally:
        running.terminate()
        running.wait(SECONDS)
        drain.join(SECONDS)
        running.stderr.close()


def _until_ready(lines: Iterable[str]) -> Iterator[str]:
    """What the server says, up to the line that its model is ready."""
    for line in lines:
        yield line
        if "is ready" in line:
            return


@pytest.fixture(scope="session")
def reference_url() -> Iterator[str]:
    """A server process of the model that needs no weights."""
    with process(ASSAY_MODELS="reference") as url:
        yield url


@pytest.fixture(scope="module")
def scripted_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of the model that counts letters, on a socket."""
    with scripted(tmp_path_factory.mktemp("scripted")) as settings, listening(settings) as url:
        yield url


@contextmanager
def scripted(folder: Path) -> Iterator[Settings]:
    """Settings that serve the scripted model."""
    family = Family("support.doubles", "ScriptedModel", TextItem, "text", {"text": "probe"})
    card = folder / "scripted" / "1" / "card.toml"
    card.parent.mkdir(parents=True)
    card.write_text(SCRIPTED_CARD)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "scripted", family)
        yield Settings(models=("scripted",), repository=(folder,))
