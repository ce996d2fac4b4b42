"""Models change under a steady load of real clients: no request fails, none sees half a change."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import build_checkpoint

from assay.settings import Settings

from .devices import wait_until
from .servers import Connection, Reply, Server

CARD = 'name = "{name}"\nversion = {version}\nfamily = "{family}"\n'
CLIENTS = 8


@dataclass
class Load:
    """Clients that score over connections of their own until they are stopped.

    `replies` are the model and the status of each reply, in the order in which they came.
    `changes` counts the changes that began and those that ended; `settled` are the models of the
    requests during which none did either, each with that number.
    """

    server: Server
    body: dict[str, Any]
    replies: list[tuple[str | None, int]] = field(default_factory=list)
    settled: list[tuple[int, str | None]] = field(default_factory=list)
    changes: int = 0
    is_over: bool = False

    async def run(self) -> None:
        async with await self.server.connect() as connection:
            while not self.is_over:
                changes = self.changes
                reply = await request(connection, "POST", "/v1/score", self.body)
                if changes == self.changes:
                    self.settled.append((changes, reply.json.get("model")))
                self.replies.append((reply.json.get("model"), reply.status))

    async def more(self, count: int = 3 * CLIENTS) -> None:
        """Wait for so many more replies."""
        wanted = len(self.replies) + count
        await wait_until(lambda: len(self.replies) >= wanted)


async def request(
    connection: Connection, method: str, path: str, body: dict[str, Any] | None = None
) -> Reply:
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: assay", f"Content-Length: {len(content)}"]
    lines += ["Content-Type: application/json"] if content else []
    await connection.send("\r\n".join([*lines, "", ""]).encode() + content)
    return await connection.read_reply()


@asynccontextmanager
async def under_load(server: Server, *bodies: dict[str, Any]) -> AsyncIterator[list[Load]]:
    loads = [Load(server, body) for body in bodies]
    async with asyncio.TaskGroup() as group:
        for load in loads:
            for _ in range(CLIENTS):
                group.create_task(load.run())
        try:
            yield loads
        finally:
            for load in loads:
                load.is_over = True


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings that serve `words@1`, beside `words@2` and `tiny@1`, a classifier for torch."""
    for version in (1, 2):
        folder = tmp_path / "words" / str(version)
        folder.mkdir(parents=True)
        text = CARD.format(name="words", version=version, family="reference")
        (folder / "card.toml").write_text(text)
    build_checkpoint("bert", tmp_path / "tiny" / "1")
    return Settings(models=("words@1",), repository=(tmp_path,), runs="off", cache_bytes=0)


def has_shadowed(server: Server, model: str) -> bool:
    return server.metric("assay_shadow_items_total", model=model, scored_by="both") > 0


def words(*items: str) -> list[dict[str, str]]:
    return [{"prompt": "one two three", "response": item, "group": "g"} for item in items]


@pytest.mark.slow
async def test_changes_under_load_fail_no_request(settings: Settings) -> None:
    body = {"model": "words", "items": words("one", "two three")}
    async with Server(settings) as server, await server.connect() as operator:

        async def change(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
            reply = await request(operator, method, path, body)
            assert reply.status in (200, 202), reply.json
            return reply.json

        async with under_load(server, body) as (load,):
            for old, new in (("words@1", "words@2"), ("words@2", "words@1")):
                shadow = {"model": new, "shadow_of": old}
                assert (await change("POST", "/v1/models?wait=60", shadow))["state"] == "ready"
                await load.more()
                await wait_until(partial(has_shadowed, server, new))
                await change("POST", f"/v1/models/{new}/promote")
                await load.more()
                assert (await change("DELETE", f"/v1/models/{old}?wait=60"))["state"] == "unloaded"
                await load.more()
            tiny = {"model": "tiny@1", "shadow_of": "words"}
            assert (await change("POST", "/v1/models?wait=100", tiny))["state"] == "ready"
            await load.more()
            await change("POST", "/v1/models/tiny@1/promote")
            direct = {"model": "tiny", "items": words("one")}
            scored = await change("POST", "/v1/score", direct)
            assert scored["results"][0]["status"] == "ok"
            assert (await change("DELETE", "/v1/models/tiny@1?wait=60"))["state"] == "unloaded"
            await load.more()
        assert {status for _, status in load.replies} == {200}
        assert {model for model, _ in load.replies} == {"words@1", "words@2"}


async def test_promotions_under_load_are_atomic(settings: Settings) -> None:
    named = [{"model": name, "items": words("one")} for name in ("words", "words@1", "words@2")]
    start = settings.model_copy(update={"models": ("words@1", "words@2")})
    async with Server(start) as server, await server.connect() as operator:
        async with under_load(server, *named) as loads:
            for version in (1, 2, 1, 2):
                path = f"/v1/models/words@{version}/promote"
                loads[0].changes += 1
                assert (await request(operator, "POST", path)).json["default"]
                loads[0].changes += 1
                await loads[0].more()
        default, first, second = ([*load.replies] for load in loads)
        assert set(first) == {("words@1", 200)}
        assert set(second) == {("words@2", 200)}
        assert set(default) == {("words@1", 200), ("words@2", 200)}
        defaults = {0: "words@2", 2: "words@1", 4: "words@2", 6: "words@1", 8: "words@2"}
        between = {(number, model) for number, model in loads[0].settled if number % 2 == 0}
        assert between <= set(defaults.items())
        assert len(between) > 1
