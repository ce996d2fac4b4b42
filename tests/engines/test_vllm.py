"""Engine models with a real vLLM behind them; each test starts it for some tens of seconds."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.checkpoints import Kind, PlainTransformers, build_checkpoint
from support.servers import free_port, serving
from support.tiers import only_nightly
from support.vllm_servers import ABSENT, FOLDER, VllmServer, vllm_serving

from assay.app import create_app
from assay.settings import read_settings

pytestmark = [
    only_nightly,
    pytest.mark.skipif(not (FOLDER / "bin" / "vllm").is_file(), reason=ABSENT),
    pytest.mark.timeout(1200),
]

WIDTH: Mapping[Kind, Mapping[str, int]] = {
    "qwen3": {
        "hidden_size": 128,
        "head_dim": 64,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
    },
    "bert": {
        "hidden_size": 128,
        "num_attention_heads": 2,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
    },
}
NLI = ("contradiction", "entailment", "neutral")
TEXTS = tuple(f"{'a longer text ' * (number % 7)}number {number}" for number in range(40))


def write_cards(
    folder: Path, url: str, *, family: str = "sequence_classifier", options: str = ""
) -> None:
    """Write the cards of `here@1`, computed by Assay, and `there@1`, by vLLM."""
    for name, of, engine in (
        ("here", family, ""),
        (
            "there",
            "engine" if family == "sequence_classifier" else family,
            f'[engine]\nprotocol = "vllm"\nurls = ["{url}"]\nmodel = "rm"\nprove_seconds = 3600\n',
        ),
    ):
        card = folder / name / "1" / "card.toml"
        card.parent.mkdir(parents=True)
        card.write_text(
            f'name = "{name}"\nversion = 1\nfamily = "{of}"\n'
            f'[weights]\nsource = "folder"\npath = "{folder / "weights"}"\n'
            f"[limits]\nmax_tokens = 256\n[options]\n{options}\n{engine}"
        )


@asynccontextmanager
async def client_of(folder: Path, models: str = "here,there") -> AsyncIterator[httpx2.AsyncClient]:
    settings = {"ASSAY_REPOSITORY": str(folder), "ASSAY_MODELS": models, "ASSAY_RUNS": "off"}
    async with serving(create_app(read_settings({**settings, "ASSAY_TIMEOUT": "20"}))) as client:
        yield client


async def raws(client: httpx2.AsyncClient, model: str, items: list[dict[str, Any]]) -> list[float]:
    body = {"model": model, "items": items, "options": {"raw": True}}
    reply = await client.post("/v1/score", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return [result["raw"] for result in reply.json()["results"]]


@pytest.mark.parametrize(
    ("kind", "has_segments"), [("qwen3", False), ("bert", False), ("bert", True)]
)
async def test_random_classifier_scores_as_plain_transformers(
    kind: Kind, has_segments: bool, tmp_path: Path
) -> None:
    build_checkpoint(kind, tmp_path, config=WIDTH[kind])
    if kind == "bert" and not has_segments:
        leave_out_segments(tmp_path / "weights")
    (tmp_path / "card.toml").unlink()
    with vllm_serving(tmp_path / "weights", free_port(), max_tokens=256) as server:
        write_cards(tmp_path, server.url)
        plain = PlainTransformers(tmp_path)
        items: list[dict[str, Any]] = [{"text": text} for text in TEXTS]
        if kind == "bert":
            items = [{"text": text, "text_pair": f"{index}"} for index, text in enumerate(TEXTS)]
        expected = [plain.text(item["text"], item.get("text_pair"))[0] for item in items]
        async with client_of(tmp_path) as client:
            there = await raws(client, "there", items)
            assert there == pytest.approx(expected, abs=1e-4, rel=0)
            assert await raws(client, "here", items) == pytest.approx(there, abs=1e-4, rel=0)


def leave_out_segments(weights: Path) -> None:
    """Make the tokenizer give all tokens of a pair the segment 0."""
    path = weights / "tokenizer_config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "model_input_names": ["input_ids", "attention_mask"]}))


PROGRAM = "```python\ndef f(x):\n    return x + {}\n```"
FAMILIES: Mapping[str, tuple[tuple[str, ...] | None, str, list[dict[str, Any]]]] = {
    "code": (
        None,
        "",
        [{"prompt": "Add one.", "response": PROGRAM.format(number)} for number in range(20)],
    ),
    "nli": (
        NLI,
        "probes = false",
        [{"premise": text, "hypothesis": "There is a number."} for text in TEXTS[:20]],
    ),
}


@pytest.mark.parametrize("family", [*FAMILIES])
async def test_family_with_an_engines_weights_scores_as_the_local_one(
    family: str, tmp_path: Path
) -> None:
    labels, options, items = FAMILIES[family]
    build_checkpoint("qwen3", tmp_path, labels=labels, config=WIDTH["qwen3"])
    (tmp_path / "card.toml").unlink()
    with vllm_serving(tmp_path / "weights", free_port()) as server:
        write_cards(tmp_path, server.url, family=family, options=options)
        async with client_of(tmp_path) as client:
            here, there = [await raws(client, name, items) for name in ("here", "there")]
            assert len({*here}) > 1
            assert there == pytest.approx(here, abs=1e-4, rel=0)


async def test_engine_killed_under_traffic_gives_numbers_or_503_and_comes_back(
    tmp_path: Path,
) -> None:
    build_checkpoint("qwen3", tmp_path, config=WIDTH["qwen3"])
    (tmp_path / "card.toml").unlink()
    server = VllmServer(tmp_path / "weights", free_port())
    write_cards(tmp_path, server.url)
    server.start()
    server.wait()
    try:
        async with client_of(tmp_path) as client:
            texts = [f"text number {number}" for number in range(1000)]
            expected = await raws(client, "here", [{"text": text} for text in texts])
            counted = asyncio.Semaphore(0)
            calls = [asyncio.create_task(score_one(client, text, counted)) for text in texts]
            for _ in range(100):
                await counted.acquire()
            server.kill()
            server.start()
            results = await asyncio.gather(*calls)
            check(results, expected)
            await asyncio.to_thread(server.wait)
            await until_ready(client)
            later = [await score_one(client, text, counted) for text in texts[-50:]]
            assert [status for status, _ in later] == [200] * 50
            check(later, expected[-50:])
            await another_model_is_refused(client, server, tmp_path)
    finally:
        server.kill()


async def until_ready(client: httpx2.AsyncClient) -> None:
    """Wait until readiness opens by itself."""
    for _ in range(240):
        if (await client.get("/readyz")).status_code == 200:
            return
        await asyncio.sleep(0.5)
    raise AssertionError((await client.get("/readyz")).text)


def check(results: list[tuple[int, float | str]], expected: list[float]) -> None:
    """Check that each result is the number of its own text, or a 503 that says so."""
    for (status, value), right in zip(results, expected, strict=True):
        if status == 200:
            assert value == pytest.approx(right, abs=1e-4, rel=0)
        else:
            assert status == 503
            assert value in ("engine_unavailable", "engine_timeout", "model_not_ready")


async def score_one(
    client: httpx2.AsyncClient, text: str, counted: asyncio.Semaphore
) -> tuple[int, float | str]:
    body = {"model": "there", "items": [{"text": text}], "options": {"raw": True}}
    reply = await client.post("/v1/score", json=body, timeout=60)
    counted.release()
    value = reply.json()
    return reply.status_code, value["code"] if "code" in value else value["results"][0]["raw"]


async def another_model_is_refused(
    client: httpx2.AsyncClient, server: VllmServer, folder: Path
) -> None:
    """Serve other weights under the same name, port and path: parity must refuse them."""
    server.kill()
    other = build_checkpoint("qwen3", folder / "other", config=WIDTH["qwen3"], seed=8)
    server.weights = other / "weights"
    server.start()
    await asyncio.to_thread(server.wait)
    status, code = await score_one(client, "never seen before", asyncio.Semaphore(0))
    assert (status, code) == (503, "model_not_ready")
    states = (await client.get("/readyz")).json()["models"]
    assert "not proven" in states["there@1"]
