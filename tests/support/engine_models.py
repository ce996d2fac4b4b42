"""Models that an engine computes: their folders, and engines that break one promise each."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assay_models.card import ModelCard
from assay_models.families.classifier.remote import RemoteClassifier
from assay_models.registry import Runtime
from assay_models.repository import ModelRepository
from support.checkpoints import Kind, build_tokenizer
from support.engine_servers import EngineServer, Handler, Received, logits_of, sglang, tei, vllm

EXAMPLE_TEXT = "an example of some words"


def write_engine_model(
    folder: Path,
    *,
    url: str,
    protocol: str = "vllm",
    kind: Kind = "llama",
    labels: Sequence[str] = ("LABEL_0",),
    family: str = "engine",
    example: float | None = None,
    options: str = "",
    engine: str = "",
    config: Mapping[str, object] | None = None,
) -> Path:
    """Write the tokenizer and the config of a checkpoint without weights, and its card."""
    weights = folder / "weights"
    tokenizer = build_tokenizer(kind)
    tokenizer.save_pretrained(weights)
    fields = {
        "model_type": kind,
        "vocab_size": len(tokenizer),
        "id2label": {str(index): name for index, name in enumerate(labels)},
        **(config or {}),
    }
    (weights / "config.json").write_text(json.dumps(fields))
    name = "rm@1" if protocol == "assay" else "rm"
    lines = [
        f'name = "tiny"\nversion = 1\nfamily = "{family}"',
        '[weights]\nsource = "folder"\npath = "weights"',
        "[limits]\nmax_tokens = 256",
        f"[options]\n{options}",
        f'[engine]\nprotocol = "{protocol}"\nurls = ["{url}"]\nmodel = "{name}"',
        f"retries = 0\n{engine}",
    ]
    if example is not None:
        lines.append(f'[example]\nscore = {example}\nitem = {{ text = "{EXAMPLE_TEXT}" }}')
    (folder / "card.toml").write_text("\n".join(lines) + "\n")
    return folder


def open_remote(folder: Path) -> RemoteClassifier:
    """Open the classifier of the card in a folder."""
    repository = ModelRepository([folder])
    entry = repository.find("tiny")
    return RemoteClassifier.open(entry.card, repository.locate(entry), Runtime())


def read_card_of(folder: Path) -> ModelCard:
    """Return the card in a folder."""
    return ModelRepository([folder]).find("tiny").card


def example_score(protocol: str, kind: Kind = "llama") -> float:
    """Return what a true engine with one label computes for the example."""
    if protocol in ("tei", "assay"):
        return logits_of(EXAMPLE_TEXT)[0]
    ids = build_tokenizer(kind)(EXAMPLE_TEXT)["input_ids"]
    return logits_of(list(ids))[0]


def without_activation_option(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer as a vLLM that knows no `use_activation`, and always activates."""
    return vllm(server, _with(request, use_activation=True))


def raw_whatever_is_asked(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer as a vLLM that never activates."""
    return vllm(server, _with(request, use_activation=False))


def always_softmax(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer as a server that applies a softmax to a single logit."""
    status, value = vllm(server, request)
    for entry in value.get("data", []) if request.path == "/classify" else []:
        entry["probs"] = [1.0] * len(entry["probs"])
    return status, value


def other_label_order(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer with the logits of the labels in another order."""
    status, value = vllm(server, request)
    for entry in value.get("data", []) if request.path == "/classify" else []:
        entry["probs"] = [*entry["probs"][1:], entry["probs"][0]]
    return status, value


def rotated_rows(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer with each row's numbers at the next row's index."""
    status, value = vllm(server, request)
    entries = value.get("data", []) if request.path == "/classify" else []
    for index, entry in enumerate(entries):
        entry["index"] = (index + 1) % len(entries)
    return status, value


def swapped_pairs(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer as a vLLM that takes the second text of a pair for the first."""
    if request.path != "/score":
        return vllm(server, request)
    queries, documents = request.body["queries"], request.body["documents"]
    return vllm(server, _with(request, queries=documents, documents=queries))


def softmax_sglang(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer as SGLang's other route, which applies a softmax always."""
    status, value = sglang(server, request)
    for entry in value if request.path == "/classify" else []:
        entry["embedding"] = [1.0] * len(entry["embedding"])
    return status, value


def second_bos_sglang(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer as an SGLang that puts a BOS before the ids."""
    rows = (request.body or {}).get("input_ids")
    return sglang(server, request if rows is None else _with(request, input_ids=_bos(rows)))


def second_bos_tei(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer as a TEI whose tokenizer writes one BOS more than the checkpoint's."""
    parts = (request.body or {}).get("inputs")
    doubled = parts and [["<s>" + texts[0], *texts[1:]] for texts in parts]
    return tei(server, _with(request, inputs=doubled) if doubled else request)


def activated_tei(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer as a TEI that knows no `raw_scores`."""
    return tei(server, _with(request, raw_scores=False))


def other_label_names_tei(server: EngineServer, request: Received) -> tuple[int, Any]:
    """Answer as a TEI whose config orders the labels otherwise."""
    status, value = tei(server, request)
    if request.path == "/info":
        labels = value["model_type"]["classifier"]["id2label"]
        first, *others = labels.values()
        names = [*others, first]
        value["model_type"]["classifier"]["id2label"] = dict(zip(labels, names, strict=True))
    return status, value


def shifted(handler: Handler, by: int) -> Handler:
    """Return a handler that answers as one of another model: its ids mean other tokens."""

    def answer(server: EngineServer, request: Received) -> tuple[int, Any]:
        rows = (request.body or {}).get("input")
        if rows is None:
            return handler(server, request)
        moved = [[number + by for number in row] for row in rows]
        return handler(server, _with(request, input=moved))

    return answer


def _bos(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    return [[1, *row] for row in rows]


def _with(request: Received, **fields: object) -> Received:
    body = None if request.body is None else {**request.body, **fields}
    return Received(request.path, request.headers, request.client, body)
