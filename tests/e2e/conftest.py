"""A Compose stack that all tests here share: built, started under its own project, removed."""

import os
from collections.abc import Iterator

import pytest
from support.servers import free_port

from .stack import Stack, served_cards

BUILD_SECONDS = 3600


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """A stack built from this checkout, with the environment's BUILD_*, PIP_* and TORCH_INDEX."""
    port = free_port()
    cards = served_cards()
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("ASSAY_")}
    settings = {
        "ASSAY_MODELS": ",".join(card.id for card in cards),
        "DEPLOY_IMAGE": "assay:e2e",
        "DEPLOY_PUBLISH": f"127.0.0.1:{port}",
    }
    stack = Stack(f"assay-e2e-{port}", port, inherited | settings, cards)
    try:
        stack.up("--build", timeout=BUILD_SECONDS)
        yield stack
    finally:
        stack.compose("down", "--volumes", "--remove-orphans")
