"""A copy of the reward server of trainers: the model runs inside the event loop.

It serves one request at a time, and pads a request's texts to its longest. OpenRLHF's `serve_rm`
behaves the same: an asynchronous route calls the model directly, and the batch size is the number
of queries in the request.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from benchmarks.peers.scoring import Scorer


class RewardModelProxy:
    """The model behind the route."""

    def __init__(self, folder: str, batch_size: int | None) -> None:
        self.scorer = Scorer(folder)
        self.batch_size = batch_size

    def get_reward(self, queries: Sequence[str], prompts: Sequence[str]) -> list[float]:
        """Return the rewards of the queries, a batch at a time in the order given."""
        size = self.batch_size or len(queries)
        rewards: list[float] = []
        for start in range(0, len(queries), size):
            batch = slice(start, start + size)
            rewards += self.scorer.forward(prompts[batch], queries[batch])
        return rewards


def create_app(proxy: RewardModelProxy) -> FastAPI:
    """Create the only route."""
    app = FastAPI()

    @app.post("/get_reward")
    async def get_reward(request: Request) -> JSONResponse:
        data: Any = await request.json()
        rewards = proxy.get_reward(data["query"], data["prompts"])
        return JSONResponse({"rewards": rewards, "scores": rewards, "extra_logs": {}})

    return app


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--batch-size", type=int, default=None)
    given = parser.parse_args()
    app = create_app(RewardModelProxy(given.model, given.batch_size))
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
