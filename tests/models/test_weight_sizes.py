"""The bytes that weights take are those of the loaded model, read from the heads of files."""

from pathlib import Path

import pytest
import torch
from support.checkpoints import build_checkpoint, save_adapter, write_card
from transformers import AutoModelForSequenceClassification

from assay_models.repository import ModelRepository, RepositoryEntry, embedded_root
from assay_models.weight_sizes import ITEM_BYTES, estimate_bytes, tensor_bytes

TENSOR = b'{"a": {"dtype": "F32", "shape": [%b], "data_offsets": [0, 1]}}'


def head(content: bytes) -> bytes:
    """Return the bytes of a safetensors file that has this head."""
    return len(content).to_bytes(8, "little") + content


def entry_of(folder: Path) -> RepositoryEntry:
    return ModelRepository([folder]).find("tiny")


def loaded_bytes(folder: Path, dtype: torch.dtype) -> int:
    weights = folder / "weights"
    model = AutoModelForSequenceClassification.from_pretrained(weights, dtype=dtype)
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", ITEM_BYTES)
def test_estimate_is_the_size_of_the_loaded_weights(
    tmp_path: Path, stored: torch.dtype, dtype: str
) -> None:
    folder = build_checkpoint("qwen3", tmp_path, dtype=stored)
    expected = loaded_bytes(folder, getattr(torch, dtype))
    assert estimate_bytes(entry_of(folder), dtype) == expected


def test_estimate_counts_the_adapter_and_the_kept_layers(tmp_path: Path) -> None:
    folder = build_checkpoint("qwen3", tmp_path)
    plain = estimate_bytes(entry_of(folder), "float32")
    save_adapter(folder)
    write_card(folder, options={"adapter": "adapter"})
    adapter = sum(
        size for _, size in tensor_bytes(folder / "adapter" / "adapter_model.safetensors", 4)
    )
    assert plain is not None
    assert estimate_bytes(entry_of(folder), "float32") == plain + adapter
    write_card(folder, options={"num_hidden_layers": 1})
    model = AutoModelForSequenceClassification.from_pretrained(folder / "weights")
    layer = sum(weight.numel() * 4 for weight in model.base_model.layers[0].parameters())
    assert estimate_bytes(entry_of(folder), "float32") == plain - 2 * layer


def test_estimate_of_a_gguf_expands_its_bits(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    for name, factor in (("m-Q8_0", 4), ("m.q4_k_m", 8), ("m-f16", 2), ("model", 8)):
        (tmp_path / "weights" / f"{name}.gguf").write_bytes(b"x" * 1000)
        write_card(tmp_path, options={"gguf_file": f"{name}.gguf"})
        assert estimate_bytes(entry_of(tmp_path), "float32") == 1000 * factor


def test_estimate_of_nothing_and_of_the_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = ModelRepository([embedded_root()])
    assert estimate_bytes(embedded.find("reference"), "float32") == 0
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    hub = embedded.find("codescaler-8b")
    assert estimate_bytes(hub, "float32") is None
    (tmp_path / "weights").mkdir()
    write_card(tmp_path)
    assert estimate_bytes(entry_of(tmp_path), "float32") is None


def test_estimate_of_a_downloaded_hub_model_reads_its_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_checkpoint("bert", tmp_path / "card")
    expected = estimate_bytes(entry_of(folder), "float32")
    revision = "0" * 40
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / revision
    snapshot.parent.mkdir(parents=True)
    (folder / "weights").rename(snapshot)
    write_card(folder, weights=f'source = "hub"\nhub = "org/name"\nrevision = "{revision}"')
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert estimate_bytes(entry_of(folder), "float32") == expected


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 64,
        b"\x02\x00\x00\x00\x00\x00\x00\x00[]",
        b'\x09\x00\x00\x00\x00\x00\x00\x00{"a": {}}',
        head(b"[" * 100_000),
        head(TENSOR % (b"1" + b"0" * 400)),
        head(TENSOR % b"1e308, 1e308"),
        head(TENSOR % b"NaN"),
        head(TENSOR % b"-5"),
    ],
)
def test_estimate_of_a_damaged_file_raises_value_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.safetensors").write_bytes(content)
    write_card(tmp_path)
    with pytest.raises(ValueError, match="safetensors"):
        estimate_bytes(entry_of(tmp_path), "float32")
