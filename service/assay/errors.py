"""The tree of errors. Each becomes a problem detail (RFC 9457) with the status of its class.

    AssayError
    ├── InvalidRequest        422      ├── ModelNotReady     503
    ├── Unauthorized          401      │   └── ModelFailed   503
    ├── Forbidden             403      ├── Overloaded        429
    │   ├── HostNotAllowed    403      │   └── RateLimited   429
    │   └── OriginNotAllowed  403      │
    ├── ModelNotFound         404      ├── ShuttingDown      503
    ├── RequestTooLarge       413      ├── DeadlineExceeded  504
    ├── ItemsFailed           422      │   └── OutOfTime     503
    ├── JobNotFound           404      ├── InferenceFailed   500
    ├── RunNotFound           404      ├── NonFiniteScore    500
    ├── RunExists             409      ├── MalformedRequest  400
    ├── RunQuotaExceeded      409      ├── RequestTimeout    408
    ├── RunsOff               404      ├── UriTooLong        414
    ├── UnreadableBody        400      ├── HeadersTooLarge   431
    ├── UnsupportedEncoding   415      └── SettingsError
    └── EngineFailed          503

`InferenceFailed`, `NonFiniteScore` and `DeadlineExceeded` may concern a single item. A 200 reply
then carries them as that item's `error`, and the other items keep their scores.
"""

MAX_TEXT_LENGTH = 1000


def shorten(text: str) -> str:
    """Return a text for an error, which may quote a name of a request of any length."""
    return text if len(text) <= MAX_TEXT_LENGTH else f"{text[:MAX_TEXT_LENGTH]}…"


def quote(value: object) -> str:
    """Return a value for an error: a text or a number, or else its type."""
    if isinstance(value, str):
        return repr(shorten(value))
    return repr(value) if isinstance(value, float | int | None) else type(value).__name__


MAX_PROBLEMS = 20
"""Problems of a request that its error names."""


class AssayError(Exception):
    """The base class of all errors. Its texts never contain a scored text; long ones are cut.

    `code`, `status`, `title` and `retryable` default to those of the class.
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
        detail = shorten(detail)
        super().__init__(detail)
        self.code = self.code if code is None else code
        self.status = self.status if status is None else status
        self.title = self.title if title is None else title
        self.retryable = self.retryable if retryable is None else retryable
        self.detail = detail
        self.hint = hint
        self.retry_after = retry_after
        self.problems = problems and [
            {name: shorten(text) for name, text in problem.items()} for problem in problems
        ]


class SettingsError(AssayError):
    """An `ASSAY_*` variable is unknown or cannot be parsed. Raised at start: the process exits."""

    code = "invalid_settings"
    title = "Invalid settings"


class InvalidRequest(AssayError):
    """The body is malformed, or an item has a field that the model's family does not have.

    `errors` names each field and its problem.
    """

    code = "invalid_request"
    status = 422
    title = "Invalid request"


class Unauthorized(AssayError):
    """API keys are set and the request carries none."""

    code = "unauthorized"
    status = 401
    title = "API key required"


class Forbidden(AssayError):
    """The request carries a key that is not accepted, or that lacks the route's scope."""

    code = "forbidden"
    status = 403
    title = "API key not accepted"


class HostNotAllowed(Forbidden):
    """The server does not have the name in `Host`."""

    code = "host_not_allowed"
    title = "Host not allowed"


class OriginNotAllowed(Forbidden):
    """A web page of another site called a server without keys."""

    code = "origin_not_allowed"
    title = "Origin not allowed"


class ModelNotFound(AssayError):
    """No served model has that name or version. `hint` names the served models."""

    code = "model_not_found"
    status = 404
    title = "Model not found"


class JobNotFound(AssayError):
    """The id belongs to no asynchronous job of this process, or its result has expired."""

    code = "job_not_found"
    status = 404
    title = "Job not found"


class RunNotFound(AssayError):
    """No run of that name is stored: nothing was scored or recorded for it, it was deleted or
    renamed, or it has expired. The server that scored for a run knows it from then on.
    """

    code = "run_not_found"
    status = 404
    title = "Run not found"


class RunExists(AssayError):
    """A run cannot be given this name: another run has it. Delete or rename that one first."""

    code = "run_exists"
    status = 409
    title = "Run exists"


class RunQuotaExceeded(AssayError):
    """There is no place: for a new run, because as many are kept as may be and none of the caller's
    own is old enough to be forgotten; for a new gold source of a run; or for one more pinned run.
    """

    code = "run_quota_exceeded"
    status = 409
    title = "No place for it among the runs"


class RunsOff(AssayError):
    """This server records no runs (`ASSAY_RUNS=off`), or has no file to store them in."""

    code = "runs_off"
    status = 404
    title = "Runs are not kept"


class RequestTooLarge(AssayError):
    """The body has too many bytes or values, or the request too many items or tokens.

    `detail` names the limit; the same request cannot succeed later.
    """

    code = "request_too_large"
    status = 413
    title = "Request too large"


class HeadersTooLarge(AssayError):
    """The headers have too many bytes, or there are too many. `detail` names the limits."""

    code = "headers_too_large"
    status = 431
    title = "Headers too large"


class UriTooLong(AssayError):
    """The path and the query have too many bytes. `detail` names the limit."""

    code = "uri_too_long"
    status = 414
    title = "URI too long"


class MalformedRequest(AssayError):
    """The bytes are no HTTP/1.1 request. The connection is closed."""

    code = "malformed_request"
    status = 400
    title = "Malformed request"


class RequestTimeout(AssayError):
    """The headers or the body did not arrive in time. The connection is closed."""

    code = "request_timeout"
    status = 408
    title = "Request timeout"
    retryable = True


class UnreadableBody(AssayError):
    """The body is not compressed as its `Content-Encoding` says, or is cut short."""

    code = "unreadable_body"
    status = 400
    title = "Unreadable body"


class UnsupportedEncoding(AssayError):
    """`Content-Encoding` is none of gzip, deflate and zstd, or names several."""

    code = "unsupported_encoding"
    status = 415
    title = "Unsupported encoding"


class ModelNotReady(AssayError):
    """The model is still loading; `Retry-After` says when to try again.

    The `ready` routes of the v2 inference protocol use it also for a model that failed or does not
    compute.
    """

    code = "model_not_ready"
    status = 503
    title = "Model not ready"
    retryable = True


class ModelFailed(ModelNotReady):
    """The model could not be loaded, or failed its self-test; a retry cannot succeed.

    `/readyz` and `GET /v1/models` give the reason to keys with the scope `read` or `admin`.
    """

    code = "model_failed"
    title = "Model failed to load"
    retryable = False


class Overloaded(AssayError):
    """The queue has no room for the whole request, and no item was admitted.

    `Retry-After` says when the queue will have drained enough at its measured rate. Requests that
    read or record runs get the same while the runs' file or its writer is busy. With too
    many connections or bytes of bodies the status is 503.
    """

    code = "overloaded"
    status = 429
    title = "Overloaded"
    retryable = True


class RateLimited(Overloaded):
    """The key's share is used up; other keys are served. `Retry-After` says when there is room."""

    code = "rate_limited"
    title = "Rate limit reached"


class RunsUnavailable(Overloaded):
    """The database that replicas share for their runs cannot be reached or used now.

    Scores are not affected. `Retry-After` says when to try again.
    """

    code = "runs_unavailable"
    status = 503
    title = "Runs cannot be read or changed now"


class ShuttingDown(AssayError):
    """The server is stopping: it admits no more requests and finishes those admitted.

    The caller may use another replica at once.
    """

    code = "shutting_down"
    status = 503
    title = "Shutting down"
    retryable = True


class DeadlineExceeded(AssayError):
    """The request's deadline passed before all scores were computed; queued items are dropped
    before they cost compute.
    """

    code = "deadline_exceeded"
    status = 504
    title = "Deadline exceeded"
    retryable = True


class InferenceFailed(AssayError):
    """The model failed on this input even when it was computed alone. The item carries this error;
    a request in which every item fails is still answered item by item.
    """

    code = "inference_failed"
    status = 500
    title = "Inference failed"


class EngineFailed(AssayError):
    """The engine that computes the model did not answer, or not with numbers that can be used.

    No item of the request has a score. `code` says more: `engine_unavailable`, `engine_timeout`,
    `engine_bad_reply`, `engine_refused`, or `model_not_ready` once the engine is not proven.
    """

    code = "engine_unavailable"
    status = 503
    title = "Engine failed"
    retryable = True


class NonFiniteScore(AssayError):
    """The model returned NaN or infinity. No score is served and nothing is cached."""

    code = "non_finite_score"
    status = 500
    title = "Score is not finite"


class OutOfTime(DeadlineExceeded):
    """The scores were not computed within the timeout of a dialect's client.

    The reply, with `Retry-After`, comes before the client disconnects; queued items are dropped.
    """

    code = "out_of_time"
    status = 503
    title = "Out of time"


class ItemsFailed(AssayError):
    """An item has no score, and the dialect's reply has no place for an item's error. The whole
    request fails, and `errors` names each such item with its own code. The status is 422 if the
    items are at fault, 500 if the model or the server is, and 503 if a retry may succeed.
    """

    code = "items_failed"
    status = 422
    title = "Items without a score"
