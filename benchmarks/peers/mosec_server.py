"""mosec with dynamic batching.

The flags are mosec's own; the environment variable `BENCH_MODEL` is the model's folder.
"""

import os
from collections.abc import Sequence
from typing import Any

import mosec

from benchmarks.peers.scoring import BATCH_SIZE, Scorer

BATCH_WAIT_MS = 10


class RewardWorker(mosec.Worker):
    """The worker that scores the pairs of all requests of a batch together."""

    def __init__(self) -> None:
        self.scorer = Scorer(os.environ["BENCH_MODEL"])

    def forward(self, data: Sequence[Any]) -> list[dict[str, list[float]]]:
        """Return the reply to each request of a batch."""
        return [{"scores": scores} for scores in self.scorer.score_requests(data)]


def main() -> None:
    """Serve."""
    server = mosec.Server()
    server.append_worker(
        RewardWorker, num=1, max_batch_size=BATCH_SIZE, max_wait_time=BATCH_WAIT_MS
    )
    server.run()


if __name__ == "__main__":
    main()
