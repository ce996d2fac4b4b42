"""A crowd of callers of each dialect at once, one item and one new connection each: nobody is lost,
and nobody gets a number that is not his own item's.
"""

import asyncio
import json
import zlib
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from support.dialect_clients import SPEAKERS, Speaker, at_once
from support.doubles import ScriptedModel
from support.tiers import NIGHTLY

from assay.settings import Settings
from assay_models.base import Input, Raw

from .devices import Script, until
from .servers import CROWD, Answer, Server, standing

CALLERS = CROWD if NIGHTLY else CROWD // 5
FAILING = 100  # one in so many cannot be scored


def raw_of(text: str) -> float:
    """A number of this text alone, small enough that its logistic tells it from the others."""
    return zlib.crc32(text.encode()) / 2**30 - 2


class Crowd(Script):
    """A device whose numbers keep their digits in a logistic."""

    def __call__(self, inputs: Sequence[Input]) -> list[Raw]:
        raws = super().__call__(inputs)
        texts = [one.payload for one in inputs]
        return [
            (raw_of(text),) if text.startswith("caller") else raw
            for text, raw in zip(texts, raws, strict=True)
        ]


@pytest.fixture
def crowd(monkeypatch: pytest.MonkeyPatch) -> Crowd:
    device = Crowd()
    monkeypatch.setattr(ScriptedModel, "predict", lambda _, inputs: device(inputs))
    return device


class Asker:
    """What a dialect's `fetch` asks of a client, over a new connection each time."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def request(self, method: str, url: str, json: object) -> httpx2.Response:
        async with await self._server.connect() as connection:
            await connection.send(request_of(method, url, json))
            return reply_of(url, await connection.answer())


def request_of(method: str, target: str, body: object) -> bytes:
    content = json.dumps(body).encode().replace(b"{model}", b"scripted")
    lines = [f"{method} {target} HTTP/1.1", "Host: assay", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(content)}", "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode() + content


def reply_of(url: str, answer: Answer) -> httpx2.Response:
    request = httpx2.Request("POST", f"http://assay{url}")
    return httpx2.Response(answer.status, content=answer.body, request=request)


def text_of(number: int) -> str:
    """What caller `number` has to score: one in `FAILING` gets NaN, one a pass that raises."""
    fault = {0: "nan ", 1: "poison "}.get(number % FAILING, "")
    return f"{fault}caller {number}"


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("speaker", SPEAKERS, ids=lambda speaker: speaker.name)
async def test_all_at_once_each_get_their_own_or_an_honest_error(
    scripted_settings: Settings, crowd: Crowd, speaker: Speaker
) -> None:
    url = speaker.route.format(model="scripted")
    async with standing(scripted_settings) as server:
        callers = await asyncio.gather(*(server.connect() for _ in range(CALLERS)))
        crowd.hold()
        for number, caller in enumerate(callers):
            body = speaker.body([("Say it.", text_of(number))])
            await caller.send(request_of("POST", url, body))
        if speaker.fetch is at_once:
            await until(lambda: server.requests() == CALLERS)
        crowd.release()
        answers = await asyncio.gather(*(caller.answer() for caller in callers))
        client: Any = Asker(server)
        told = [speaker.fetch(client, reply_of(url, answer)) for answer in answers]
        for text, reply in zip(
            map(text_of, range(CALLERS)), await asyncio.gather(*told), strict=True
        ):
            if text.startswith("caller"):
                expected = speaker.number(raw_of(text))
                assert speaker.scores(reply.json()) == pytest.approx([expected], abs=1e-12)
                assert crowd.rows[text] == 1
            else:
                assert speaker.failed(reply).startswith(("non_finite", "inference_failed"))
