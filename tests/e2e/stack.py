"""A Compose project: the services of compose.yaml, and requests to them."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx2
from support.paths import ROOT

from assay_models.card import ModelCard
from assay_models.repository import ModelRepository

COMMAND_SECONDS = 300


def run(
    *command: str, environment: Mapping[str, str] | None = None, timeout: int = COMMAND_SECONDS
) -> str:
    """Run a command and return its output; a failure shows both of its streams."""
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@dataclass(frozen=True)
class Stack:
    """A Compose project and requests to it."""

    project: str
    port: int
    environment: Mapping[str, str]
    cards: tuple[ModelCard, ...]

    def compose(self, *arguments: str, timeout: int = COMMAND_SECONDS) -> str:
        command = ("docker", "compose", "-p", self.project, "-f", "compose.yaml", *arguments)
        return run(*command, environment=self.environment, timeout=timeout)

    def up(self, build: str = "--no-build", timeout: int = COMMAND_SECONDS) -> None:
        """Start stopped services and wait until all are healthy; a failure shows the logs."""
        try:
            self.compose("up", "-d", build, "--wait", timeout=timeout)
        except AssertionError as error:
            logs = self.compose("logs", "--no-color", "--tail", "100")
            raise AssertionError(f"{error}\n{logs}") from None

    def restart(self, *services: str) -> None:
        self.compose("restart", *services)
        self.up()

    def inside(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "exec", self.container(service), *command],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
        )

    def container(self, service: str) -> str:
        return self.compose("ps", "--all", "--quiet", service).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        containers = json.loads(run("docker", "inspect", self.container(service)))
        assert isinstance(containers[0], dict)
        return containers[0]

    def client(self, timeout: float = 120.0) -> httpx2.Client:
        return httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=timeout)

    def score(self, model: str, items: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        with self.client() as client:
            reply = client.post("/v1/score", json={"model": model, "items": items})
        assert reply.status_code == 200, reply.text
        results = reply.json()["results"]
        assert isinstance(results, list)
        return results

    def examples(self) -> dict[str, dict[str, Any]]:
        """Score each card's example."""
        return {card.id: self.score(card.id, [example_of(card)])[0] for card in self.cards}


def example_of(card: ModelCard) -> dict[str, Any]:
    assert card.example is not None, f"{card.id} has no example"
    return card.example.item


def served_cards() -> tuple[ModelCard, ...]:
    """Return the cards of the embedded models and of the reference model."""
    cards = ModelRepository([ROOT / "models" / "repository"]).cards()
    return tuple(card for card in cards if card.embedded or card.name == "reference")
