"""The learnt post-retrieval predictors: trained on small data, written, loaded and served."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.servers import Served

from assay.settings import Settings
from assay_models.base import ItemError, Options, Score
from assay_models.card import CardError
from assay_models.families.qpp.post_retrieval_nets import (
    RetrievalNet,
    correlation_images,
    correlation_net,
    pair_head,
    predict_from_pairs,
)
from assay_models.items import RetrievalQppItem
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelRepository
from recipes.video_qpp.studies.post_retrieval import (
    TrainConfig,
    fit,
    image_predictions,
    image_task,
    pair_predictions,
    pair_task,
    train_and_write,
    write_model,
)
from recipes.video_qpp.studies.retrieved_lists import RetrievedLists, generate_lists, read_lists

WIDTH, DEPTH = 16, 6
SMALL = TrainConfig(rates=(1e-3, 1e-2), decays=(0.0,), epochs=3)


def small_pair() -> torch.nn.Sequential:
    return pair_head(WIDTH, (8, 4))


def small_net() -> torch.nn.Sequential:
    return correlation_net((2, 3, 4, 5), 6)


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "lists.safetensors"
    generate_lists(path, queries=60, depth=DEPTH, width=WIDTH)
    return path


@pytest.fixture(scope="module")
def lists(features: Path) -> dict[str, RetrievedLists]:
    return read_lists(features)[0]


def item_of(lists: RetrievedLists, row: int) -> dict[str, Any]:
    return {
        "query": "q",
        "query_embedding": lists.queries[row].tolist(),
        "results": [{"score": 0.0, "embedding": video.tolist()} for video in lists.videos[row]],
    }


def load(folder: Path, kind: str) -> RetrievalNet:
    repository = ModelRepository([folder])
    entry = repository.find(f"{kind}-qpp@1")
    model = family_of(entry.card).load(entry.card, repository.locate(entry), Runtime())
    assert isinstance(model, RetrievalNet)
    return model


def score(model: RetrievalNet, fields: dict[str, Any]) -> Score:
    prepared = model.prepare([RetrievalQppItem.model_validate(fields)], Options())
    (served,) = model.finish(prepared, model.predict(prepared.inputs), Options())
    return served


def test_generated_lists_are_sorted_with_at_most_one_relevant_video(
    lists: dict[str, RetrievedLists],
) -> None:
    assert [len(part) for part in lists.values()] == [36, 12, 12]
    train = lists["train"]
    assert train.videos.shape == (36, DEPTH, WIDTH)
    cosines = (train.videos @ train.queries[:, :, None])[..., 0]
    assert (cosines[:, 1:] <= cosines[:, :-1] + 1e-6).all()
    assert set(train.relevant.sum(dim=1).tolist()) == {0.0, 1.0}
    for row in range(36):
        relevant = train.relevant[row].tolist()
        rr = 1 / (1 + relevant.index(1.0)) if any(relevant) else 0.0
        assert train.targets[row, 0] == pytest.approx(rr)


def test_a_trained_pair_model_scores_like_its_net(
    lists: dict[str, RetrievedLists], tmp_path: Path
) -> None:
    net = fit(pair_task(small_pair, lists["train"]), lists, SMALL)
    again = fit(pair_task(small_pair, lists["train"]), lists, SMALL)
    for first, second in zip(net.parameters(), again.parameters(), strict=True):
        assert torch.equal(first, second)
    write_model(tmp_path, "pair", nets={"pair": net}, test=lists["test"], origin="generated")
    model = load(tmp_path, "pair")
    expected = pair_predictions(net, lists["test"])
    for row in range(12):
        served = score(model, item_of(lists["test"], row))
        assert served.channels == pytest.approx(
            dict(zip(("rr", "r10"), expected[row].tolist(), strict=True)), abs=1e-6
        )
        assert served.score == pytest.approx(float(expected[row].mean()), abs=1e-6)
        assert served.flags == ()


def test_trained_correlation_nets_score_like_their_nets(
    lists: dict[str, RetrievedLists], tmp_path: Path
) -> None:
    nets = {
        target: fit(image_task(small_net, index), lists, SMALL)
        for index, target in enumerate(("rr", "r10"))
    }
    write_model(tmp_path, "correlation", nets=nets, test=lists["test"], origin="generated")
    model = load(tmp_path, "correlation")
    expected = image_predictions(nets, lists["test"]).clamp(0, 1)
    for row in range(12):
        served = score(model, item_of(lists["test"], row))
        assert served.channels["rr"] == pytest.approx(float(expected[row, 0]), abs=1e-5)
        assert served.channels["r10"] == pytest.approx(float(expected[row, 1]), abs=1e-5)


def test_fit_keeps_the_state_with_the_lowest_validation_loss(
    lists: dict[str, RetrievedLists],
) -> None:
    task = pair_task(small_pair, lists["train"])
    held = lists["validation"]

    def loss_after(epochs: int) -> float:
        # The rate is so high that later epochs are worse than the first ones.
        net = fit(task, lists, TrainConfig(rates=(0.5,), decays=(0.0,), epochs=epochs))
        with torch.no_grad():
            return float(task.loss(net, held, torch.arange(held.relevant.numel())))

    losses = [loss_after(epochs) for epochs in (1, 2, 4, 8)]
    assert losses == sorted(losses, reverse=True)


def test_positives_have_the_weight_of_all_negatives(lists: dict[str, RetrievedLists]) -> None:
    train = lists["train"]
    task = pair_task(small_pair, train)
    positives = float(train.relevant.sum())
    weight = (train.relevant.numel() - positives) / positives
    net = small_pair().eval()
    with torch.no_grad():
        loss = float(task.loss(net, train, torch.arange(train.relevant.numel())))
        total = 0.0
        for row in range(len(train)):
            for rank in range(DEPTH):
                pair = torch.cat([train.queries[row], train.videos[row, rank]])
                chance = float(torch.sigmoid(net(pair)[0]))
                relevant = float(train.relevant[row, rank])
                total -= weight * relevant * math.log(chance)
                total -= (1 - relevant) * math.log(1 - chance)
    assert loss == pytest.approx(total / train.relevant.numel(), rel=1e-5)


def test_a_correlation_image_equals_that_of_numpy() -> None:
    videos = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(1))
    videos[1, :, 3] = 0.25
    images = correlation_images(videos).numpy()
    assert images.shape == (2, 1, 7, 7)
    assert images[0, 0] == pytest.approx(np.corrcoef(videos[0].numpy().T), abs=1e-6)
    assert (images[1, 0, 3] == 0).all()


@pytest.mark.parametrize(
    ("logits", "rr", "r10"),
    [
        ([-1.0, 2.0, -3.0, 0.0], 1 / 2, 1.0),
        ([-1.0] * 12, 0.0, 0.0),
        ([-1.0] * 9 + [1.0, 1.0, 1.0], 1 / 10, 1 / 3),
        ([1.0], 1.0, 1.0),
    ],
)
def test_predictions_from_pairs_by_table(logits: list[float], rr: float, r10: float) -> None:
    assert predict_from_pairs(logits) == pytest.approx((rr, r10))


def test_the_recipe_runs_from_a_file_to_cards_without_figures(
    features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_and_write(features, tmp_path, TrainConfig(rates=(1e-4,), decays=(0.0,), epochs=1))
    output = capsys.readouterr().out
    assert "36 train, 12 validation, 12 test" in output
    cards = ModelRepository([tmp_path]).cards()
    assert [card.id for card in cards] == ["correlation-qpp@1", "pair-qpp@1"]
    for card in cards:
        assert card.quality == ()
        assert "Untrained" in card.title
        assert not card.embedded
    published = load_file(tmp_path / "pair-qpp" / "1" / "model.safetensors")
    assert published["pair.0.weight"].shape == (512, 2 * WIDTH)
    assert published["pair.3.weight"].shape == (256, 512)
    images = load_file(tmp_path / "correlation-qpp" / "1" / "model.safetensors")
    channels = [images[f"rr.{3 * index}.weight"].shape[0] for index in range(4)]
    assert channels == [64, 128, 256, 512]


async def test_a_pair_model_is_served_and_invalid_items_are_item_errors(
    served: Served, lists: dict[str, RetrievedLists], tmp_path: Path
) -> None:
    write_model(
        tmp_path,
        "pair",
        nets={"pair": small_pair().eval()},
        test=lists["test"],
        origin="some system",
    )
    good = item_of(lists["test"], 0)
    bad = [
        {**good, "query_embedding": None},
        {**good, "query_embedding": [1.0]},
        {**good, "results": good["results"][:1]},
        {**good, "results": [{"score": 1.0}, *good["results"]]},
        {**good, "depth": 3},
    ]
    settings = Settings(models=("pair-qpp",), repository=(tmp_path,))
    async with served(settings) as client:
        card = (await client.get("/v1/models/pair-qpp")).json()
        items = [good, {**good, "results": good["results"][:3]}, *bad]
        body = {"model": "pair-qpp", "items": items}
        results = (await client.post("/v1/score", json=body)).json()["results"]
    assert (
        card["summary"] == "Learnt from lists of: some system. Nothing is claimed of its quality."
    )
    assert [result["status"] for result in results] == ["ok"] * 2 + ["error"] * 5
    assert results[1]["flags"] == ["short_list"]
    assert {result["error"]["code"] for result in results[2:]} == {"invalid_item"}


def test_weights_of_another_net_are_refused(
    lists: dict[str, RetrievedLists], tmp_path: Path
) -> None:
    folder = write_model(
        tmp_path, "pair", nets={"pair": small_pair()}, test=lists["test"], origin="generated"
    )
    path = folder / "model.safetensors"
    card = (folder / "card.toml").read_text()
    digest = card.split("sha256:")[1][:64]
    loose = card.replace(f', files = {{ "model.safetensors" = "sha256:{digest}" }}', "")
    tensors = load_file(path)
    cases = {
        "do not fit it": {**tensors, "width": torch.tensor(8)},
        "'3.weight'": {key: value for key, value in tensors.items() if "3" not in key},
    }
    for message, stored in cases.items():
        save_file(stored, path)
        (folder / "card.toml").write_text(loose)
        with pytest.raises(CardError, match=message):
            load(tmp_path, "pair")
    save_file(tensors, path)
    (folder / "card.toml").write_text(loose.split("[example]")[0])
    with pytest.raises(CardError, match="`example` must show a list"):
        load(tmp_path, "pair")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda parts: parts.pop("relevant"), "no tensor relevant"),
        (lambda parts: parts.update(queries=parts["queries"] * 2), "rows of length 1"),
        (lambda parts: parts.update(targets=parts["targets"][:, :1].contiguous()), "must be"),
        (lambda parts: parts.update(split=parts["split"] * 0), "no 1 \\(validation\\)"),
    ],
)
def test_invalid_features_are_refused_with_the_tensors_name(
    features: Path, tmp_path: Path, change: Any, message: str
) -> None:
    parts = load_file(features)
    change(parts)
    save_file(parts, tmp_path / "wrong.safetensors")
    with pytest.raises(SystemExit, match=message):
        read_lists(tmp_path / "wrong.safetensors")


def test_an_item_error_names_the_numbers_needed(
    lists: dict[str, RetrievedLists], tmp_path: Path
) -> None:
    write_model(
        tmp_path, "pair", nets={"pair": small_pair()}, test=lists["test"], origin="generated"
    )
    with pytest.raises(ItemError, match="this model needs 16 numbers"):
        score(load(tmp_path, "pair"), {"query": "q", "results": [{"score": 1.0}]})
