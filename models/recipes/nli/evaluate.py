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
from assay_models.card import Quality
from assay_models.items import NliItem
from recipes.card_check import as_toml, differences, refuse, statistics
from recipes.measure import load_embedded, score_items
from recipes.nli.baselines import Baseline, fit_baselines
from recipes.nli.calibration import Floats, fit_temperature, in_fitting_half, tempered
from recipes.nli.data import LABELS, OPEN_TIERS, TRAINED_SOURCES, Pair, read_pairs
from recipes.nli.figures import (
    Judged,
    accuracy,
    calibration_row,
    entailed_or_not,
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
SEEN = "dev, sources trained on"
UNSEEN = "dev, sources never trained on"
TWO_LABELS = "two labels: neutral and contradicted count as not entailed"


def main() -> None:
    """Measure, print, and with `--check` hold the figures against the card's."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    card, model = load_embedded(arguments.model)
    print(f"{card.id} {model.fingerprint}", flush=True)
    folder = arguments.data / "nli"
    temperature = float(card.options.get("temperature", 1.0))
    if arguments.fit:
        pairs = [pair for pair in read_pairs(folder / "dev.jsonl.gz") if _fits_temperature(pair)]
        _, fitting = judge(model, pairs, {}, "fitting half")
        print(f"temperature = {best_temperature(fitting, temperature)}")
        return
    baselines = fit_baselines(read_pairs(folder / "train.jsonl.gz", OPEN_TIERS))
    scores, dev = judge(model, read_pairs(folder / "dev.jsonl.gz"), baselines, "dev")
    rows = [*dev_rows(dev), *calibration_rows(dev, temperature)]
    rows += diagnostic_rows(model, folder, baselines)
    rows += unrelated_rows(model, dev.pairs)
    command = f"{COMMAND} --model {card.id}"
    rows = [row.model_copy(update={"command": command}) for row in rows]
    reference = statistics(scores)
    best = best_temperature(dev, temperature)
    for row in rows:
        print(_line(row))
    print(f"temperature of lowest log-loss {best}; the card's {temperature}")
    if arguments.toml:
        print("\n" + "\n".join(map(as_toml, rows)))
        print(json.dumps(reference.model_dump(), indent=2))
    if arguments.check:
        refuse(differences(card, rows, reference, TOLERANCE, TOLERANCE * 5))


def judge(
    model: RewardModel, pairs: Sequence[Pair], baselines: dict[str, Baseline], name: str
) -> tuple[list[Score], Judged]:
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
    stated = np.array([[one.channels[label] for label in LABELS] for one in scores])
    trivial = {name: baseline(sorted_pairs) for name, baseline in baselines.items()}
    return scores, Judged(sorted_pairs, stated, trivial)


def dev_rows(dev: Judged) -> Iterator[Quality]:
    """Labels and orders, over all, by whether the source was trained on, and by source."""
    parts = {"dev": dev, SEEN: dev.where(_is_seen), UNSEEN: dev.where(lambda p: not _is_seen(p))}
    for name, part in parts.items():
        yield label_row(part, name, "accuracy", accuracy)
        yield label_row(part, name, "macro F1", macro_f1)
    for worse in ("neutral", "contradiction"):
        yield order_row(dev, "dev", worse)
    for source in sorted({pair.source for pair in dev.pairs}):
        yield label_row(dev.of("source", source), f"dev, {source}", "accuracy", accuracy)


def calibration_rows(dev: Judged, temperature: float) -> Iterator[Quality]:
    """The calibration error before and after the temperature, on premises it was not fitted on."""
    held_out = dev.where(lambda pair: not in_fitting_half(pair.premise))
    for name, part in (
        (SEEN, held_out.where(_is_seen)),
        (UNSEEN, held_out.where(lambda pair: not _is_seen(pair))),
    ):
        before = Judged(part.pairs, tempered(_logits(part, temperature), 1.0), {})
        note = "15 bins; premises that the temperature was not fitted on; lower is better"
        yield calibration_row(before, name, "ECE before temperature", note)
        yield calibration_row(part, name, "ECE", note)


def diagnostic_rows(
    model: RewardModel, folder: Path, baselines: dict[str, Baseline]
) -> Iterator[Quality]:
    """Lexical knowledge, monotonicity, adversarial pairs and small sets of other makers."""
    breaking = _diagnostic(model, folder, baselines, "breaking_nli")
    for label in LABELS:
        part = breaking.of("label", label)
        yield label_row(part, "Breaking NLI", f"recall of {label}", accuracy)
    monotone = _diagnostic(model, folder, baselines, "med")
    yield label_row(monotone, "MED", "accuracy, entailed or not", entailed_or_not)
    adversarial = _diagnostic(model, folder, baselines, "anli_dev")
    note = "CC BY-NC 4.0: for evaluation only, never trained on; made to fool larger models"
    yield label_row(adversarial, "ANLI dev, rounds 1 to 3", "accuracy", accuracy, note)
    small = _diagnostic(model, folder, baselines, "binary_and_small")
    for source, name in (("rte", "RTE"), ("scitail", "SciTail")):
        part = small.of("source", source)
        yield label_row(part, name, "accuracy, entailed or not", entailed_or_not, TWO_LABELS)
    for source, name in (("cb", "CommitmentBank"), ("fracas", "FraCaS")):
        yield label_row(small.of("source", source), name, "accuracy", accuracy)


def unrelated_rows(model: RewardModel, pairs: Sequence[Pair]) -> Iterator[Quality]:
    """Hypotheses under the premise of another pair of their source, which is silent about them."""
    chosen = sorted(pairs, key=lambda pair: (pair.source, pair.hypothesis))[::UNRELATED_STEP]
    turned = [*chosen[1:], chosen[0]]
    strangers = [
        replace(pair, premise=other.premise, label="neutral")
        for pair, other in zip(chosen, turned, strict=True)
        if pair.source == other.source and pair.premise != other.premise
    ]
    judged = judge(model, strangers, {}, "unrelated")[1]
    note = "right is neutral: the premise belongs to another pair of the same source"
    for label in LABELS:
        metric = f"share judged {label}"
        yield label_row(judged, "dev, unrelated premises", metric, share_of(label), note)


def best_temperature(dev: Judged, temperature: float) -> float:
    """The temperature fitted on the fitting half of the sources that were trained on."""
    part = dev.where(_fits_temperature)
    return fit_temperature(_logits(part, temperature), part.labels)


def _diagnostic(
    model: RewardModel, folder: Path, baselines: dict[str, Baseline], name: str
) -> Judged:
    pairs = read_pairs(folder / f"diag_{name}.jsonl.gz")
    known = [pair if pair.label in LABELS else replace(pair, label="neutral") for pair in pairs]
    return judge(model, known, baselines, name)[1]


def _is_seen(pair: Pair) -> bool:
    return pair.source in TRAINED_SOURCES


def _fits_temperature(pair: Pair) -> bool:
    return _is_seen(pair) and in_fitting_half(pair.premise)


def _logits(judged: Judged, temperature: float) -> Floats:
    """The model's logits up to a constant in each row, from its calibrated probabilities."""
    logits: Floats = temperature * np.log(np.maximum(judged.model, 1e-300))
    return logits


def _line(row: Quality) -> str:
    baselines = ", ".join(f"{one.name} {one.value:.3f}" for one in row.baselines)
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
    parser.add_argument("--check", action="store_true", help="fail where the card differs")
    parser.add_argument("--toml", action="store_true", help="print the card's rows too")
    parser.add_argument("--fit", action="store_true", help="only fit the temperature, and stop")
    parser.add_argument("--threads", type=int, default=1, help="threads of the forward pass")
    return parser.parse_args()


if __name__ == "__main__":
    main()
