"""Token budget of a batch: halved when memory runs out, restored after successful full batches."""

FULL_SHARE = 0.5
"""A batch is full when it costs more than this share of the budget."""
FULL_BATCHES_TO_GROW = 16
MAX_BATCHES_TO_GROW = 1024


class Budget:
    """Tokens that one batch may cost.

    Running out of memory halves the budget. It doubles again, up to `maximum`, after
    `FULL_BATCHES_TO_GROW` full batches without a failure; each time that growth fails, twice as
    many full batches are needed before the next attempt.

    Args:
        maximum: the initial budget in tokens, which is never exceeded.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = self.tokens = maximum
        self._needed = FULL_BATCHES_TO_GROW
        self._succeeded = 0

    def is_full(self, cost: int) -> bool:
        """Return whether a batch of this cost used most of the budget."""
        return cost > FULL_SHARE * self.tokens

    def record_out_of_memory(self, cost: int) -> None:
        """Halve the budget, unless the batch was formed under a higher one."""
        self._succeeded = 0
        if cost <= self.tokens and self.tokens > 1:
            if self.tokens < self.maximum:
                self._needed = min(2 * self._needed, MAX_BATCHES_TO_GROW)
            self.tokens //= 2

    def record_success(self, cost: int) -> None:
        """Count a batch that fitted in memory, and double the budget once enough have."""
        if self.tokens == self.maximum or not self.is_full(cost):
            return
        self._succeeded += 1
        if self._succeeded >= self._needed:
            self._succeeded = 0
            self.tokens = min(2 * self.tokens, self.maximum)
