"""Published clients with a real server: right scores, and failures that each of them reports."""

import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from support.doubles import Gate, ScriptedModel
from support.servers import listening

from assay_models.base import Input, Raw

from .conftest import scripted
from .sdks import SDKS, Sdk

# LiteLLM's own types, as it reads a reply.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Items .* on TypedDict class:UserWarning"),
]

all_sdks = pytest.mark.parametrize("sdk", SDKS, ids=lambda sdk: sdk.name)
sdks_with_lists = pytest.mark.parametrize(
    "sdk", [sdk for sdk in SDKS if sdk.takes_lists], ids=lambda sdk: sdk.name
)
RecordWaits = Callable[[Sdk, Callable[[], object]], list[float]]


@pytest.fixture
def record_waits(monkeypatch: pytest.MonkeyPatch) -> RecordWaits:
    """A function that replaces a client's waits, and returns the list of their seconds.

    Instead of a wait, the given callable runs.
    """

    def record(sdk: Sdk, meanwhile: Callable[[], object]) -> list[float]:
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            meanwhile()

        if sdk.clock_module is not None:
            clock = SimpleNamespace(**vars(time) | {"sleep": sleep})
            monkeypatch.setattr(import_module(sdk.clock_module), "time", clock)
        return waits

    return record


@pytest.fixture(autouse=True)
def close_litellm_connections() -> Iterator[None]:
    """Closes LiteLLM's connections after each test; it keeps them for the whole process."""
    yield
    if "litellm" in sys.modules:
        cache = import_module("litellm").in_memory_llm_clients_cache
        for client in list(cache.cache_dict.values()):
            if not inspect.iscoroutinefunction(client.close):
                client.close()
        cache.flush_cache()


def is_retry_after(seconds: float) -> bool:
    """Return whether a wait is that of `Retry-After`, and not the client's own with jitter."""
    return seconds >= 1 and float(seconds).is_integer()


def failure(sdk: Sdk, url: str, texts: Sequence[str], model: str = "scripted") -> Exception:
    with pytest.raises(sdk.error_class) as caught:
        sdk.score(url, model, texts)
    return caught.value


@all_sdks
@pytest.mark.parametrize("text", ["aaa", "naïve, 日本語, 🦜", 'line\nand "quotes"'])
def test_a_text_gets_its_score(scripted_url: str, sdk: Sdk, text: str) -> None:
    expected = [sdk.transform(len(text))]
    assert sdk.score(scripted_url, "scripted", [text]) == pytest.approx(expected, abs=1e-12)


@sdks_with_lists
def test_scores_come_in_the_order_of_the_request(scripted_url: str, sdk: Sdk) -> None:
    found = sdk.score(scripted_url, "scripted@1", ["a" * size for size in (3, 1, 2)])
    assert found == pytest.approx([sdk.transform(size) for size in (3, 1, 2)], abs=1e-12)


@sdks_with_lists
def test_an_empty_list_is_refused_or_has_no_scores(scripted_url: str, sdk: Sdk) -> None:
    if sdk.empty_result is None:
        assert sdk.read_status(failure(sdk, scripted_url, [])) == 422
    else:
        assert sdk.score(scripted_url, "scripted", []) == sdk.empty_result


@all_sdks
def test_an_unknown_model_is_reported(scripted_url: str, sdk: Sdk) -> None:
    error = failure(sdk, scripted_url, ["a"], model="other")
    assert sdk.read_status(error) == 404
    assert "no model 'other' is served" in sdk.read_problem(error)["detail"]


@all_sdks
def test_a_text_that_is_too_long_is_reported(reference_url: str, sdk: Sdk) -> None:
    error = failure(sdk, reference_url, ["word " * 5000], model="reference")
    assert sdk.read_status(error) == 422
    assert "input_too_long" in sdk.read_problem(error)["detail"]


@all_sdks
@pytest.mark.parametrize(("text", "code"), [("nan", "non_finite"), ("poison", "inference_failed")])
def test_a_failure_of_the_model_is_reported(
    scripted_url: str,
    sdk: Sdk,
    record_waits: RecordWaits,
    text: str,
    code: str,
) -> None:
    waits = record_waits(sdk, lambda: None)
    error = failure(sdk, scripted_url, [*(["fine"] if sdk.takes_lists else []), text])
    assert sdk.read_status(error) == 500
    assert code in sdk.read_problem(error)["detail"]
    assert len(waits) == sdk.attempts - 1


def posted(url: str, text: str) -> httpx2.Response:
    body = {"model": "scripted", "items": [{"text": text}]}
    return httpx2.post(f"{url}/v1/score", json=body, timeout=30)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate that blocks the executor until it is opened."""
    held = Gate()

    def predict(_: ScriptedModel, inputs: Sequence[Input]) -> Sequence[Raw]:
        return held(inputs)

    monkeypatch.setattr(ScriptedModel, "predict", predict)
    yield held
    held.open.set()


@all_sdks
def test_a_full_queue_is_reported_and_retried(
    tmp_path: Path,
    gate: Gate,
    sdk: Sdk,
    record_waits: RecordWaits,
) -> None:
    with (
        scripted(tmp_path) as settings,
        listening(settings.model_copy(update={"max_queue_tokens": 10})) as url,
        ThreadPoolExecutor() as pool,
    ):
        gate.open.set()
        sdk.score(url, "scripted", ["warm"])
        gate.open.clear()
        gate.entered.clear()
        first = pool.submit(posted, url, "0123456")
        assert gate.entered.wait(30)
        waits = record_waits(sdk, lambda: None)
        assert sdk.read_status(failure(sdk, url, ["abcd"])) == 429
        assert len(waits) == sdk.attempts - 1
        assert all(is_retry_after(seconds) for seconds in waits)

        def drain() -> None:
            gate.open.set()
            assert first.result(30).json()["results"][0]["score"] == 7.0

        waits = record_waits(sdk, drain)
        if sdk.attempts == 1:
            drain()
        assert sdk.score(url, "scripted", ["abcd"]) == [sdk.transform(4)]
        assert len(waits) == min(sdk.attempts - 1, 1)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """An event before which the model does not finish loading."""
    event, load = threading.Event(), ScriptedModel.load

    def slow(cls: type[ScriptedModel], *parts: Any) -> ScriptedModel:
        assert event.wait(60)
        return load(*parts)

    monkeypatch.setattr(ScriptedModel, "load", classmethod(slow))
    yield event
    event.set()


@pytest.fixture
def loading_url(tmp_path: Path, done: threading.Event) -> Iterator[str]:
    with scripted(tmp_path) as settings, listening(settings, loaded=False) as url:
        yield url
        done.set()


@all_sdks
def test_a_loading_model_is_reported_and_retried(
    loading_url: str, done: threading.Event, sdk: Sdk, record_waits: RecordWaits
) -> None:
    waits = record_waits(sdk, lambda: None)
    error = failure(sdk, loading_url, ["abcd"])
    assert (sdk.read_status(error), len(waits)) == (503, sdk.attempts - 1)
    assert all(is_retry_after(seconds) for seconds in waits)

    def loaded() -> None:
        done.set()
        while httpx2.get(f"{loading_url}/readyz").status_code != 200:
            pass

    waits = record_waits(sdk, loaded)
    if sdk.attempts == 1:
        loaded()
    assert sdk.score(loading_url, "scripted", ["abcd"]) == [sdk.transform(4)]
    assert len(waits) == min(sdk.attempts - 1, 1)
