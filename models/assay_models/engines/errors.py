"""EngineError, the error of a whole call to an engine."""

from typing import Literal

from assay_models.remote import RemoteCallFailed

EngineCode = Literal["engine_unavailable", "engine_timeout", "engine_refused", "engine_bad_reply"]


class EngineError(RemoteCallFailed):
    """A call to an engine that gave no numbers.

    `engine_unavailable`: no connection, an overloaded or failing engine, or every URL is out of
    use; `engine_timeout`: no reply in time; `engine_refused`: a 4xx, which is never sent again;
    `engine_bad_reply`: a reply that cannot be trusted. No text of the engine is quoted.

    `may_be_one_row`: the cause may be a single row, and the others alone may succeed.
    """

    code: EngineCode

    def __init__(
        self,
        code: EngineCode,
        detail: str,
        *,
        retryable: bool = True,
        retry_after: float | None = None,
        may_be_one_row: bool = False,
    ) -> None:
        super().__init__(code, detail, retryable=retryable, retry_after=retry_after)
        self.may_be_one_row = may_be_one_row


def bad_reply(detail: str) -> EngineError:
    """Return the error of a reply that cannot be trusted."""
    text = f"the engine's reply cannot be used: {detail}"
    return EngineError("engine_bad_reply", text, may_be_one_row=True)
