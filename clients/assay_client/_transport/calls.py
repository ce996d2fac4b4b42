"""What a call does, as generators that both clients drive: which request next, to which server,
after which wait, and when to give up. They yield what to do and are sent what came of it."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Optional, TypeVar, Union, cast, get_args

from assay_client._transport import retries as retries
from assay_client._transport.clock import Clock
from assay_client._transport.config import Config, check_timeout
from assay_client._transport.endpoints import Endpoint, Endpoints
from assay_client._transport.fields import read_json
from assay_client._transport.health import read_health
from assay_client._transport.replies import (
    read_best_of_n,
    read_model,
    read_models,
    read_problem,
    read_score,
)
from assay_client._transport.requests import (
    Item,
    Reply,
    Request,
    Terms,
    best_of_n_request,
    gathered_request,
    health_request,
    join,
    model_request,
    models_request,
    score_request,
    split,
    tell_request,
)
from assay_client._transport.zip import zipped
from assay_client._version import __version__
from assay_client.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AssayError,
    ItemFailedError,
    ProtocolError,
    status_error,
)
from assay_client.types import BestOfN, Model, OnError, Priority, RunHealth, ScoreReply

_LOG = logging.getLogger("assay_client")
_LONGEST_MS = 3_600_000  # the longest that the server takes
_UNWELL = frozenset({429, 502, 503})

T = TypeVar("T")


@dataclass(frozen=True)
class Send:
    """Send this and give the reply; it must be whole by `deadline`, on the monotonic clock."""

    method: str
    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    timeout: float
    deadline: float


@dataclass(frozen=True)
class Wait:
    """Wait for so many seconds."""

    seconds: float


Steps = Generator[Union[Send, Wait], Optional[Reply], T]


@dataclass(frozen=True)
class Call:
    """One call of the caller: its id and lane, which all its requests carry, and when it must be
    over."""

    request_id: str
    timeout: float
    deadline: float
    priority: Priority | None


@dataclass(frozen=True)
class Gathered:
    """The items of many callers, each also as JSON, and when the last of them waits no more."""

    terms: Terms
    items: Sequence[Item] = field(repr=False)
    encoded: Sequence[bytes] = field(repr=False)
    deadline: float


class Calls:
    """The calls of one client. Threads may share it."""

    def __init__(self, config: Config, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self._endpoints = Endpoints(config.base_urls, clock)
        self._budget = retries.RetryBudget()

    def score(
        self,
        model: str,
        items: Sequence[Item],
        *,
        options: Item | None,
        run: Item | None,
        timeout: float | None,
        on_error: OnError,
        priority: Priority | None,
    ) -> Steps[ScoreReply]:
        """POST /v1/score, in as many parts as the limit on a request asks for."""
        check_score(items, on_error, priority)
        call = self._begin(timeout, priority)
        parts = split(items, self._config.max_items_per_request)
        wanted = [[items[index] for index in part] for part in parts]
        requests = [score_request(model, part, options, run) for part in wanted]
        replies: list[ScoreReply] = []
        with _signed(call):
            for request, part in zipped(requests, wanted):
                reply = yield from self._exchange(call, request)
                replies.append(read_score(reply.body, part))
            return checked(join(parts, replies), on_error)

    def gathered(self, asked: Gathered) -> Steps[tuple[ScoreReply, str]]:
        """POST /v1/score with the items of many callers; the reply, and the id of the request."""
        seconds = max(0.0, asked.deadline - self._clock.monotonic())
        call = Call(uuid.uuid4().hex, seconds, asked.deadline, asked.terms.priority)
        with _signed(call):
            reply = yield from self._exchange(call, gathered_request(asked.terms, asked.encoded))
            return read_score(reply.body, asked.items), call.request_id

    def send(self, request: Request) -> Steps[Reply]:
        """Any request, with the retries of all others."""
        call = self._begin(None)
        with _signed(call):
            return (yield from self._exchange(call, request))

    def time(self, timeout: float | None) -> tuple[float, float]:
        """The seconds of a call that begins now, and when they are over."""
        seconds = self._config.timeout if timeout is None else check_timeout(timeout)
        return seconds, self._clock.monotonic() + seconds

    def score_one(
        self,
        model: str,
        item: Item,
        *,
        options: Item | None,
        run: Item | None,
        timeout: float | None,
        priority: Priority | None,
    ) -> Steps[float]:
        """POST /v1/score with one item; its score."""
        reply = yield from self.score(
            model,
            [item],
            options=options,
            run=run,
            timeout=timeout,
            on_error="raise",
            priority=priority,
        )
        return cast("float", reply.results[0].score)  # without one, the line above has raised

    def best_of_n(
        self,
        model: str,
        candidates: Sequence[object],
        *,
        choices: Item,
        shared: Item,
        timeout: float | None,
        priority: Priority | None,
    ) -> Steps[BestOfN]:
        """POST /v1/best-of-n."""
        if not candidates:
            raise ValueError("there are no candidates to rank")
        call = self._begin(timeout, priority)
        request = best_of_n_request(model, candidates, shared, choices)
        with _signed(call):
            reply = yield from self._exchange(call, request)
            complete = choices.get("top_n") is None
            return read_best_of_n(reply.body, candidates, complete=complete)

    def models(self) -> Steps[list[Model]]:
        """GET /v1/models."""
        call = self._begin(None)
        with _signed(call):
            reply = yield from self._exchange(call, models_request())
            return read_models(reply.body)

    def model(self, name: str) -> Steps[Model]:
        """GET /v1/models/{model}."""
        call = self._begin(None)
        with _signed(call):
            reply = yield from self._exchange(call, model_request(name))
            return read_model(reply.body)

    def health(self, run: str, timeout: float | None) -> Steps[RunHealth]:
        """GET /v1/runs/{run}/health."""
        call = self._begin(timeout)
        with _signed(call):
            reply = yield from self._exchange(call, health_request(run))
            return read_health(reply.body)

    def tell(
        self, run: str, step: int, values: Mapping[str, float], timeout: float | None
    ) -> Steps[None]:
        """POST /v1/runs/{run}/telemetry."""
        request = tell_request(run, step, values)
        call = self._begin(timeout)
        with _signed(call):
            yield from self._exchange(call, request)

    def probe(self, path: str) -> Steps[bool]:
        """Whether some server answers the path with success. Each is asked once."""
        call = self._begin(None)
        with _signed(call):
            for url in self._endpoints.urls:
                try:
                    reply = _reply((yield self._send(call, Request("GET", path), url)))
                except APIConnectionError:
                    continue
                failure = self._failure(reply)
                if failure is None:
                    return True
                if failure.status != 503:
                    raise failure
        return False

    def _begin(self, timeout: float | None, priority: Priority | None = None) -> Call:
        _check_priority(priority)
        return Call(uuid.uuid4().hex, *self.time(timeout), priority)

    def _exchange(self, call: Call, request: Request) -> Steps[Reply]:
        tried: set[str] = set()
        for attempt in range(self._config.max_retries + 1):
            if self._remaining(call) <= 0:
                raise APITimeoutError(f"the call was not over after {call.timeout:g} s")
            outcome = yield from self._attempt(call, request, tried)
            if isinstance(outcome, Reply):
                self._budget.give_back()
                return outcome
            seconds = self._wait(call, outcome, attempt, tried)
            if seconds is None:
                raise outcome
            _LOG.info("%s; next attempt in %.2f s (request %s)", outcome, seconds, call.request_id)
            if seconds > 0:
                yield Wait(seconds)
        raise AssertionError("the last attempt returns or raises")

    def _attempt(
        self, call: Call, request: Request, tried: set[str]
    ) -> Steps[Reply | retries.Failure]:
        endpoint = self._endpoints.acquire(tried)
        tried.add(endpoint.url)
        try:
            reply = _reply((yield self._send(call, request, endpoint.url)))
        except APIConnectionError as failure:
            self._endpoints.failed(endpoint, None)
            return failure
        finally:
            self._endpoints.release(endpoint)
        return self._judge(endpoint, reply)

    def _judge(self, endpoint: Endpoint, reply: Reply) -> Reply | APIStatusError:
        failure = self._failure(reply)
        if failure is not None and failure.status in _UNWELL:
            self._endpoints.failed(endpoint, failure.retry_after)
        else:
            self._endpoints.succeeded(endpoint)
        return reply if failure is None else failure

    def _wait(
        self, call: Call, failure: retries.Failure, attempt: int, tried: set[str]
    ) -> float | None:
        """Seconds until the next attempt, or None to give up. A server that was not asked yet is
        asked at once."""
        if attempt >= self._config.max_retries or not retries.may_retry(failure):
            return None
        if self._endpoints.has_other(tried):
            return 0.0
        seconds = retries.wait(failure, attempt, self._clock.random())
        if seconds >= self._remaining(call):
            return None
        guided = retries.retry_after(failure) is not None
        return seconds if guided or self._budget.take() else None

    def _remaining(self, call: Call) -> float:
        return call.deadline - self._clock.monotonic()

    def _send(self, call: Call, request: Request, url: str) -> Send:
        remaining = max(self._remaining(call), 0.001)
        headers = {
            "Accept": "application/json",
            "User-Agent": f"assay-client/{__version__}",
            "X-Request-ID": call.request_id,
            "X-Assay-Timeout-Ms": str(min(max(1, int(remaining * 1000)), _LONGEST_MS)),
        }
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        if call.priority is not None:
            headers["X-Assay-Priority"] = call.priority
        if self._config.api_key is not None:
            headers["Authorization"] = f"Bearer {self._config.api_key}"
        return Send(
            request.method, url + request.path, headers, request.body, remaining, call.deadline
        )

    def _failure(self, reply: Reply) -> APIStatusError | None:
        if 200 <= reply.status < 300:
            return None
        try:
            said = read_json(reply.body)
        except ProtocolError:
            said = None
        asked = retries.parse_retry_after(reply.headers.get("retry-after"), self._clock.wall())
        return status_error(read_problem(said, reply.status, asked))


@contextmanager
def _signed(call: Call) -> Iterator[None]:
    with signed(call.request_id):
        yield


@contextmanager
def signed(request_id: str) -> Iterator[None]:
    """Names the call in each error that leaves it."""
    try:
        yield
    except AssayError as error:
        error.request_id = error.request_id or request_id
        raise


def checked(reply: ScoreReply, on_error: OnError) -> ScoreReply:
    """The reply, if it is what the caller wants of items without a score."""
    if on_error == "raise" and reply.failed:
        raise ItemFailedError(reply.failed, reply)
    return reply


def _reply(outcome: Reply | None) -> Reply:
    if outcome is None:
        raise AssertionError("a request was answered with nothing")
    return outcome


def check_score(items: Sequence[Item], on_error: Any, priority: Any) -> None:
    """Raises a ValueError for arguments that cannot be meant."""
    _check_priority(priority)
    if not items:
        raise ValueError("there are no items to score")
    for index, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise ValueError(f"items[{index}] must be a dict of the item's fields")
    if on_error not in ("raise", "none"):
        raise ValueError("on_error must be 'raise' or 'none'")


def _check_priority(priority: Any) -> None:
    if priority is not None and priority not in get_args(Priority):
        raise ValueError(f"priority must be one of {', '.join(get_args(Priority))}")
