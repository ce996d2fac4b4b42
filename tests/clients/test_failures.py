"""Every way in which a call can fail, and the error that says so."""

import pickle
from typing import Any

import pytest

import assay_client
from assay_client import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AssayError,
    ItemFailedError,
    ProtocolError,
    ServerError,
)

ITEMS = [{"value": 1.0}]

STATUSES = {
    400: "APIStatusError",
    401: "AuthenticationError",
    403: "PermissionDeniedError",
    404: "NotFoundError",
    409: "APIStatusError",
    413: "RequestTooLargeError",
    422: "InvalidRequestError",
    429: "RateLimitError",
    500: "InferenceFailedError",
    502: "ServerError",
    503: "NotReadyError",
    504: "DeadlineExceededError",
    599: "ServerError",
}


@pytest.mark.parametrize(("status", "name"), STATUSES.items())
def test_each_status_has_its_class(
    status: int, name: str, server: Any, connect: Any, say: Any
) -> None:
    server.script.append(say.problem(status, "its_code", detail="what is wrong", hint="mend it"))
    with pytest.raises(APIStatusError) as caught:
        connect(server.url, max_retries=0).score("code", ITEMS)
    error = caught.value
    assert type(error) is getattr(assay_client, name)
    assert (error.status, error.code, error.detail) == (status, "its_code", "what is wrong")
    assert error.hint == "mend it"
    assert error.request_id == server.seen[0].headers["x-request-id"]
    for part in (str(status), "its_code", "what is wrong", "mend it", error.request_id):
        assert part in str(error)


def test_every_5xx_is_a_server_error(server: Any, connect: Any, say: Any) -> None:
    server.always = say.problem(503)
    with pytest.raises(ServerError):
        connect(server.url, max_retries=0).score("code", ITEMS)


def test_the_refused_fields_are_in_the_error(server: Any, connect: Any, say: Any) -> None:
    fields = [{"field": "items.0.promt", "problem": "is unknown"}]
    server.script.append(say.problem(422, errors=fields))
    with pytest.raises(APIStatusError) as caught:
        connect(server.url).score("code", ITEMS)
    assert caught.value.errors == tuple(fields)


@pytest.mark.parametrize(
    "body", [b"<html>Bad Gateway</html>", b"[1]", b'{"code": 3}', b"", b"\xff"]
)
def test_a_page_of_a_proxy_is_a_status_error_too(
    body: bytes, server: Any, connect: Any, say: Any
) -> None:
    server.script.append(say.answer(502, body))
    with pytest.raises(ServerError, match="502 unknown") as caught:
        connect(server.url, max_retries=0).score("code", ITEMS)
    assert caught.value.hint is None
    assert "html" not in str(caught.value)


def test_a_redirect_is_not_followed(server: Any, connect: Any, say: Any) -> None:
    server.script.append(say.answer(307, headers={"Location": f"{server.url}/v1/score"}))
    with pytest.raises(APIStatusError, match="307"):
        connect(server.url, api_key="k").score("code", ITEMS)
    assert len(server.seen) == 1


def test_a_refused_connection(connect: Any, refused_url: str) -> None:
    with pytest.raises(APIConnectionError, match=refused_url) as caught:
        connect(refused_url, max_retries=0).score("code", ITEMS)
    assert not isinstance(caught.value, APITimeoutError)
    assert caught.value.request_id is not None


def test_a_body_cut_short_is_no_reply(server: Any, connect: Any, say: Any) -> None:
    body = b'{"id": "score-1"}'
    server.script.append(say.answer(200, body, cut=10))
    with pytest.raises(APIConnectionError, match="no whole reply"):
        connect(server.url, max_retries=0).score("code", ITEMS)


def test_a_silent_server_is_a_timeout(server: Any, connect: Any, say: Any) -> None:
    server.always = say.answer(hang=True)
    with pytest.raises(APITimeoutError):
        connect(server.url).score("code", ITEMS, timeout=0.2)
    assert len(server.seen) == 1
    assert int(server.seen[0].headers["x-assay-timeout-ms"]) <= 200


def test_a_trickling_reply_is_a_timeout_too(server: Any, connect: Any, say: Any) -> None:
    server.always = say.answer(200, b" " * 1000, trickle=0.02)
    with pytest.raises(APITimeoutError, match=r"not whole in time|not over after"):
        connect(server.url, timeout=0.2).score("code", ITEMS)


def test_a_reply_that_cannot_be_unpacked(server: Any, connect: Any, say: Any) -> None:
    server.script.append(say.answer(200, b"not gzip", {"Content-Encoding": "gzip"}))
    with pytest.raises(ProtocolError, match="cannot be decoded"):
        connect(server.url).score("code", ITEMS)


def test_garbage_with_200_is_a_protocol_error(server: Any, connect: Any, say: Any) -> None:
    server.script.append(say.answer(200, b"<html>login</html>"))
    with pytest.raises(ProtocolError, match="not JSON") as caught:
        connect(server.url).score("code", ITEMS)
    assert len(server.seen) == 1
    assert caught.value.request_id == server.seen[0].headers["x-request-id"]


def _errors(server: Any, connect: Any, say: Any) -> list[AssayError]:
    client = connect(server.url, max_retries=0)
    server.script.extend(
        [say.problem(429, retry_after="7"), say.answer(200, b"?"), say.answer(200, b"", cut=3)]
    )
    errors = []
    for items in (ITEMS, ITEMS, ITEMS, [{}]):
        with pytest.raises(AssayError) as caught:
            client.score("code", items)
        errors.append(caught.value)
    return errors


def test_errors_survive_the_way_home_from_a_worker(server: Any, connect: Any, say: Any) -> None:
    errors = _errors(server, connect, say)
    assert len({type(error) for error in errors}) == 4
    for error in errors:
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)
    failed = errors[3]
    assert isinstance(failed, ItemFailedError)
    assert failed.reply.scores == [None]


def test_a_closed_client_says_so(server: Any, connect: Any) -> None:
    client = connect(server.url)
    client.score("code", ITEMS)
    client.close() if hasattr(client.client, "close") else client.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        client.score("code", ITEMS)
