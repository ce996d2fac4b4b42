"""Label collapse of checkers: a fixed probe set, scored by every available back-end.

A checker has collapsed when it gives nearly every claim one label, whatever the evidence: the
reward made of it is then as good as constant. The probe set shows that before a run does.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import try_to_load_from_cache

from assay_models.base import Options, RewardModel
from assay_models.card import CardError, ModelCard
from assay_models.items import NliItem
from assay_models.registry import Runtime, family_of
from assay_models.repository import ModelRepository, embedded_root
from assay_monitors.health import FiringRule
from recipes.code.packed_model import load_encoder
from recipes.measure import score_items
from recipes.nli.calibration import Floats
from recipes.nli.data import LABELS
from recipes.nli.studies.log_probability import (
    LogProbabilityScorer,
    by_best_word,
    by_first_word,
)
from recipes.nli.studies.probe_set import Group, digest_of, read_probe_set
from recipes.nli.studies.verdicts import (
    FLAT,
    GATE,
    METRICS,
    Verdicts,
    estimates,
    fired_rules,
    share,
)
from recipes.plots import save_stacked_shares

EXAMPLE = (
    "python -m recipes.nli.studies.collapse --data ../shared/data "
    "--plot docs/images/nli-collapse.svg"
)


def main() -> None:
    """Score the probe set by every back-end, print the table, and draw it."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    groups = read_probe_set(arguments.data)
    sources = ", ".join(dict.fromkeys(group.source for group in groups))
    digest = digest_of(groups)
    print(f"probe set {digest}: {len(groups)} groups of 3 pairs from {sources}", flush=True)
    probabilities = dict(_by_classifiers(groups, [embedded_root(), *arguments.repository]))
    probabilities |= dict(_by_language_model(groups))
    rows = dict(_rows(probabilities))
    _print_table(rows, [group.ids[0] for group in groups])
    if arguments.plot:
        shares = {
            name: [share(verdicts, label) for label in LABELS] for name, verdicts in rows.items()
        }
        save_stacked_shares(arguments.plot, shares, LABELS, "share of claims")
        print(f"drawn: {arguments.plot}")


def by_classifier(model: RewardModel, groups: Sequence[Group]) -> Floats:
    """Return calibrated probabilities as they are served, [groups, claims, labels].

    Raises:
        CardError: the model has other labels than the three.
    """
    items = [
        NliItem(premise=group.evidence, hypothesis=claim)
        for group in groups
        for claim in group.claims
    ]
    scores = score_items(model, items, Options(truncation="right"))
    if set(scores[0].channels) != set(LABELS):
        labels = ", ".join(scores[0].channels)
        raise CardError(f"its labels are {labels}, not the probe set's three")
    rows = [[score.channels[label] for label in LABELS] for score in scores]
    return np.array(rows).reshape(len(groups), -1, len(LABELS))


def _by_classifiers(groups: Sequence[Group], roots: Sequence[Path]) -> Iterator[tuple[str, Floats]]:
    """Yield the probabilities by each card of the family `nli` with weights on this machine."""
    repository = ModelRepository(roots)
    for card in repository.cards():
        if card.family != "nli":
            continue
        try:
            _require_local_weights(card)
            files = repository.locate(repository.find(card.id))
            model = family_of(card).load(card, files, Runtime())
            probabilities = by_classifier(model, groups)
        except CardError as error:
            print(f"left out, {card.id}: {error}", flush=True)
            continue
        print(f"{card.id} {model.fingerprint}", flush=True)
        yield card.id, probabilities


def _require_local_weights(card: ModelCard) -> None:
    """Refuse to download: a study is no reason to fetch gigabytes.

    Raises:
        CardError: the card's weights are the hub's, and not on this machine.
    """
    weights = card.weights
    if weights.source == "hub" and weights.hub is not None:
        found = try_to_load_from_cache(weights.hub, "config.json", revision=weights.revision)
        if not isinstance(found, str):
            raise CardError(f"{card.id}: {weights.hub} is not on this machine")


def _by_language_model(groups: Sequence[Group]) -> Iterator[tuple[str, Floats]]:
    """Yield the probabilities by log-probabilities: by one word a label, by the best of three, and
    by the best of three less the prior."""
    scorer = LogProbabilityScorer.of_backbone(load_encoder())
    means, prior = scorer.means(groups), scorer.prior()
    yield "log-probability, one word", by_first_word(means)
    yield "log-probability, best of three", by_best_word(means)
    yield "log-probability, less its prior", by_best_word(means - prior)


def _rows(probabilities: dict[str, Floats]) -> Iterator[tuple[str, Verdicts]]:
    for name, values in probabilities.items():
        yield name, Verdicts.from_probabilities(values)
        yield f"{name}, gate {GATE}", Verdicts.from_probabilities(values, GATE)


def _print_table(rows: dict[str, Verdicts], names: Sequence[str]) -> None:
    """Print the table as Markdown."""
    head = ["back-end", "entailment / neutral / contradiction", *METRICS, "rules that fire"]
    print("| " + " | ".join(head) + " |")
    print("| --- " * len(head) + "|")
    for name, verdicts in rows.items():
        shares = " / ".join(f"{share(verdicts, label):.3f}" for label in LABELS)
        cells = [
            f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]"
            for _, estimate in estimates(verdicts)
        ]
        fired = "; ".join(map(_describe, fired_rules(verdicts, names))) or "none"
        print("| " + " | ".join([name, shares, *cells, fired]) + " |", flush=True)
    print(f"a group is flat where the standard deviation of phi is below {FLAT}")


def _describe(rule: FiringRule) -> str:
    finding = rule.finding
    about = f" ({', '.join(finding.about)})" if finding.about else ""
    values = f"{finding.value:.3f} from {finding.threshold}"
    return f"`{rule.rule}` {finding.severity}: {values}{about}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.nli.studies.collapse",
        description=__doc__,
        epilog=f"example: {EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds nli/")
    parser.add_argument(
        "--repository",
        type=Path,
        action="append",
        default=[],
        help="a folder of cards besides the embedded ones; those of the family nli are scored too",
    )
    parser.add_argument("--plot", type=Path, help="where to draw the labels, as SVG")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of the models (1)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
