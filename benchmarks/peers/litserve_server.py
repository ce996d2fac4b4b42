"""LitServe with dynamic batching."""

import argparse
from collections.abc import Sequence
from typing import Any

import litserve
from fastapi import Request

from benchmarks.peers.scoring import BATCH_SIZE, Scorer

BATCH_WAIT_SECONDS = 0.01


class RewardApi(litserve.LitAPI):
    """The API that scores the pairs of all requests of a batch together."""

    def __init__(self, folder: str) -> None:
        super().__init__(max_batch_size=BATCH_SIZE, batch_timeout=BATCH_WAIT_SECONDS)
        self.folder = folder

    def setup(self, device: str) -> None:
        """Load the model, in the worker."""
        self.scorer = Scorer(self.folder)

    def decode_request(self, request: Request, **_: Any) -> Any:
        """Return the JSON of one request; the annotation makes LitServe parse it."""
        return request

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Return the requests unchanged; their pairs are joined for scoring."""
        return inputs

    def predict(self, requests: Sequence[Any], **_: Any) -> list[list[float]]:
        """Return the scores of each request."""
        return self.scorer.score_requests(requests)

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        """Return one output for each request."""
        return output

    def encode_response(self, output: list[float], **_: Any) -> dict[str, list[float]]:
        """Return the reply."""
        return {"scores": output}


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    server = litserve.LitServer(
        RewardApi(given.model), accelerator="cpu", workers_per_device=1, timeout=300
    )
    server.run(
        host="127.0.0.1",
        port=given.port,
        log_level="warning",
        generate_client_file=False,
        access_log=False,
    )


if __name__ == "__main__":
    main()
