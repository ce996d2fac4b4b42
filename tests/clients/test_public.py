"""The public interface of the package: names, configuration, pickling, connections."""

import asyncio
import gc
import inspect
import multiprocessing
import os
import pickle
from typing import Any

import httpx2
import pytest

import assay
import assay_client
import assay_client.trainers
from assay.settings import Settings
from assay_client import AsyncClient, Client
from assay_client._transport.http import new_async_client

ITEMS = [{"value": 1.0}]


def test_public_names_are_sorted_and_exist() -> None:
    assert assay_client.__all__ == sorted(assay_client.__all__)
    assert all(hasattr(assay_client, name) for name in assay_client.__all__)


def test_every_error_and_client_is_public() -> None:
    errors = {
        name
        for name, value in vars(assay_client.errors).items()
        if isinstance(value, type) and issubclass(value, assay_client.AssayError)
    }
    assert errors | {"Client", "AsyncClient"} <= set(assay_client.__all__)


def test_the_docstring_shows_the_error_tree() -> None:
    drawn = assay_client.errors.__doc__ or ""
    for name in assay_client.__all__:
        value = getattr(assay_client, name)
        if isinstance(value, type) and issubclass(value, assay_client.AssayError):
            (line,) = [line for line in drawn.splitlines() if line.split()[:1] == [name]]
            assert len(line) - len(line.lstrip()) == 2 * (len(value.__mro__) - 4)


def test_client_and_server_have_one_version() -> None:
    assert assay_client.__version__ == assay.__version__


def test_both_clients_have_the_same_methods_and_arguments() -> None:
    for name in (
        "score",
        "score_one",
        "best_of_n",
        "models",
        "model",
        "run_health",
        "record_telemetry",
        "is_ready",
        "is_live",
        "request",
    ):
        sync_signature = inspect.signature(getattr(Client, name))
        assert sync_signature == inspect.signature(getattr(AsyncClient, name))
        assert inspect.iscoroutinefunction(getattr(AsyncClient, name))


def test_both_constructors_have_the_same_arguments() -> None:
    sync_parameters = inspect.signature(Client).parameters
    parameters = dict(inspect.signature(AsyncClient).parameters)
    assert parameters.pop("gather").default is False
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        name: parameter.default for name, parameter in sync_parameters.items()
    }
    assert list(parameters) == list(sync_parameters)


def test_the_environment_is_the_fallback(
    server: Any, connect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_URL", f" {server.url} ,")
    monkeypatch.setenv("ASSAY_API_KEY", "from-environment")
    connect().score("code", ITEMS)
    connect(api_key="from-argument").score("code", ITEMS)
    keys = [received.headers["authorization"] for received in server.received]
    assert keys == ["Bearer from-environment", "Bearer from-argument"]


def test_an_argument_beats_the_environment(
    server: Any, connect: Any, monkeypatch: pytest.MonkeyPatch, refused_url: str
) -> None:
    monkeypatch.setenv("ASSAY_URL", refused_url)
    assert connect(server.url, max_retries=0).score("code", ITEMS).scores == [1.0]


def test_the_default_address_is_this_machine(connect: Any) -> None:
    assert "http://127.0.0.1:8000" in repr(connect().client)


@pytest.mark.parametrize(
    "url",
    [
        "",
        ",",
        [],
        "localhost:8000",
        "ftp://host",
        "http://",
        "http://:8000",
        "http://a b",
        "http://host:port",
        "http://host/?q=1",
        "http://host/#part",
    ],
)
def test_invalid_addresses_are_refused(url: Any, connect: Any) -> None:
    with pytest.raises(ValueError, match="base_url"):
        connect(url)


@pytest.mark.parametrize("url", ["https://h", "http://[::1]:8000", "http://a-b.c_d:1/x/y/"])
def test_valid_addresses_are_accepted(url: str, connect: Any) -> None:
    assert url.rstrip("/") in repr(connect(url).client)


@pytest.mark.parametrize("bad", [{"max_retries": -1}, {"max_items_per_request": 0}])
def test_invalid_limits_are_refused(bad: dict[str, int], connect: Any) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        connect(**bad)


def test_a_pickled_client_has_its_configuration(server: Any, connect: Any) -> None:
    original = connect(server.url, api_key="k", timeout=7.0, max_retries=1, max_items_per_request=1)
    original.score("code", ITEMS)  # with a connection open
    copy = connect.adopt(pickle.loads(pickle.dumps(original.client)))
    assert type(copy.client) is connect.kind
    assert repr(copy.client) == repr(original.client)
    copy.score("code", ITEMS * 2)
    assert len(server.received) == 3
    assert server.received[2].headers["authorization"] == "Bearer k"
    assert int(server.received[1].headers["x-assay-timeout-ms"]) <= 7000


def test_connections_are_reused(server: Any, connect: Any) -> None:
    client = connect(server.url)
    for _ in range(3):
        client.score("code", ITEMS)
    assert len({received.peer for received in server.received}) == 1


def test_a_custom_http_client_is_used_and_not_closed(server: Any) -> None:
    with httpx2.Client(headers={"X-Team": "rl"}) as http:
        with Client(server.url, http_client=http) as client:
            client.score("code", ITEMS)
            with pytest.raises(TypeError, match="http_client"):
                pickle.dumps(client)
        assert not http.is_closed
    assert server.received[0].headers["x-team"] == "rl"


async def test_a_custom_async_http_client_is_used_and_not_closed(server: Any) -> None:
    async with new_async_client() as http:
        async with AsyncClient(server.url, http_client=http) as client:
            assert (await client.score("code", ITEMS)).scores == [1.0]
        assert not http.is_closed


def _score_in_child(client: Client, failed: Any) -> None:
    failed.value = int(client.score("code", ITEMS).scores != [1.0])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_worker_opens_its_own_connection(server: Any) -> None:
    fork = multiprocessing.get_context("fork")
    failed = fork.Value("i", 1)
    with Client(server.url) as client:
        client.score("code", ITEMS)
        worker = fork.Process(target=_score_in_child, args=(client, failed))
        worker.start()
        worker.join(30)
        worker.close()
        client.score("code", ITEMS)
    assert failed.value == 0
    parent, child, parent_again = [received.peer for received in server.received]
    assert parent == parent_again != child


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_an_async_client_can_be_used_in_one_loop_after_another(server: Any) -> None:
    client = AsyncClient(server.url)
    scores = [asyncio.run(client.score_one("code", {"value": float(i)})) for i in range(3)]
    assert scores == [0.0, 1.0, 2.0]
    del client
    gc.collect()  # a loop that ends drops its idle connections: their warnings belong here


@pytest.mark.parametrize("kind", [Client, AsyncClient, assay_client.trainers.Settings])
def test_a_call_may_take_as_long_as_a_request_without_a_timeout(kind: Any) -> None:
    assert inspect.signature(kind).parameters["timeout"].default == Settings().timeout
