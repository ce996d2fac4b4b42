"""Fixtures of the chaos tests: a scripted device, and a higher limit of open files."""

import resource
from collections.abc import Iterator

import pytest

from .devices import ScriptedDevice, install_device
from .servers import MANY


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedDevice]:
    """The device of the scripted model; forward passes that it holds are released at the end."""
    device = install_device(monkeypatch, ScriptedDevice())
    yield device
    device.release()


@pytest.fixture
def many_files() -> Iterator[None]:
    """A limit of open files that is high enough for both ends of `MANY` connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * MANY + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"needs {needed} open files, this machine allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
