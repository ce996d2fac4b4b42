"""Train the two learnt post-retrieval predictors on features of retrieved lists, and write cards.

The published recipes: a head on pairs of query and video (binary cross-entropy with a positive
weight), and convolutional nets on correlation images (squared error), Adam, three rates by three
decays, 25 epochs, the state of the lowest validation loss. `retrieved_lists` describes the file.

Examples:
    python -m recipes.video_qpp.studies.post_retrieval --features lists.safetensors --out my-models
    python -m recipes.video_qpp.studies.post_retrieval --generate --out nets
"""

import argparse
import copy
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file
from scipy import stats
from torch import Tensor, nn

from assay_models.families.qpp.post_retrieval_nets import (
    TARGETS,
    WEIGHTS,
    Kind,
    correlation_images,
    correlation_net,
    export_tensors,
    make_pairs,
    pair_head,
    predict_from_pairs,
)
from assay_models.repository import digest_of
from recipes.video_qpp.studies.retrieved_lists import (
    GENERATED,
    RetrievedLists,
    generate_lists,
    read_lists,
)

NAMES: Mapping[Kind, str] = {"pair": "pair-qpp", "correlation": "correlation-qpp"}
RATES, DECAYS, EPOCHS = (1e-5, 5e-5, 1e-4), (0.0, 0.01, 0.1), 25
PAIR_BATCH, IMAGE_BATCH = 256, 32

Loss = Callable[[nn.Module, RetrievedLists, Tensor], Tensor]
"""The mean loss of a net on some rows; pairs count rows list by list."""


@dataclass(frozen=True, slots=True)
class TrainingTask:
    """A learning problem: `build` makes a fresh net, `count_rows` returns the number of rows of
    some lists, and a step reads `batch_size` of them."""

    build: Callable[[], nn.Module]
    loss: Loss
    count_rows: Callable[[RetrievedLists], int]
    batch_size: int


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """The learning rates and weight decays to try, and the number of epochs."""

    rates: Sequence[float] = RATES
    decays: Sequence[float] = DECAYS
    epochs: int = EPOCHS


def main() -> None:
    """Read or generate the features, train, print the test's figures, write both cards."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    config = TrainConfig(arguments.rates, arguments.decays, arguments.epochs)
    if arguments.generate:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "lists.safetensors"
            generate_lists(path, queries=120, depth=25, width=32)
            train_and_write(path, arguments.out, config)
    else:
        train_and_write(arguments.features, arguments.out, config)


def train_and_write(features: Path, out: Path, config: TrainConfig) -> None:
    """Train both predictors on a file of features and write two folders that can be served."""
    lists, origin = read_lists(features)
    width, depth = lists["train"].queries.shape[1], lists["train"].videos.shape[1]
    sizes = ", ".join(f"{len(part)} {name}" for name, part in lists.items())
    print(f"{features.name}: {sizes}; {depth} videos of {width} numbers; origin: {origin}")
    pair = fit(pair_task(lambda: pair_head(width), lists["train"]), lists, config)
    write_model(out, "pair", nets={"pair": pair}, test=lists["test"], origin=origin)
    print_correlations("pair", pair_predictions(pair, lists["test"]), lists["test"])
    nets = {
        target: fit(image_task(correlation_net, index), lists, config)
        for index, target in enumerate(TARGETS)
    }
    write_model(out, "correlation", nets=nets, test=lists["test"], origin=origin)
    print_correlations("correlation", image_predictions(nets, lists["test"]), lists["test"])


def fit(task: TrainingTask, lists: Mapping[str, RetrievedLists], config: TrainConfig) -> nn.Module:
    """Return the net of the lowest validation loss, over all rates, decays and epochs.

    Each begins from the same seed; the splits `train` and `validation` are read.

    Raises:
        SystemExit: every validation loss is NaN.
    """
    best: tuple[float, nn.Module] | None = None
    for rate, decay in itertools.product(config.rates, config.decays):
        torch.manual_seed(0)
        net = task.build()
        optimizer = torch.optim.Adam(net.parameters(), lr=rate, weight_decay=decay)
        name = f"rate {rate:g}, decay {decay:g}"
        for _ in track(range(config.epochs), name, console=Console(stderr=True), transient=True):
            _train_epoch(net, task, lists["train"], optimizer)
            loss = _mean_loss(net, task, lists["validation"])
            if loss < (best[0] if best else float("inf")):
                best = loss, copy.deepcopy(net)
        print(f"  {name}: lowest validation loss so far {best[0] if best else 0:.5f}", flush=True)
    if best is None:
        raise SystemExit("no validation loss was a number: lower `--rates`, or check the features")
    return best[1].eval()


def pair_task(build: Callable[[], nn.Module], train: RetrievedLists) -> TrainingTask:
    """Return the task whose rows are pairs of query and video.

    Its loss is binary cross-entropy on logits, the positives weighted by negatives / positives of
    the training lists.
    """
    positives = float(train.relevant.sum())
    weight = torch.tensor((train.relevant.numel() - positives) / max(1.0, positives))

    def loss(net: nn.Module, lists: RetrievedLists, rows: Tensor) -> Tensor:
        depth = lists.videos.shape[1]
        queries, ranks = rows // depth, rows % depth
        pairs = torch.cat([lists.queries[queries], lists.videos[queries, ranks]], dim=1)
        expected = lists.relevant[queries, ranks]
        logits = net(pairs)[:, 0]
        return nn.functional.binary_cross_entropy_with_logits(logits, expected, pos_weight=weight)

    return TrainingTask(build, loss, lambda lists: lists.relevant.numel(), PAIR_BATCH)


def image_task(build: Callable[[], nn.Module], target: int) -> TrainingTask:
    """Return the task whose rows are lists, with the squared error of one target as its loss.

    Images are made batch by batch, so any number of lists fits.
    """

    def loss(net: nn.Module, lists: RetrievedLists, rows: Tensor) -> Tensor:
        predicted = net(correlation_images(lists.videos[rows]))[:, 0]
        return nn.functional.mse_loss(predicted, lists.targets[rows, target])

    return TrainingTask(build, loss, len, IMAGE_BATCH)


@torch.inference_mode()
def pair_predictions(net: nn.Module, lists: RetrievedLists) -> Tensor:
    """Return (rr, r10) of each list, shape (n, 2)."""
    logits = net(make_pairs(lists.queries, lists.videos))[..., 0]
    return torch.tensor([predict_from_pairs(row) for row in logits.tolist()])


@torch.inference_mode()
def image_predictions(nets: Mapping[str, nn.Module], lists: RetrievedLists) -> Tensor:
    """Return (rr, r10) of each list, shape (n, 2)."""
    columns = [
        torch.cat(
            [nets[target](correlation_images(part)) for part in _batches(lists.videos, IMAGE_BATCH)]
        )
        for target in TARGETS
    ]
    return torch.cat(columns, dim=1)


def print_correlations(kind: Kind, predicted: Tensor, test: RetrievedLists) -> None:
    """Print both coefficients with the test's targets."""
    for index, target in enumerate(TARGETS):
        x, y = predicted[:, index].numpy(), test.targets[:, index].numpy()
        if x.std() == 0 or y.std() == 0:
            print(f"{kind}, {target}: constant, n = {len(x)}")
            continue
        r, tau = stats.pearsonr(x, y), stats.kendalltau(x, y)
        print(
            f"{kind}, {target}: Pearson {r.statistic:.3f} (p {r.pvalue:.2g}), "
            f"Kendall {tau.statistic:.3f} (p {tau.pvalue:.2g}), n = {len(x)}"
        )


def write_model(
    out: Path,
    kind: Kind,
    *,
    nets: Mapping[str, nn.Module],
    test: RetrievedLists,
    origin: str,
) -> Path:
    """Write one model's folder, `out/<name>/1`, with an example from the test."""
    folder = out / NAMES[kind] / "1"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(export_tensors(test.queries.shape[1], nets), folder / WEIGHTS)
    item = {
        "query": "an example",
        "query_embedding": _rounded(test.queries[0]),
        "results": [{"score": 0.0, "embedding": _rounded(video)} for video in test.videos[0]],
    }
    card = card_text(
        kind,
        depth=test.videos.shape[1],
        origin=origin,
        digest=digest_of(folder / WEIGHTS),
        item=item,
        score=_served_score(kind, nets, item),
    )
    (folder / "card.toml").write_text(card, encoding="utf-8")
    print(f"{folder}: {(folder / WEIGHTS).stat().st_size} bytes")
    return folder


def card_text(
    kind: Kind,
    *,
    depth: int,
    origin: str,
    digest: str,
    item: Mapping[str, object],
    score: float,
) -> str:
    """Return the card.

    It states no quality, whatever was measured: stating it is left to the operator who serves it.
    """
    is_trained = origin != GENERATED
    title = "Query performance from a retrieved list, learnt"
    summary = f"Learnt from lists of: {origin}. Nothing is claimed of its quality."
    if not is_trained:
        title = "Untrained: a net of generated features, for trying out the way of it"
        summary = "Untrained: it has seen no retrieval, only features that a program generated."
    lines = [
        f"name = {json.dumps(NAMES[kind])}",
        'version = 1\nfamily = "retrieval_nets"',
        f"title = {json.dumps(title)}\nsummary = {json.dumps(summary)}",
        f'weights = {{ source = "folder", files = {{ "{WEIGHTS}" = "{digest}" }} }}',
        "limits = { max_tokens = 1048576, max_batch_tokens = 1048576, max_batch_size = 8 }",
        f"options = {{ kind = {json.dumps(kind)}, depth = {depth} }}",
        f"limitations = [{json.dumps(summary)}]",
        f"[example]\nscore = {score!r}\ntolerance = 1e-4",
        f"item = {_inline_toml(item)}",
    ]
    return "\n".join(lines) + "\n"


def _served_score(kind: Kind, nets: Mapping[str, nn.Module], item: Mapping[str, object]) -> float:
    """Return the served model's score of the item, from the numbers as the card has them."""
    queries, videos = _item_tensors(item)
    lists = RetrievedLists(queries, videos, torch.zeros(0), torch.zeros(0))
    if kind == "pair":
        predicted = pair_predictions(nets["pair"], lists)
    else:
        predicted = image_predictions(nets, lists)
    return float(predicted.double().clamp(0, 1).mean())


def _item_tensors(item: Mapping[str, object]) -> Iterator[Tensor]:
    results = item["results"]
    assert isinstance(results, list)
    for rows in ([item["query_embedding"]], [[result["embedding"] for result in results]]):
        yield nn.functional.normalize(torch.tensor(rows, dtype=torch.float64), dim=-1).float()


def _rounded(vector: Tensor) -> list[float]:
    return [round(value, 4) for value in vector.tolist()]


def _inline_toml(value: object) -> str:
    """Return a JSON value as an inline value of TOML."""
    if isinstance(value, Mapping):
        fields = (f"{key} = {_inline_toml(field)}" for key, field in value.items())
        return "{ " + ", ".join(fields) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline_toml, value)) + "]"
    return json.dumps(value)


def _train_epoch(
    net: nn.Module, task: TrainingTask, lists: RetrievedLists, optimizer: torch.optim.Optimizer
) -> None:
    net.train()
    for rows in _batches(torch.randperm(task.count_rows(lists)), task.batch_size):
        optimizer.zero_grad()
        torch.autograd.backward(task.loss(net, lists, rows))
        optimizer.step()


@torch.inference_mode()
def _mean_loss(net: nn.Module, task: TrainingTask, lists: RetrievedLists) -> float:
    net.eval()
    rows = torch.arange(task.count_rows(lists))
    losses = [
        float(task.loss(net, lists, part)) * len(part) for part in _batches(rows, task.batch_size)
    ]
    return sum(losses) / len(rows)


def _batches(rows: Tensor, size: int) -> list[Tensor]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.video_qpp.studies.post_retrieval",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--features", type=Path, help="a safetensors file of retrieved lists")
    source.add_argument("--generate", action="store_true", help="make a small one up, and use it")
    parser.add_argument("--out", type=Path, required=True, help="a folder of models to write into")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--decays", type=float, nargs="+", default=DECAYS)
    parser.add_argument("--threads", type=int, default=1, help="threads")
    return parser.parse_args()


if __name__ == "__main__":
    main()
