"""Which checkers still tell claims apart? A frozen bank, scored by every back-end at hand.

A checker has collapsed when it gives nearly every claim one label, whatever the evidence: the
reward made of it is then as good as constant. The bank shows that before a run does.
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
from assay_monitors.health import Alert
from recipes.code.packed import encoder
from recipes.measure import score_items
from recipes.nli.bank import Group, digest_of, read_bank
from recipes.nli.calibration import Floats
from recipes.nli.data import LABELS
from recipes.nli.logprob import LogProbability, best_of_three, fast
from recipes.nli.verdicts import FLAT, GATE, MEASURES, Verdicts, diagnosis, figures, share
from recipes.plots import save_shares

EXAMPLE = "python -m recipes.nli.collapse --data ../shared/data --plot docs/images/nli-collapse.svg"


def main() -> None:
    """Score the bank by every back-end, print the table, and draw it."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    bank = read_bank(arguments.data)
    sources = ", ".join(dict.fromkeys(group.source for group in bank))
    print(f"bank {digest_of(bank)}: {len(bank)} groups of 3 pairs from {sources}", flush=True)
    judged = dict(_classifiers(bank, [embedded_root(), *arguments.repository]))
    judged |= dict(_language_model(bank))
    rows = dict(_rows(judged))
    names = [group.ids[0] for group in bank]
    _tell(rows, names)
    if arguments.plot:
        shares = {name: [share(one, label) for label in LABELS] for name, one in rows.items()}
        save_shares(arguments.plot, shares, LABELS, "share of claims")
        print(f"drawn: {arguments.plot}")


def by_classifier(model: RewardModel, bank: Sequence[Group]) -> Floats:
    """Calibrated probabilities as they are served, [groups, claims, labels].

    Raises:
        CardError: the model has other labels than the three.
    """
    items = [
        NliItem(premise=group.evidence, hypothesis=claim)
        for group in bank
        for claim in group.claims
    ]
    scores = score_items(model, items, Options(truncation="right"))
    if set(scores[0].channels) != set(LABELS):
        raise CardError(f"its labels are {', '.join(scores[0].channels)}, not the bank's three")
    rows = [[one.channels[label] for label in LABELS] for one in scores]
    return np.array(rows).reshape(len(bank), -1, len(LABELS))


def _classifiers(bank: Sequence[Group], roots: Sequence[Path]) -> Iterator[tuple[str, Floats]]:
    """By each card of the family `nli` whose weights are on this machine."""
    repository = ModelRepository(roots)
    for card in repository.cards():
        if card.family != "nli":
            continue
        try:
            _refuse_to_download(card)
            files = repository.locate(repository.find(card.id))
            model = family_of(card).load(card, files, Runtime())
            judged = by_classifier(model, bank)
        except CardError as error:
            print(f"left out, {card.id}: {error}", flush=True)
            continue
        print(f"{card.id} {model.fingerprint}", flush=True)
        yield card.id, judged


def _refuse_to_download(card: ModelCard) -> None:
    """A bench is no reason to fetch gigabytes.

    Raises:
        CardError: the card's weights are the hub's, and not on this machine.
    """
    weights = card.weights
    if weights.source == "hub" and weights.hub is not None:
        found = try_to_load_from_cache(weights.hub, "config.json", revision=weights.revision)
        if not isinstance(found, str):
            raise CardError(f"{card.id}: {weights.hub} is not on this machine")


def _language_model(bank: Sequence[Group]) -> Iterator[tuple[str, Floats]]:
    """By log-probabilities: one word a label, the best of three, and that less what it says of
    nothing at all."""
    model = LogProbability.of_backbone(encoder())
    means, prior = model.means(bank), model.prior()
    yield "log-probability, one word", fast(means)
    yield "log-probability, best of three", best_of_three(means)
    yield "log-probability, less its prior", best_of_three(means - prior)


def _rows(judged: dict[str, Floats]) -> Iterator[tuple[str, Verdicts]]:
    for name, probabilities in judged.items():
        yield name, Verdicts.of(probabilities)
        yield f"{name}, gate {GATE}", Verdicts.of(probabilities, GATE)


def _tell(rows: dict[str, Verdicts], names: Sequence[str]) -> None:
    """Print the table as Markdown."""
    head = ["back-end", "entailment / neutral / contradiction", *MEASURES, "rules that fire"]
    print("| " + " | ".join(head) + " |")
    print("| --- " * len(head) + "|")
    for name, verdicts in rows.items():
        shares = " / ".join(f"{share(verdicts, label):.3f}" for label in LABELS)
        cells = [
            f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"
            for _, found in figures(verdicts)
        ]
        fired = "; ".join(map(_said, diagnosis(verdicts, names))) or "none"
        print("| " + " | ".join([name, shares, *cells, fired]) + " |", flush=True)
    print(f"a group is flat where the standard deviation of phi is below {FLAT}")


def _said(alert: Alert) -> str:
    found = alert.finding
    about = f" ({', '.join(found.about)})" if found.about else ""
    return f"`{alert.rule}` {found.severity}: {found.value:.3f} from {found.threshold}{about}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipes.nli.collapse",
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
