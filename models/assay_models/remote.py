"""RemoteCallFailed, the error of a whole call to a server that computes a remote model's raws."""

from collections.abc import Sequence

from assay_models.base import ItemError, Raw, Raws


class RemoteCallFailed(Exception):
    """A call to another server failed as a whole; no input of it has a raw.

    Raised by a remote model's `predict`. The batch is not split and computed again: each of its
    inputs gets this code and detail. The detail quotes no text. `retry_after` is in seconds.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        retryable: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.retryable = retryable
        self.retry_after = retry_after


def require_raws(results: Raws) -> Sequence[Raw]:
    """Return raws that have no error among them.

    Raises:
        ItemError: the first error in the place of a raw.
    """
    raws = []
    for result in results:
        if isinstance(result, ItemError):
            raise result
        raws.append(result)
    return raws
