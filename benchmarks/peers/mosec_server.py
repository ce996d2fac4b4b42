"""mosec with its dynamic batching switched on. Its flags are mosec's own, the model's folder comes
by the environment variable `BENCH_MODEL`.
"""

import os
from collections.abc import Sequence
from typing import Any

import mosec

from benchmarks.peers.scoring import BATCH_SIZE, Scorer

BATCH_WAIT_MS = 10


class RewardWorker(mosec.Worker):
    """Scores the pairs of all requests of a batch together."""

    def __init__(self) -> None:
        self.scorer = Scorer(os.environ["BENCH_MODEL"])

    def forward(self, data: Sequence[Any]) -> list[dict[str, list[float]]]:
        """The reply to each request of a batch."""
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
