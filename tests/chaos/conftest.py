"""Fixtures of the chaos tests: a device that follows a script, and room for a crowd's files."""

import resource
from collections.abc import Iterator

import pytest

from .devices import Script, scripted
from .servers import CROWD


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """What the scripted model's device does; whatever it holds is released in the end."""
    script = scripted(monkeypatch, Script())
    yield script
    script.release()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Room for both ends of every connection of a crowd."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * CROWD + 500
    if hard != resource.RLIM_INFINITY and hard < needed:
        pytest.skip(f"needs {needed} open files, this machine allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
