"""Failures of a call, and the error that each raises."""

import pickle
from typing import Any

import pytest

import assay_client
from assay_client import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AssayError,
    InternalServerError,
    ItemFailedError,
    ProtocolError,
)

ITEMS = [{"value": 1.0}]

STATUSES = {
    400: "APIStatusError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "APIStatusError",
    413: "RequestTooLargeError",
    422: "UnprocessableEntityError",
    429: "RateLimitError",
    500: "InferenceFailedError",
    502: "InternalServerError",
    503: "NotReadyError",
    504: "DeadlineExceededError",
    599: "InternalServerError",
}


@pytest.mark.parametrize(("status", "name"), STATUSES.items())
def test_each_status_raises_its_error_class(
    status: int, name: str, server: Any, connect: Any, canned: Any
) -> None:
    server.script.append(canned.problem(status, "its_code", detail="what is wrong", hint="mend it"))
    with pytest.raises(APIStatusError) as caught:
        connect(server.url, max_retries=0).score("code", ITEMS)
    error = caught.value
    assert type(error) is getattr(assay_client, name)
    assert (error.status_code, error.code, error.detail) == (status, "its_code", "what is wrong")
    assert error.hint == "mend it"
    assert error.response.status_code == status
    assert error.response.headers["content-type"] == "application/problem+json"
    assert error.body is not None
    assert error.body["hint"] == "mend it"
    assert error.request_id is not None
    assert error.request_id == server.received[0].headers["x-request-id"]
    assert str(error) == f"{error.message} (request {error.request_id})"
    for part in (str(status), "its_code", "what is wrong", "mend it", error.request_id):
        assert part in str(error)


def test_a_5xx_raises_an_internal_server_error(server: Any, connect: Any, canned: Any) -> None:
    server.always = canned.problem(503)
    with pytest.raises(InternalServerError):
        connect(server.url, max_retries=0).score("code", ITEMS)


def test_a_422_lists_the_refused_fields(server: Any, connect: Any, canned: Any) -> None:
    fields = [{"field": "items.0.promt", "problem": "is unknown"}]
    server.script.append(canned.problem(422, errors=fields))
    with pytest.raises(APIStatusError) as caught:
        connect(server.url).score("code", ITEMS)
    assert caught.value.errors == tuple(fields)


@pytest.mark.parametrize(
    "body", [b"<html>Bad Gateway</html>", b"[1]", b'{"code": 3}', b"", b"\xff"]
)
def test_an_error_page_of_a_proxy_raises_a_status_error(
    body: bytes, server: Any, connect: Any, canned: Any
) -> None:
    server.script.append(canned.answer(502, body))
    with pytest.raises(InternalServerError, match="502 unknown") as caught:
        connect(server.url, max_retries=0).score("code", ITEMS)
    assert caught.value.hint is None
    assert caught.value.response.content == body
    assert "html" not in str(caught.value)


def test_a_redirect_is_not_followed(server: Any, connect: Any, canned: Any) -> None:
    server.script.append(canned.answer(307, headers={"Location": f"{server.url}/v1/score"}))
    with pytest.raises(APIStatusError, match="307"):
        connect(server.url, api_key="k").score("code", ITEMS)
    assert len(server.received) == 1


def test_a_refused_connection_raises_a_connection_error(connect: Any, refused_url: str) -> None:
    with pytest.raises(APIConnectionError, match=refused_url) as caught:
        connect(refused_url, max_retries=0).score("code", ITEMS)
    assert not isinstance(caught.value, APITimeoutError)
    assert caught.value.request_id is not None


def test_a_truncated_body_raises_a_connection_error(server: Any, connect: Any, canned: Any) -> None:
    body = b'{"id": "score-1"}'
    server.script.append(canned.answer(200, body, cut=10))
    with pytest.raises(APIConnectionError, match="no whole reply"):
        connect(server.url, max_retries=0).score("code", ITEMS)


def test_a_silent_server_raises_a_timeout(server: Any, connect: Any, canned: Any) -> None:
    server.always = canned.answer(hang=True)
    with pytest.raises(APITimeoutError):
        connect(server.url).score("code", ITEMS, timeout=0.2)
    assert len(server.received) == 1
    assert int(server.received[0].headers["x-assay-timeout-ms"]) <= 200


def test_a_trickling_reply_raises_a_timeout(server: Any, connect: Any, canned: Any) -> None:
    server.always = canned.answer(200, b" " * 1000, trickle=0.02)
    with pytest.raises(APITimeoutError, match=r"in time|not over after"):
        connect(server.url, timeout=0.2).score("code", ITEMS)


def test_a_reply_that_cannot_be_decoded_raises_a_protocol_error(
    server: Any, connect: Any, canned: Any
) -> None:
    server.script.append(canned.answer(200, b"not gzip", {"Content-Encoding": "gzip"}))
    with pytest.raises(ProtocolError, match="cannot be decoded"):
        connect(server.url).score("code", ITEMS)


def test_garbage_with_200_raises_a_protocol_error(server: Any, connect: Any, canned: Any) -> None:
    server.script.append(canned.answer(200, b"<html>login</html>"))
    with pytest.raises(ProtocolError, match="not JSON") as caught:
        connect(server.url).score("code", ITEMS)
    assert len(server.received) == 1
    assert caught.value.request_id == server.received[0].headers["x-request-id"]


def _errors(server: Any, connect: Any, canned: Any) -> list[AssayError]:
    client = connect(server.url, max_retries=0)
    server.script.extend(
        [
            canned.problem(429, retry_after="7"),
            canned.answer(200, b"?"),
            canned.answer(200, b"", cut=3),
        ]
    )
    errors = []
    requests: list[list[dict[str, float]]] = [ITEMS, ITEMS, ITEMS, [{}]]
    for items in requests:
        with pytest.raises(AssayError) as caught:
            client.score("code", items)
        errors.append(caught.value)
    return errors


def test_errors_can_be_pickled(server: Any, connect: Any, canned: Any) -> None:
    errors = _errors(server, connect, canned)
    assert len({type(error) for error in errors}) == 4
    for error in errors:
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)
    failed = errors[3]
    assert isinstance(failed, ItemFailedError)
    assert failed.reply.scores == [None]


def test_a_closed_client_raises_at_every_call(server: Any, connect: Any) -> None:
    client = connect(server.url)
    client.score("code", ITEMS)
    client.close() if hasattr(client.client, "close") else client.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        client.score("code", ITEMS)
