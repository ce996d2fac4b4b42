"""Published clients against a real server: right numbers, and failures that each of them tells."""

import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
from support.doubles import Gate, ScriptedModel
from support.servers import listening

from assay_models.base import Input, Raw

from .conftest import scripted
from .sdks import SDKS, Sdk

# LiteLLM's own types, as it reads a reply.
pytestmark = pytest.mark.filterwarnings("ignore:Items .* on TypedDict class:UserWarning")

every = pytest.mark.parametrize("sdk", SDKS, ids=lambda sdk: sdk.name)
every_list = pytest.mark.parametrize(
    "sdk", [sdk for sdk in SDKS if sdk.lists], ids=lambda sdk: sdk.name
)
Naps = Callable[[Sdk, Callable[[], object]], list[float]]


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> Naps:
    """The seconds for which a client waits before it tries again; none passes in truth, but what
    is given happens meanwhile.
    """

    def watch(sdk: Sdk, meanwhile: Callable[[], object]) -> list[float]:
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            meanwhile()

        if sdk.sleeps is not None:
            clock = SimpleNamespace(**vars(time) | {"sleep": sleep})
            monkeypatch.setattr(import_module(sdk.sleeps), "time", clock)
        return waits

    return watch


@pytest.fixture(autouse=True)
def no_connections_of_litellm() -> Iterator[None]:
    """It keeps its connections for the process; here they end with their server."""
    yield
    if "litellm" in sys.modules:
        kept = import_module("litellm").in_memory_llm_clients_cache
        for client in list(kept.cache_dict.values()):
            if not inspect.iscoroutinefunction(client.close):
                client.close()
        kept.flush_cache()


def as_told(seconds: float) -> bool:
    """Whether a wait is that of `Retry-After`, and not a client's own with its share of chance."""
    return seconds >= 1 and float(seconds).is_integer()


def failure(sdk: Sdk, url: str, texts: Sequence[str], model: str = "scripted") -> Exception:
    with pytest.raises(sdk.raised) as caught:
        sdk.ask(url, model, texts)
    return caught.value


@every
@pytest.mark.parametrize("text", ["aaa", "naïve, 日本語, 🦜", 'line\nand "quotes"'])
def test_a_text_gets_its_score(scripted_url: str, sdk: Sdk, text: str) -> None:
    expected = [sdk.number(len(text))]
    assert sdk.ask(scripted_url, "scripted", [text]) == pytest.approx(expected, abs=1e-12)


@every_list
def test_scores_come_in_the_order_of_the_request(scripted_url: str, sdk: Sdk) -> None:
    found = sdk.ask(scripted_url, "scripted@1", ["a" * size for size in (3, 1, 2)])
    assert found == pytest.approx([sdk.number(size) for size in (3, 1, 2)], abs=1e-12)


@every_list
def test_no_text_at_all(scripted_url: str, sdk: Sdk) -> None:
    if sdk.empty is None:
        assert sdk.status(failure(sdk, scripted_url, [])) == 422
    else:
        assert sdk.ask(scripted_url, "scripted", []) == sdk.empty


@every
def test_a_model_that_is_not_served(scripted_url: str, sdk: Sdk) -> None:
    error = failure(sdk, scripted_url, ["a"], model="other")
    assert sdk.status(error) == 404
    assert "no model 'other' is served" in sdk.problem(error)["detail"]


@every
def test_a_text_that_is_too_long(reference_url: str, sdk: Sdk) -> None:
    error = failure(sdk, reference_url, ["word " * 5000], model="reference")
    assert sdk.status(error) == 422
    assert "input_too_long" in sdk.problem(error)["detail"]


@every
@pytest.mark.parametrize(("text", "code"), [("nan", "non_finite"), ("poison", "inference_failed")])
def test_a_text_that_the_model_fails_on(
    scripted_url: str,
    sdk: Sdk,
    naps: Naps,
    text: str,
    code: str,
) -> None:
    waits = naps(sdk, lambda: None)
    error = failure(sdk, scripted_url, [*(["fine"] if sdk.lists else []), text])
    assert sdk.status(error) == 500
    assert code in sdk.problem(error)["detail"]
    assert len(waits) == sdk.tries - 1


def posted(url: str, text: str) -> httpx2.Response:
    body = {"model": "scripted", "items": [{"text": text}]}
    return httpx2.post(f"{url}/v1/score", json=body, timeout=30)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """Holds the device until it is opened."""
    held = Gate()

    def predict(_: ScriptedModel, inputs: Sequence[Input]) -> Sequence[Raw]:
        return held(inputs)

    monkeypatch.setattr(ScriptedModel, "predict", predict)
    yield held
    held.open.set()


@every
def test_a_full_queue_is_told_and_waited_for(
    tmp_path: Path,
    gate: Gate,
    sdk: Sdk,
    naps: Naps,
) -> None:
    with (
        scripted(tmp_path) as settings,
        listening(settings.model_copy(update={"max_queue_tokens": 10})) as url,
        ThreadPoolExecutor() as pool,
    ):
        gate.open.set()
        sdk.ask(url, "scripted", ["warm"])
        gate.open.clear()
        gate.entered.clear()
        first = pool.submit(posted, url, "0123456")
        assert gate.entered.wait(30)
        waits = naps(sdk, lambda: None)
        assert sdk.status(failure(sdk, url, ["abcd"])) == 429
        assert len(waits) == sdk.tries - 1
        assert all(as_told(seconds) for seconds in waits)

        def drain() -> None:
            gate.open.set()
            assert first.result(30).json()["results"][0]["score"] == 7.0

        waits = naps(sdk, drain)
        if sdk.tries == 1:
            drain()
        assert sdk.ask(url, "scripted", ["abcd"]) == [sdk.number(4)]
        assert len(waits) == min(sdk.tries - 1, 1)


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The model does not finish loading before this."""
    event, load = threading.Event(), ScriptedModel.load

    def slow(cls: type[ScriptedModel], *parts: object) -> ScriptedModel:
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


@every
def test_a_model_that_is_loading_is_told_and_waited_for(
    loading_url: str, done: threading.Event, sdk: Sdk, naps: Naps
) -> None:
    waits = naps(sdk, lambda: None)
    error = failure(sdk, loading_url, ["abcd"])
    assert (sdk.status(error), len(waits)) == (503, sdk.tries - 1)
    assert all(as_told(seconds) for seconds in waits)

    def loaded() -> None:
        done.set()
        while httpx2.get(f"{loading_url}/readyz").status_code != 200:
            pass

    waits = naps(sdk, loaded)
    if sdk.tries == 1:
        loaded()
    assert sdk.ask(loading_url, "scripted", ["abcd"]) == [sdk.number(4)]
    assert len(waits) == min(sdk.tries - 1, 1)
