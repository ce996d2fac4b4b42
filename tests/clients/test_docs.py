"""The client's page: its snippets run as printed, and it names what it should."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from support.paths import DOCS

import assay_client
from assay_client import AssayError, AsyncClient, Client

PAGE = (DOCS / "reference" / "client.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def _value(item: Mapping[str, Any]) -> float | None:
    return float(len(item["response"])) if item["response"] else None


def _reply(say: Any, seen: Any) -> Any:
    """What a server with one model, whose reward is the length, would say."""
    body = seen.body or {}
    if seen.path == "/v1/chat/completions":
        said = [{"message": {"content": "x" * (n + 1)}} for n in range(body["n"])]
        return say.json({"choices": said})
    if body.get("model", "code") != "code":
        return say.problem(404, "model_not_found", hint="served: code@1")
    if seen.path == "/v1/score":
        items = [{**item, "value": _value(item)} for item in body["items"]]
        return say.json(say.score_reply(items))
    if seen.path == "/v1/best-of-n":
        assert body["prompt"]
        candidates = [{"value": float(len(text))} for text in body["candidates"]]
        return say.usual(replace(seen, body={**body, "candidates": candidates}))
    return say.usual(replace(seen, path=seen.path.replace("/models/code", "/models/code@1")))


def test_the_snippets_run(
    server: Any, say: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server.always = lambda seen: _reply(say, seen)
    names: dict[str, Any] = {}
    assert len(SNIPPETS) == 12
    for snippet in SNIPPETS:
        exec(re.sub(r"http://127\.0\.0\.1:800[01]", server.url, snippet), names)
    names["client"].close()
    shown = capsys.readouterr().out
    assert "[1.0, 2.0, 3.0]\n" in shown
    assert "xxxxxxxx [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]" in shown
    assert "1 input_too_long shorten it\n[10.0, None]" in shown
    assert "model_not_found served: code@1" in shown
    assert "code@1 code ready" in shown
    assert names["usable"] == []
    assert "null_share critical since 3: cannot tell why" in shown


def test_the_page_names_every_error() -> None:
    for name in assay_client.__all__:
        value = getattr(assay_client, name)
        if isinstance(value, type) and issubclass(value, AssayError):
            assert name in PAGE


@pytest.mark.parametrize("name", list(inspect.signature(AsyncClient).parameters))
def test_the_page_names_every_argument(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("name", [n for n in vars(Client) if not n.startswith("_")])
def test_the_page_names_every_method(name: str) -> None:
    assert f"{name}(" in PAGE
