"""A model on a CUDA device that does not exist fails with a plain sentence as its reason."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.checkpoints import build_checkpoint, load_classifier
from support.servers import Served

from assay.settings import Settings
from assay_models.card import CardError
from assay_models.families.classifier.device import reduced_precision, usable_device
from assay_models.families.classifier.parity import numeric_environment
from assay_models.repository import ModelRepository, embedded_root

SetCount = Callable[[int], None]


@pytest.fixture
def set_cuda_devices(monkeypatch: pytest.MonkeyPatch) -> SetCount:
    """Return a function that sets the number of CUDA devices that PyTorch finds."""
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.mark.parametrize(
    ("count", "name", "problem"),
    [
        (0, "cuda", "ASSAY_DEVICE is cuda, but PyTorch finds no CUDA device"),
        (0, "cuda:0", "ASSAY_DEVICE is cuda:0, but PyTorch finds no CUDA device"),
        (2, "cuda:2", "ASSAY_DEVICE is cuda:2, but the last CUDA device is cuda:1"),
    ],
)
def test_a_device_that_does_not_exist_is_refused(
    set_cuda_devices: SetCount, count: int, name: str, problem: str
) -> None:
    set_cuda_devices(count)
    card = ModelRepository([embedded_root()]).find("reference").card
    with pytest.raises(CardError, match=problem):
        usable_device(card, name)


@pytest.mark.parametrize(("count", "name"), [(0, "cpu"), (1, "cuda"), (2, "cuda:1")])
def test_a_device_that_exists_is_returned(
    set_cuda_devices: SetCount, count: int, name: str
) -> None:
    set_cuda_devices(count)
    card = ModelRepository([embedded_root()]).find("reference").card
    assert usable_device(card, name) == torch.device(name)


@pytest.mark.parametrize(
    ("precision", "environment", "expected"),
    [
        ("highest", {"HOME": "x"}, {}),
        ("high", {}, {"float32_matmul": "high"}),
        (
            "highest",
            {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16", "HOME": "x"},
            {"ONEDNN_DEFAULT_FPMATH_MODE": "BF16"},
        ),
    ],
)
def test_reduced_precision_is_what_the_process_sets(
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    environment: dict[str, str],
    expected: dict[str, str],
) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    assert reduced_precision(environment) == expected


def test_reduced_precision_decides_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build_checkpoint("bert", tmp_path)
    before = load_classifier(folder).fingerprint_parts
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    assert load_classifier(folder).fingerprint_parts != before
    assert numeric_environment(torch.device("cpu"))[-1] == "ONEDNN_DEFAULT_FPMATH_MODE=BF16"


async def test_the_reason_is_shown_for_every_family_on_a_device(
    tmp_path: Path, served: Served, set_cuda_devices: SetCount
) -> None:
    set_cuda_devices(0)
    models = ("tiny", "reference", "video-qpp")
    settings = Settings(
        models=models, repository=(build_checkpoint("bert", tmp_path),), device="cuda"
    )
    async with served(settings) as client:
        readiness = await client.get("/readyz")
        listed = (await client.get("/v1/models")).json()["models"]
    assert readiness.status_code == 503
    states = {model["id"]: model["state"] for model in listed}
    assert states["reference@1"] == "ready"
    for model in ("tiny@1", "video-qpp@2"):
        assert states[model] == "failed"
        reason = f"{model}: ASSAY_DEVICE is cuda, but PyTorch finds no CUDA device"
        assert reason in readiness.text
