"""Measure `nli` and `nli-small`, as they are served, on held-out pairs and on diagnostics.

Example:
    python -m recipes.nli.evaluate --data ../shared/data --check
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from assay_models.base import Options, RewardModel, Score
from assay_models.card import ModelCard, Quality
from assay_models.items import NliItem
from recipes.card_check import as_toml, differences, exit_on, statistics
from recipes.measure import load_model, score_items
from recipes.nli.baselines import Baseline, fit_baselines
from recipes.nli.calibration import Floats, fit_temperature, in_fitting_half, scale_by_temperature
from recipes.nli.data import LABELS, OPEN_TIERS, TRAINED_SOURCES, Pair, read_pairs
from recipes.nli.metrics import (
    Predictions,
    accuracy,
    binary_accuracy,
    calibration_row,
    label_row,
    macro_f1,
    order_row,
    share_of,
)

COMMAND = "python -m recipes.nli.evaluate --data ../shared/data"
MODELS = ("nli@2", "nli-small@1")
TOLERANCE = 0.002
CHUNK = 1_000
UNRELATED_STEP = 5
TRAINED = "dev, sources trained on"
NEVER_TRAINED = "dev, sources never trained on"
TWO_LABELS = "two labels: neutral and contradicted count as not entailed"


def main() -> None:
    """Measure, print, and with `--check` compare the figures with the card's."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    card, model = load_model(arguments.model, arguments.repository)
    print(f"{card.id} {model.fingerprint}", flush=True)
    folder = arguments.data / "nli"
    temperature = float(card.options.get("temperature", 1.0))
    if arguments.fit:
        pairs = [pair for pair in read_pairs(folder / "dev.jsonl.gz") if _fits_temperature(pair)]
        _, fitting = predict(model, pairs, {}, "fitting half")
        print(f"temperature = {best_temperature(fitting, temperature)}")
        return
    rows, scores, dev = measure(card, model, folder, temperature)
    reference = statistics(scores)
    best = best_temperature(dev, temperature)
    for row in rows:
        print(_line(row))
    print(f"temperature of lowest log-loss {best}; the card's {temperature}")
    if arguments.toml:
        print("\n" + "\n".join(map(as_toml, rows)))
        print(json.dumps(reference.model_dump(), indent=2))
    if arguments.check:
        found = differences(
            card,
            rows,
            reference=reference,
            tolerance=TOLERANCE,
            reference_tolerance=TOLERANCE * 5,
        )
        exit_on(found)


def measure(
    card: ModelCard, model: RewardModel, folder: Path, temperature: float
) -> tuple[list[Quality], list[Score], Predictions]:
    """Measure every row of the card; return them with the scores and predictions on the dev set."""
    baselines = fit_baselines(read_pairs(folder / "train.jsonl.gz", OPEN_TIERS))
    scores, dev = predict(model, read_pairs(folder / "dev.jsonl.gz"), baselines, "dev")
    rows = [*dev_rows(dev), *calibration_rows(dev, temperature)]
    rows += diagnostic_rows(model, folder, baselines)
    rows += unrelated_rows(model, dev.pairs)
    command = f"{COMMAND} --model {card.id}"
    return [row.model_copy(update={"command": command}) for row in rows], scores, dev


def predict(
    model: RewardModel, pairs: Sequence[Pair], baselines: dict[str, Baseline], name: str
) -> tuple[list[Score], Predictions]:
    """Score pairs the way the service does; over-long premises are cut at the right."""
    started = time.monotonic()
    scores: list[Score] = []
    order = sorted(range(len(pairs)), key=lambda at: len(pairs[at].premise))
    for start in range(0, len(order), CHUNK):
        items = [
            NliItem(premise=pairs[at].premise, hypothesis=pairs[at].hypothesis)
            for at in order[start : start + CHUNK]
        ]
        scores += score_items(model, items, Options(truncation="right"))
        passed = time.monotonic() - started
        left = passed / len(scores) * (len(pairs) - len(scores))
        print(f"  {name}: {len(scores)}/{len(pairs)} pairs, {left:.0f} s left", flush=True)
    sorted_pairs = tuple(pairs[at] for at in order)
    probabilities = np.array([[score.channels[label] for label in LABELS] for score in scores])
    trivial = {name: baseline(sorted_pairs) for name, baseline in baselines.items()}
    return scores, Predictions(sorted_pairs, probabilities, trivial)


def dev_rows(dev: Predictions) -> Iterator[Quality]:
    """Yield labels and orders, over all, by whether the source was trained on, and by source."""
    parts = {
        "dev": dev,
        TRAINED: dev.where(_is_trained_source),
        NEVER_TRAINED: dev.where(lambda pair: not _is_trained_source(pair)),
    }
    for name, part in parts.items():
        yield label_row(part, name, metric="accuracy", statistic=accuracy)
        yield label_row(part, name, metric="macro F1", statistic=macro_f1)
    for worse in ("neutral", "contradiction"):
        yield order_row(dev, "dev", worse)
    for source in sorted({pair.source for pair in dev.pairs}):
        part = dev.with_field("source", source)
        yield label_row(part, f"dev, {source}", metric="accuracy", statistic=accuracy)


def calibration_rows(dev: Predictions, temperature: float) -> Iterator[Quality]:
    """Yield the calibration error before and after the temperature, on premises it was not fitted
    on."""
    held_out = dev.where(lambda pair: not in_fitting_half(pair.premise))
    for name, part in (
        (TRAINED, held_out.where(_is_trained_source)),
        (NEVER_TRAINED, held_out.where(lambda pair: not _is_trained_source(pair))),
    ):
        unscaled = scale_by_temperature(_logits(part, temperature), 1.0)
        before = Predictions(part.pairs, unscaled, {})
        note = "15 bins; premises that the temperature was not fitted on; lower is better"
        yield calibration_row(before, name, "ECE before temperature", note)
        yield calibration_row(part, name, "ECE", note)


def diagnostic_rows(
    model: RewardModel, folder: Path, baselines: dict[str, Baseline]
) -> Iterator[Quality]:
    """Yield rows on lexical knowledge, monotonicity, adversarial pairs and small other sets."""
    breaking = _predict_diagnostic(model, folder, baselines, "breaking_nli")
    for label in LABELS:
        part = breaking.with_field("label", label)
        yield label_row(part, "Breaking NLI", metric=f"recall of {label}", statistic=accuracy)
    binary_metric = "accuracy, entailed or not"
    monotone = _predict_diagnostic(model, folder, baselines, "med")
    yield label_row(monotone, "MED", metric=binary_metric, statistic=binary_accuracy)
    adversarial = _predict_diagnostic(model, folder, baselines, "anli_dev")
    note = "CC BY-NC 4.0: for evaluation only, never trained on; made to fool larger models"
    name = "ANLI dev, rounds 1 to 3"
    yield label_row(adversarial, name, metric="accuracy", statistic=accuracy, note=note)
    small = _predict_diagnostic(model, folder, baselines, "binary_and_small")
    for source, name in (("rte", "RTE"), ("scitail", "SciTail")):
        part = small.with_field("source", source)
        yield label_row(
            part, name, metric=binary_metric, statistic=binary_accuracy, note=TWO_LABELS
        )
    for source, name in (("cb", "CommitmentBank"), ("fracas", "FraCaS")):
        part = small.with_field("source", source)
        yield label_row(part, name, metric="accuracy", statistic=accuracy)


def unrelated_rows(model: RewardModel, pairs: Sequence[Pair]) -> Iterator[Quality]:
    """Yield rows on hypotheses under the premise of another pair of their source.

    The premise is silent about them, so neutral is right.
    """
    drawn = sorted(pairs, key=lambda pair: (pair.source, pair.hypothesis))[::UNRELATED_STEP]
    unrelated = [
        replace(pair, premise=other.premise, label="neutral")
        for pair, other in zip(drawn, [*drawn[1:], drawn[0]], strict=True)
        if pair.source == other.source and pair.premise != other.premise
    ]
    predictions = predict(model, unrelated, {}, "unrelated")[1]
    note = "right is neutral: the premise belongs to another pair of the same source"
    for label in LABELS:
        yield label_row(
            predictions,
            "dev, unrelated premises",
            metric=f"share classified as {label}",
            statistic=share_of(label),
            note=note,
        )


def best_temperature(dev: Predictions, temperature: float) -> float:
    """Return the temperature fitted on the fitting half of the sources that were trained on."""
    part = dev.where(_fits_temperature)
    return fit_temperature(_logits(part, temperature), part.labels)


def _predict_diagnostic(
    model: RewardModel, folder: Path, baselines: dict[str, Baseline], name: str
) -> Predictions:
    pairs = read_pairs(folder / f"diag_{name}.jsonl.gz")
    known = [pair if pair.label in LABELS else replace(pair, label="neutral") for pair in pairs]
    return predict(model, known, baselines, name)[1]


def _is_trained_source(pair: Pair) -> bool:
    return pair.source in TRAINED_SOURCES


def _fits_temperature(pair: Pair) -> bool:
    return _is_trained_source(pair) and in_fitting_half(pair.premise)


def _logits(predictions: Predictions, temperature: float) -> Floats:
    """Return the model's logits up to a constant in each row, from its calibrated probabilities."""
    logits: Floats = temperature * np.log(np.maximum(predictions.model, 1e-300))
    return logits


def _line(row: Quality) -> str:
    baselines = ", ".join(f"{baseline.name} {baseline.value:.3f}" for baseline in row.baselines)
    interval = f"{row.value:.3f} [{row.low:.3f}, {row.high:.3f}]"
    return f"{row.dataset:42} {row.metric:52} {interval} n={row.n}  {baselines}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.nli.evaluate",
        description="Measure nli or nli-small on held-out pairs and on diagnostics.",
        epilog="example: python -m recipes.nli.evaluate --data ../shared/data --check",
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds nli/")
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument(
        "--repository", type=Path, help="a folder of models whose models replace embedded ones"
    )
    parser.add_argument("--check", action="store_true", help="fail where the card differs")
    parser.add_argument("--toml", action="store_true", help="print the card's rows too")
    parser.add_argument("--fit", action="store_true", help="only fit the temperature, and stop")
    parser.add_argument("--threads", type=int, default=1, help="threads of the forward pass")
    return parser.parse_args()


if __name__ == "__main__":
    main()
