"""Fixtures of the chaos tests: a device that follows a script."""

from collections.abc import Iterator

import pytest

from .devices import Script, scripted


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    """What the scripted model's device does; whatever it holds is released in the end."""
    script = scripted(monkeypatch, Script())
    yield script
    script.release()
