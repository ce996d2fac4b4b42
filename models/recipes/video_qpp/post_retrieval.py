"""Train the two learnt post-retrieval predictors on features of retrieved lists, and write cards.

The published recipes: a head on pairs of query and video (binary cross-entropy with a positive
weight), and convolutional nets on correlation images (squared error), Adam, three rates by three
decays, 25 epochs, the state of the lowest validation loss. `retrieved` says what the file holds.

Examples:
    python -m recipes.video_qpp.post_retrieval --features lists.safetensors --out my-models
    python -m recipes.video_qpp.post_retrieval --generate --out nets
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
    by_pairs,
    correlation_net,
    images_of,
    pair_head,
    pairs_of,
    tensors_of,
)
from assay_models.repository import digest_of
from recipes.video_qpp.retrieved import GENERATED, Lists, generate, read_lists

NAMES: Mapping[Kind, str] = {"pair": "pair-qpp", "correlation": "correlation-qpp"}
RATES, DECAYS, EPOCHS = (1e-5, 5e-5, 1e-4), (0.0, 0.01, 0.1), 25
PAIR_BATCH, IMAGE_BATCH = 256, 32

Loss = Callable[[nn.Module, Lists, Tensor], Tensor]
"""The mean loss of a net on some rows; pairs count rows list by list."""


@dataclass(frozen=True, slots=True)
class Task:
    """What is learnt: `build` makes a fresh net, `rows` says how many rows some lists have, and a
    step reads `batch` of them."""

    build: Callable[[], nn.Module]
    loss: Loss
    rows: Callable[[Lists], int]
    batch: int


@dataclass(frozen=True, slots=True)
class Training:
    """What is tried, and for how long."""

    rates: Sequence[float] = RATES
    decays: Sequence[float] = DECAYS
    epochs: int = EPOCHS


def main() -> None:
    """Read or generate the features, train, print the test's figures, write both cards."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    training = Training(arguments.rates, arguments.decays, arguments.epochs)
    if arguments.generate:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "lists.safetensors"
            generate(path, queries=120, depth=25, width=32)
            run(path, arguments.out, training)
    else:
        run(arguments.features, arguments.out, training)


def run(features: Path, out: Path, training: Training) -> None:
    """All of it, from a file of features to two folders that can be served."""
    lists, origin = read_lists(features)
    width, depth = lists["train"].queries.shape[1], lists["train"].videos.shape[1]
    shape = ", ".join(f"{len(part)} {name}" for name, part in lists.items())
    print(f"{features.name}: {shape}; {depth} videos of {width} numbers; origin: {origin}")
    pair = fit(pair_task(lambda: pair_head(width), lists["train"]), lists, training)
    write(out, "pair", {"pair": pair}, lists["test"], origin)
    report("pair", pair_predictions(pair, lists["test"]), lists["test"])
    nets = {
        target: fit(image_task(correlation_net, place), lists, training)
        for place, target in enumerate(TARGETS)
    }
    write(out, "correlation", nets, lists["test"], origin)
    report("correlation", image_predictions(nets, lists["test"]), lists["test"])


def fit(task: Task, lists: Mapping[str, Lists], training: Training) -> nn.Module:
    """The net of the lowest validation loss, over all rates, decays and epochs; each begins from
    the same seed, and `train` and `validation` are read."""
    best: tuple[float, nn.Module] | None = None
    for rate, decay in itertools.product(training.rates, training.decays):
        torch.manual_seed(0)
        net = task.build()
        optimiser = torch.optim.Adam(net.parameters(), lr=rate, weight_decay=decay)
        name = f"rate {rate:g}, decay {decay:g}"
        for _ in track(range(training.epochs), name, console=Console(stderr=True), transient=True):
            _epoch(net, task, lists["train"], optimiser)
            held = _mean_loss(net, task, lists["validation"])
            if held < (best[0] if best else float("inf")):
                best = held, copy.deepcopy(net)
        print(f"  {name}: lowest validation loss so far {best[0] if best else 0:.5f}", flush=True)
    if best is None:
        raise SystemExit("no validation loss was a number: lower `--rates`, or check the features")
    return best[1].eval()


def pair_task(build: Callable[[], nn.Module], train: Lists) -> Task:
    """A row is a pair of query and video. Binary cross-entropy on logits, the positives weighed by
    negatives / positives of the training lists."""
    positives = float(train.relevant.sum())
    weight = torch.tensor((train.relevant.numel() - positives) / max(1.0, positives))

    def loss(net: nn.Module, lists: Lists, rows: Tensor) -> Tensor:
        depth = lists.videos.shape[1]
        queries, places = rows // depth, rows % depth
        pairs = torch.cat([lists.queries[queries], lists.videos[queries, places]], dim=1)
        wanted = lists.relevant[queries, places]
        logits = net(pairs)[:, 0]
        return nn.functional.binary_cross_entropy_with_logits(logits, wanted, pos_weight=weight)

    return Task(build, loss, lambda lists: lists.relevant.numel(), PAIR_BATCH)


def image_task(build: Callable[[], nn.Module], place: int) -> Task:
    """A row is a list. Squared error of one target; images are made batch by batch, so any number
    of lists fits."""

    def loss(net: nn.Module, lists: Lists, rows: Tensor) -> Tensor:
        foretold = net(images_of(lists.videos[rows]))[:, 0]
        return nn.functional.mse_loss(foretold, lists.targets[rows, place])

    return Task(build, loss, len, IMAGE_BATCH)


@torch.inference_mode()
def pair_predictions(net: nn.Module, lists: Lists) -> Tensor:
    """(rr, r10) of each list, shape (n, 2)."""
    logits = net(pairs_of(lists.queries, lists.videos))[..., 0]
    return torch.tensor([by_pairs(row) for row in logits.tolist()])


@torch.inference_mode()
def image_predictions(nets: Mapping[str, nn.Module], lists: Lists) -> Tensor:
    """(rr, r10) of each list, shape (n, 2)."""
    columns = [
        torch.cat([nets[target](images_of(part)) for part in _batches(lists.videos, IMAGE_BATCH)])
        for target in TARGETS
    ]
    return torch.cat(columns, dim=1)


def report(kind: Kind, foretold: Tensor, test: Lists) -> None:
    """Print both coefficients with the test's targets."""
    for place, target in enumerate(TARGETS):
        x, y = foretold[:, place].numpy(), test.targets[:, place].numpy()
        if x.std() == 0 or y.std() == 0:
            print(f"{kind}, {target}: constant, n = {len(x)}")
            continue
        r, tau = stats.pearsonr(x, y), stats.kendalltau(x, y)
        print(
            f"{kind}, {target}: Pearson {r.statistic:.3f} (p {r.pvalue:.2g}), "
            f"Kendall {tau.statistic:.3f} (p {tau.pvalue:.2g}), n = {len(x)}"
        )


def write(out: Path, kind: Kind, nets: Mapping[str, nn.Module], test: Lists, origin: str) -> Path:
    """Write one model's folder, `out/<name>/1`, with an example from the test."""
    folder = out / NAMES[kind] / "1"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors_of(test.queries.shape[1], nets), folder / WEIGHTS)
    item = {
        "query": "an example",
        "query_embedding": _rounded(test.queries[0]),
        "results": [{"score": 0.0, "embedding": _rounded(one)} for one in test.videos[0]],
    }
    score = _score(kind, nets, item)
    card = card_text(kind, test.videos.shape[1], origin, digest_of(folder / WEIGHTS), item, score)
    (folder / "card.toml").write_text(card, encoding="utf-8")
    print(f"{folder}: {(folder / WEIGHTS).stat().st_size} bytes")
    return folder


def card_text(
    kind: Kind, depth: int, origin: str, digest: str, item: Mapping[str, object], score: float
) -> str:
    """The card. It states no quality, whatever was measured: that is for whoever serves it."""
    trained = origin != GENERATED
    title = "Query performance from a retrieved list, learnt"
    summary = f"Learnt from lists of: {origin}. Nothing is claimed of its quality."
    if not trained:
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
        f"item = {_inline(item)}",
    ]
    return "\n".join(lines) + "\n"


def _score(kind: Kind, nets: Mapping[str, nn.Module], item: Mapping[str, object]) -> float:
    """What the served model gives for the item: computed from the numbers as the card has them."""
    queries, videos = _tensors(item)
    lists = Lists(queries, videos, torch.zeros(0), torch.zeros(0))
    foretold = pair_predictions(nets["pair"], lists) if kind == "pair" else None
    if foretold is None:
        foretold = image_predictions(nets, lists)
    return float(foretold.double().clamp(0, 1).mean())


def _tensors(item: Mapping[str, object]) -> Iterator[Tensor]:
    results = item["results"]
    assert isinstance(results, list)
    for rows in ([item["query_embedding"]], [[one["embedding"] for one in results]]):
        yield nn.functional.normalize(torch.tensor(rows, dtype=torch.float64), dim=-1).float()


def _rounded(vector: Tensor) -> list[float]:
    return [round(value, 4) for value in vector.tolist()]


def _inline(value: object) -> str:
    """A JSON value as an inline value of TOML."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_inline(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(one) for one in value) + "]"
    return json.dumps(value)


def _epoch(net: nn.Module, task: Task, lists: Lists, optimiser: torch.optim.Optimizer) -> None:
    net.train()
    for rows in _batches(torch.randperm(task.rows(lists)), task.batch):
        optimiser.zero_grad()
        torch.autograd.backward(task.loss(net, lists, rows))
        optimiser.step()


@torch.inference_mode()
def _mean_loss(net: nn.Module, task: Task, lists: Lists) -> float:
    net.eval()
    rows = torch.arange(task.rows(lists))
    losses = [float(task.loss(net, lists, part)) * len(part) for part in _batches(rows, task.batch)]
    return sum(losses) / len(rows)


def _batches(rows: Tensor, size: int) -> list[Tensor]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.video_qpp.post_retrieval",
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
