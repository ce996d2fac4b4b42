"""LitServe with its dynamic batching switched on."""

import argparse
from collections.abc import Sequence
from typing import Any

import litserve
from fastapi import Request

from benchmarks.peers.scoring import BATCH_SIZE, Scorer

BATCH_WAIT = 0.01


class RewardApi(litserve.LitAPI):
    """Scores the pairs of all requests of a batch together."""

    def __init__(self, folder: str) -> None:
        super().__init__(max_batch_size=BATCH_SIZE, batch_timeout=BATCH_WAIT)
        self.folder = folder

    def setup(self, device: str) -> None:
        """Load the model, in the worker."""
        self.scorer = Scorer(self.folder)

    def decode_request(self, request: Request, **_: Any) -> Any:
        """Prompts and responses of one request, as they came; so annotated, it is the JSON."""
        return request

    def batch(self, inputs: list[Any]) -> list[Any]:
        """Requests stay apart until their pairs are scored."""
        return inputs

    def predict(self, requests: Sequence[Any], **_: Any) -> list[list[float]]:
        """The scores of each request."""
        return self.scorer.score_requests(requests)

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        """One output for each request."""
        return output

    def encode_response(self, output: list[float], **_: Any) -> dict[str, list[float]]:
        """The reply."""
        return {"scores": output}


def main() -> None:
    """Serve."""
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
