"""The one tree of errors. Each becomes a problem detail (RFC 9457) with the status of its class.

    AssayError
    ├── InvalidRequest        422      ├── ModelNotReady     503
    ├── Unauthorized          401      │   └── ModelFailed   503
    ├── Forbidden             403      ├── Overloaded        429
    ├── ModelNotFound         404      ├── ShuttingDown      503
    ├── RequestTooLarge       413      ├── DeadlineExceeded  504
    ├── ItemsFailed           422      │   └── OutOfTime     503
    ├── JobNotFound           404      ├── InferenceFailed   500
    ├── RunNotFound           404      ├── NonFiniteScore    500
    └── RunsOff               404      └── SettingsError

`InferenceFailed`, `NonFiniteScore` and `DeadlineExceeded` may concern a single item; then they
travel inside a 200 reply as that item's `error`, and its neighbours keep their scores.
"""


class AssayError(Exception):
    """The base: what a caller needs to know, and nothing of the text it sent.

    `code`, `status`, `title` and `retryable` are those of the class unless they are given.
    """

    code: str = "internal_error"
    status: int = 500
    title: str = "Internal error"
    retryable: bool = False

    def __init__(
        self,
        detail: str,
        *,
        hint: str | None = None,
        retry_after: float | None = None,
        problems: list[dict[str, str]] | None = None,
        code: str | None = None,
        status: int | None = None,
        title: str | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = self.code if code is None else code
        self.status = self.status if status is None else status
        self.title = self.title if title is None else title
        self.retryable = self.retryable if retryable is None else retryable
        self.detail = detail
        self.hint = hint
        self.retry_after = retry_after
        self.problems = problems


class SettingsError(AssayError):
    """An `ASSAY_*` variable is unknown or unparsable. Raised at start: the process exits."""

    code = "invalid_settings"
    title = "Invalid settings"


class InvalidRequest(AssayError):
    """The body is malformed, or an item has a field that the model's family does not know.

    The caller sees 422; `errors` names each field and what is wrong with it.
    """

    code = "invalid_request"
    status = 422
    title = "Invalid request"


class Unauthorized(AssayError):
    """Keys are set and the request carries none. The caller sees 401."""

    code = "unauthorized"
    status = 401
    title = "API key required"


class Forbidden(AssayError):
    """The request carries a key that is not one of the keys set. The caller sees 403."""

    code = "forbidden"
    status = 403
    title = "API key not accepted"


class ModelNotFound(AssayError):
    """No served model has that name or version. The caller sees 404 and what is served."""

    code = "model_not_found"
    status = 404
    title = "Model not found"


class JobNotFound(AssayError):
    """A result is asked for that this process never promised, or has kept long enough. The caller
    sees 404.
    """

    code = "job_not_found"
    status = 404
    title = "Job not found"


class RunNotFound(AssayError):
    """No run of that name is kept: nothing was scored for it or told of it, or it was seen too long
    ago. A new run is kept within a second of its first request. The caller sees 404.
    """

    code = "run_not_found"
    status = 404
    title = "Run not found"


class RunsOff(AssayError):
    """Runs are asked for, and this server was told to keep none (`ASSAY_RUNS=off`), or found no
    place for them. The caller sees 404.
    """

    code = "runs_off"
    status = 404
    title = "Runs are not kept"


class RequestTooLarge(AssayError):
    """The body has too many bytes, or the request too many items or tokens. The caller sees 413
    and the limit; sending it again unchanged cannot help.
    """

    code = "request_too_large"
    status = 413
    title = "Request too large"


class ModelNotReady(AssayError):
    """The model is still loading, or failed to load. The caller sees 503, with `Retry-After` while
    it is loading.
    """

    code = "model_not_ready"
    status = 503
    title = "Model not ready"
    retryable = True


class ModelFailed(ModelNotReady):
    """The model could not be loaded, or failed its self-test; trying again cannot help. The caller
    sees 503, and `/readyz` and `GET /v1/models` say why.
    """

    code = "model_failed"
    title = "Model failed to load"
    retryable = False


class Overloaded(AssayError):
    """The queue has no room for the whole request; none of it was admitted. The caller sees 429
    and in `Retry-After` when the queue will have drained enough, by its measured rate. So does who
    asks for runs, or tells of one, while their file or its writer is busy.
    """

    code = "overloaded"
    status = 429
    title = "Overloaded"
    retryable = True


class ShuttingDown(AssayError):
    """The server is stopping and admits nothing more; what it had admitted it finishes. The caller
    sees 503 and may go to another replica at once.
    """

    code = "shutting_down"
    status = 503
    title = "Shutting down"
    retryable = True


class DeadlineExceeded(AssayError):
    """The caller's deadline passed before the scores were there; what was queued is dropped before
    it costs compute. The caller sees 504.
    """

    code = "deadline_exceeded"
    status = 504
    title = "Deadline exceeded"
    retryable = True


class InferenceFailed(AssayError):
    """The model failed on this input even when it was tried alone. The item carries this error; a
    request whose every item failed so is still answered item by item.
    """

    code = "inference_failed"
    status = 500
    title = "Inference failed"


class NonFiniteScore(AssayError):
    """The model gave NaN or infinity. No number is served and nothing is cached."""

    code = "non_finite_score"
    status = 500
    title = "Score is not finite"


class OutOfTime(DeadlineExceeded):
    """A trainer's own patience is about to end and its scores are not there. The caller sees 503
    and `Retry-After` while it still listens; what was queued is dropped.
    """

    code = "out_of_time"
    status = 503
    title = "Out of time"


class ItemsFailed(AssayError):
    """An item has no score, and the reply that this client reads has no place to say so. The whole
    request fails, and `errors` names each item with its own code. The caller sees 422 where the
    items are at fault, 500 where the model or the server is, and 503 where trying again helps.
    """

    code = "items_failed"
    status = 422
    title = "Items without a score"
