"""The image, and a Compose stack that all tests share: built, started and removed."""

import os
from collections.abc import Iterator

import pytest
from support.servers import free_port

from .stack import Stack, run, served_cards

BUILD_SECONDS = 3600
IMAGE = "assay:e2e"


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A stack built from this checkout, with the environment's BUILD_*, PIP_* and TORCH_INDEX."""
    port = free_port()
    cards = served_cards()
    settings = {
        "ASSAY_MODELS": ",".join(card.id for card in cards),
        "DEPLOY_PUBLISH": f"127.0.0.1:{port}",
    }
    stack = Stack(f"assay-e2e-{port}", port, build_environment() | settings, cards)
    try:
        stack.up("--build", timeout=BUILD_SECONDS)
        yield stack
    finally:
        stack.compose("down", "--volumes", "--remove-orphans")


@pytest.fixture(scope="session")
def image() -> str:
    """The name of an image that is built from this checkout, as the stack's is."""
    build = ("docker", "compose", "-f", "compose.yaml", "build", "assay")
    run(*build, environment=build_environment(), timeout=BUILD_SECONDS)
    return IMAGE


def build_environment() -> dict[str, str]:
    """Return this environment without the server's settings, and the image's name."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("ASSAY_")}
    return inherited | {"DEPLOY_IMAGE": IMAGE}
