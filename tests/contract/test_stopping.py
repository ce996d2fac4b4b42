"""Repeated shutdown of a server that runs programs leaves no processes behind."""

import asyncio

import httpx2
import pytest
from support.sandboxes import is_alive, sandbox_processes, skip_without_isolation, wait_until
from support.servers import listening
from support.tiers import NIGHTLY

from assay.settings import Settings

STOPS = 20 if NIGHTLY else 5
PASSING = "```python\ndef f():\n    return 1\n```"
WAITING = "```python\nimport time\ntime.sleep(999)\n```"
pytestmark = pytest.mark.slow


def body(response: str) -> dict[str, object]:
    return {"model": "code-exec", "items": [{"response": response, "tests": ["assert f() == 1"]}]}


async def score_and_disconnect(address: str) -> None:
    """Score one program, then disconnect while another one runs."""
    async with httpx2.AsyncClient(base_url=address, timeout=60) as client:
        reply = (await client.post("/v1/score", json=body(PASSING))).json()
        assert reply["results"][0]["score"] == 1.0
        call = asyncio.create_task(client.post("/v1/score", json=body(WAITING)))
        await wait_until(lambda: len(sandbox_processes()) >= 3 or call.done())
        assert not call.done()
        call.cancel()
        await asyncio.wait({call})


@pytest.mark.timeout(300)
def test_a_server_that_ran_programs_stops_many_times_without_leftovers() -> None:
    skip_without_isolation()
    settings = Settings(models=("code-exec",), runs="off")
    for _ in range(STOPS):
        with listening(settings) as address:
            asyncio.run(score_and_disconnect(address))
            processes = sandbox_processes()
        assert not any(map(is_alive, processes))
