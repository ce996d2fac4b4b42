"""The API key is sent in one header and shown nowhere else."""

import logging
import traceback
from typing import Any

import pytest

from assay_client import AssayError, AsyncClient, Client

KEY = "sk-very-secret-0123456789"
ITEMS = [{"value": 1.0, "prompt": "a private prompt"}]


def test_the_key_is_sent_as_a_bearer_token(server: Any, connect: Any) -> None:
    client = connect(server.url, api_key=KEY)
    client.score("code", ITEMS)
    client.is_ready()
    assert {received.headers["authorization"] for received in server.received} == {f"Bearer {KEY}"}


@pytest.mark.parametrize("key", [None, ""])
def test_without_a_key_no_header_is_sent(key: str | None, server: Any, connect: Any) -> None:
    connect(server.url, api_key=key).score("code", ITEMS)
    assert "authorization" not in server.received[0].headers


def test_no_representation_shows_the_key(server: Any, connect: Any) -> None:
    client = connect(server.url, api_key=KEY).client
    for value in (client, client._config, client._calls):
        assert KEY not in repr(value) + str(value)


@pytest.mark.parametrize("failure", ["status", "cut", "garbage", "refused", "gzip"])
def test_no_error_and_no_log_line_shows_key_or_text(
    failure: str,
    server: Any,
    connect: Any,
    canned: Any,
    refused_url: str,
    fake_clock: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server.always = {
        "status": canned.problem(503),
        "cut": canned.answer(200, b"{", cut=4),
        "garbage": canned.answer(200, b"{"),
        "refused": None,
        "gzip": canned.answer(200, b"x", {"Content-Encoding": "gzip"}),
    }[failure]
    url = refused_url if failure == "refused" else server.url
    client = connect(url, api_key=KEY, clock=fake_clock.clock, max_retries=1)
    with caplog.at_level(logging.DEBUG), pytest.raises(AssayError) as caught:
        client.score("code", ITEMS)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
    assert KEY not in shown
    assert "private" not in shown


def test_each_retry_is_logged_with_its_reason(
    server: Any, connect: Any, canned: Any, fake_clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.script.append(canned.problem(503, "model_not_ready"))
    with caplog.at_level(logging.INFO, logger="assay_client"):
        connect(server.url, clock=fake_clock.clock).score("code", ITEMS)
    (line,) = [line for line in caplog.messages if "next attempt" in line]
    assert "model_not_ready" in line
    assert server.received[0].headers["x-request-id"] in line


@pytest.mark.parametrize("key", ["line\nbreak", "two words", "schlüssel", "tab\t"])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_key_that_a_header_cannot_carry_is_refused_without_quoting_it(
    key: str, kind: Any
) -> None:
    with pytest.raises(ValueError, match="key") as caught:
        kind("http://host", api_key=key)
    assert key not in str(caught.value)


def test_a_password_in_the_address_is_refused_without_quoting_it(connect: Any) -> None:
    with pytest.raises(ValueError, match="password") as caught:
        connect("http://user:hunter2@host")
    assert "hunter2" not in str(caught.value)
