"""The client's page: it names all errors, arguments and methods, and its snippet on chat runs.

`tests/docs` runs the other snippets against a live server.
"""

import inspect
import re
from dataclasses import replace
from typing import Any

import pytest
from support.paths import DOCS

import assay_client
from assay_client import AssayError, AsyncClient, Client

PAGE = (DOCS / "reference" / "client.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def _answer(canned: Any, received: Any) -> Any:
    """Return the answer of a chat endpoint, or of a server whose reward is the length."""
    body = received.body or {}
    if received.path == "/v1/chat/completions":
        choices = [{"message": {"content": "x" * (n + 1)}} for n in range(body["n"])]
        return canned.json({"choices": choices})
    assert body["prompt"]
    candidates = [{"value": float(len(text))} for text in body["candidates"]]
    return canned.default_answer(replace(received, body={**body, "candidates": candidates}))


def test_the_snippet_on_chat_endpoints_runs(
    server: Any, canned: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server.always = lambda received: _answer(canned, received)
    (snippet,) = (text for text in SNIPPETS if "ChatModel" in text)
    with Client(server.url) as client:
        exec(snippet.replace("http://127.0.0.1:8001", server.url), {"client": client})
    shown = capsys.readouterr().out
    assert "xxxxxxxx [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]" in shown


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
