"""Calls as generators that both clients drive.

A generator chooses the next request, its server, the wait before it, and when to stop retrying. It
yields the next step (`Send` or `Wait`) and is sent the response.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from assay_client._transport import retries
from assay_client._transport.arguments import (
    JsonObject,
    Run,
    ScoreArguments,
    check_model,
    check_options,
    check_priority,
    check_values,
    run_name,
    to_candidates,
)
from assay_client._transport.clock import Clock
from assay_client._transport.config import Config, check_timeout
from assay_client._transport.endpoints import Endpoint, Endpoints
from assay_client._transport.fields import read_json
from assay_client._transport.health import read_health
from assay_client._transport.readiness import is_final, unready_error
from assay_client._transport.replies import (
    read_best_of_n,
    read_model,
    read_models,
    read_problem,
    read_score,
)
from assay_client._transport.requests import (
    BatchKey,
    Request,
    batch_request,
    best_of_n_request,
    check_request,
    join,
    model_request,
    models_request,
    run_health_request,
    score_request,
    split,
    telemetry_request,
)
from assay_client._transport.sessions import Sessions
from assay_client._transport.steps import Send, Steps, Wait
from assay_client._transport.trace import trace_headers
from assay_client._transport.zip import zip_strict
from assay_client._version import __version__
from assay_client.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AssayError,
    ItemFailedError,
    ProtocolError,
    copy_error,
    make_status_error,
)
from assay_client.types import BestOfN, Model, OnError, Priority, Response, RunHealth, ScoreReply

_LOG = logging.getLogger("assay_client")
_MAX_TIMEOUT_MS = 3_600_000  # the server's limit
_PROBE_SECONDS = 10.0
_POLL_SECONDS = 1.0
_UNAVAILABLE_STATUS_CODES = frozenset({429, 502, 503})


@dataclass(frozen=True)
class Call:
    """A call of the caller: its id and priority, which all its requests carry, and its deadline."""

    request_id: str
    timeout: float
    deadline: float
    priority: Priority | None


@dataclass(frozen=True)
class EncodedBatch:
    """The items of many callers, each also as JSON, and the latest of their deadlines."""

    key: BatchKey
    items: Sequence[JsonObject] = field(repr=False)
    encoded: Sequence[bytes] = field(repr=False)
    deadline: float


class Calls:
    """Factory of the calls of one client. Threads may share it."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._endpoints = Endpoints(config.base_urls, clock)
        self._budget = retries.RetryBudget()
        self._sessions = Sessions(config.api_key) if config.session_ids else None

    def score(self, arguments: ScoreArguments, timeout: float | None) -> Steps[ScoreReply]:
        """Run POST /v1/score, in as many requests as the limit on their size requires."""
        call = self._begin(timeout, arguments.priority)
        parts = split(arguments.items, self._config.max_items_per_request)
        part_items = [[arguments.items[index] for index in part] for part in parts]
        requests = [self._with_session(score_request(arguments, part), part) for part in part_items]
        replies: list[ScoreReply] = []
        with _naming_errors(call):
            for request, part in zip_strict(requests, part_items):
                response = yield from self._exchange(call, request)
                replies.append(read_score(response.content, arguments.model, part))
            reply = join(parts, replies)
        return raise_if_failed(reply, arguments.on_error, call.request_id)

    def score_batch(self, batch: EncodedBatch) -> Steps[tuple[ScoreReply, str]]:
        """Run POST /v1/score with a batch; return the reply, and the id of the request."""
        seconds = max(0.0, batch.deadline - self._clock.monotonic())
        call = Call(uuid.uuid4().hex, seconds, batch.deadline, batch.key.priority)
        with _naming_errors(call):
            request = self._with_session(batch_request(batch.key, batch.encoded), batch.items)
            response = yield from self._exchange(call, request)
            return read_score(response.content, batch.key.model, batch.items), call.request_id

    def request(self, request: Request) -> Steps[Response]:
        """Run any request, with the retries of all others."""
        check_request(request)
        call = self._begin(None)
        with _naming_errors(call):
            return (yield from self._exchange(call, request))

    def time_limit(self, timeout: float | None) -> tuple[float, float]:
        """Return the seconds of a call that begins now, and its deadline."""
        seconds = self._config.timeout if timeout is None else check_timeout(timeout)
        return seconds, self._clock.monotonic() + seconds

    def best_of_n(
        self,
        model: str,
        candidates: Any,
        *,
        choices: JsonObject,
        shared: JsonObject,
        timeout: float | None,
        priority: Priority | None,
    ) -> Steps[BestOfN]:
        """Run POST /v1/best-of-n."""
        check_model(model)
        check_options(choices.get("options"))
        rows = to_candidates(candidates)
        call = self._begin(timeout, priority)
        request = best_of_n_request(model, rows, shared, choices)
        request = self._with_session(request, [shared])
        with _naming_errors(call):
            response = yield from self._exchange(call, request)
            complete = choices.get("top_n") is None
            return read_best_of_n(response.content, model, rows, complete=complete)

    def models(self) -> Steps[list[Model]]:
        """Run GET /v1/models."""
        call = self._begin(None)
        with _naming_errors(call):
            response = yield from self._exchange(call, models_request())
            return read_models(response.content)

    def model(self, name: str) -> Steps[Model]:
        """Run GET /v1/models/{model}."""
        check_model(name)
        call = self._begin(None)
        with _naming_errors(call):
            response = yield from self._exchange(call, model_request(name))
            return read_model(response.content)

    def run_health(self, run: Run, timeout: float | None) -> Steps[RunHealth]:
        """Run GET /v1/runs/{run}/health."""
        request = run_health_request(run_name(run))
        call = self._begin(timeout)
        with _naming_errors(call):
            response = yield from self._exchange(call, request)
            return read_health(response.content)

    def record_telemetry(
        self, run: Run, step: int, values: Mapping[str, float], timeout: float | None
    ) -> Steps[None]:
        """Run POST /v1/runs/{run}/telemetry."""
        request = telemetry_request(run_name(run), step, check_values(values))
        call = self._begin(timeout)
        with _naming_errors(call):
            yield from self._exchange(call, request)

    def probe(self, path: str) -> Steps[bool]:
        """Return whether any server answers the path with success. Each is asked once."""
        call = self._begin(None)
        with _naming_errors(call):
            return (yield from self._probe(call, path)) is None

    def wait_until_ready(self, timeout: float) -> Steps[None]:
        """Ask the servers until one is ready, or until one says that it will not be.

        Raises:
            NotReadyError: a model failed to load, or no server is ready in time.
            APIConnectionError: no server answers in time.
            APIStatusError: a server answers neither with success nor with 503.
        """
        call = self._begin(timeout)
        with _naming_errors(call):
            while True:
                failure = yield from self._probe(call, "/readyz")
                if failure is None:
                    return
                if is_final(failure) or self._remaining(call) <= _POLL_SECONDS:
                    raise unready_error(failure, timeout)
                yield Wait(_POLL_SECONDS)

    def _probe(self, call: Call, path: str) -> Steps[retries.Failure | None]:
        """Ask each server once; return None if any answers with success, else the last failure."""
        last: retries.Failure | None = None
        for url in self._endpoints.urls:
            deadline = min(call.deadline, self._clock.monotonic() + _PROBE_SECONDS)
            probe = replace(call, deadline=deadline)
            try:
                response = _response((yield self._send(probe, Request("GET", path), url)))
            except APIConnectionError as error:
                last = last or error
                continue
            failure = self._failure(response)
            if failure is None:
                return None
            if failure.status_code != 503:
                raise failure
            last = failure
        return last

    def _with_session(self, request: Request, items: Sequence[JsonObject]) -> Request:
        if self._sessions is None:
            return request
        return replace(request, session_id=self._sessions.id_of(items))

    def _begin(self, timeout: float | None, priority: Priority | None = None) -> Call:
        check_priority(priority)
        seconds, deadline = self.time_limit(timeout)
        return Call(uuid.uuid4().hex, seconds, deadline, priority)

    def _exchange(self, call: Call, request: Request) -> Steps[Response]:
        """Send the request until it succeeds, may not be retried, or the call is over."""
        tried: set[str] = set()
        attempt = 0
        while True:
            if self._remaining(call) <= 0:
                raise APITimeoutError(f"the call was not over after {call.timeout:g} s")
            outcome = yield from self._attempt(call, request, tried)
            if isinstance(outcome, Response):
                self._budget.record_success()
                return outcome
            seconds = self._wait(call, outcome, attempt, tried)
            if seconds is None:
                raise outcome
            _LOG.info("%s; next attempt in %.2f s (request %s)", outcome, seconds, call.request_id)
            if seconds > 0:
                yield Wait(seconds)
            # A server that is starting is waited for until the call is over.
            attempt += not retries.is_starting(outcome)

    def _attempt(
        self, call: Call, request: Request, tried: set[str]
    ) -> Steps[Response | retries.Failure]:
        endpoint = self._endpoints.acquire(tried)
        tried.add(endpoint.url)
        try:
            response = _response((yield self._send(call, request, endpoint.url)))
        except APIConnectionError as failure:
            self._endpoints.failed(endpoint, None)
            return failure
        finally:
            self._endpoints.release(endpoint)
        return self._record_outcome(endpoint, response)

    def _record_outcome(self, endpoint: Endpoint, response: Response) -> Response | APIStatusError:
        failure = self._failure(response)
        if failure is not None and failure.status_code in _UNAVAILABLE_STATUS_CODES:
            self._endpoints.failed(endpoint, failure.retry_after)
        else:
            self._endpoints.succeeded(endpoint)
        return response if failure is None else failure

    def _wait(
        self, call: Call, failure: retries.Failure, attempt: int, tried: set[str]
    ) -> float | None:
        """Return the seconds until the next attempt, or None if there must be none.

        A server that was not tried yet is tried without a wait.
        """
        if not retries.may_retry(failure) or attempt >= self._config.max_retries:
            return None
        if self._endpoints.has_untried(tried):
            return 0.0
        seconds = retries.wait_seconds(failure, attempt, self._clock.random())
        if seconds >= self._remaining(call):
            return None
        is_requested = retries.retry_after(failure) is not None
        return seconds if is_requested or self._budget.take() else None

    def _remaining(self, call: Call) -> float:
        return call.deadline - self._clock.monotonic()

    def _send(self, call: Call, request: Request, url: str) -> Send:
        remaining = max(self._remaining(call), 0.001)
        headers = {
            **trace_headers(),
            "Accept": "application/json",
            "User-Agent": f"assay-client/{__version__}",
            "X-Request-ID": call.request_id,
            "X-Assay-Timeout-Ms": str(min(max(1, int(remaining * 1000)), _MAX_TIMEOUT_MS)),
        }
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        if request.session_id is not None:
            headers["X-Session-ID"] = request.session_id
        if call.priority is not None:
            headers["X-Assay-Priority"] = call.priority
        if self._config.api_key is not None:
            headers["Authorization"] = f"Bearer {self._config.api_key}"
        return Send(
            request.method,
            url + request.path,
            headers=headers,
            body=request.body,
            timeout=remaining,
            deadline=call.deadline,
            max_reply_bytes=self._config.max_reply_bytes,
        )

    def _failure(self, response: Response) -> APIStatusError | None:
        if 200 <= response.status_code < 300:
            return None
        try:
            parsed = read_json(response.content)
        except ProtocolError:
            parsed = None
        wait = retries.parse_retry_after(response.headers.get("retry-after"), self._clock.wall())
        problem, body = read_problem(parsed, wait)
        return make_status_error(problem, response, body)


@contextmanager
def _naming_errors(call: Call) -> Iterator[None]:
    """Raise each error as a copy that has the id of the call."""
    try:
        yield
    except AssayError as error:
        copy = copy_error(error, call.request_id)
        raise copy.with_traceback(error.__traceback__) from error.__cause__


def raise_if_failed(reply: ScoreReply, on_error: OnError, request_id: str) -> ScoreReply:
    """Return the reply, unless an item has no score and the call asked for an error then.

    Raises:
        ItemFailedError: `on_error` is `raise`, and an item has no score.
    """
    if on_error == "raise" and reply.failed:
        raise ItemFailedError(reply.failed, reply, request_id=request_id)
    return reply


def _response(outcome: Response | None) -> Response:
    if outcome is None:
        raise AssertionError("a request was answered with nothing")
    return outcome
