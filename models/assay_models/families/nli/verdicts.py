"""From the logits of an item's pairs to its verdicts, phi and channels. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from assay_models.base import Options, Prepared, Raw, Score
from assay_models.families.nli.chunking import Chunk
from assay_models.families.nli.claims import WEIGHTS, Verdict, phi, shares
from assay_models.families.nli.gaming_signals import Guards
from assay_models.families.nli.label_mapping import Reading
from assay_models.items import Label
from assay_models.shaping import log_odds, probabilities

LOW = "low_confidence"
MIN_CONFIDENCE = "min_confidence"
WEIGHT = "weights."
_CHANNELS: Mapping[Label, str] = {"entailment": "support"}

Named = dict[Label, float]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the raws of one item answer.

    Attributes:
        claims: of each the names, and the chunks it was held against, in the order of the raws.
        unread: names of claims that were not judged, because of their language.
        characters: of the evidence.
        guards: measures of the answer.
    """

    claims: tuple[tuple[Mapping[str, Any], tuple[Chunk, ...]], ...]
    unread: tuple[Mapping[str, Any], ...]
    characters: int
    guards: Guards


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict on one claim and the account of it.

    `used` is the chunk that decided, where it entails or contradicts; `disputed` says that another
    one surely says the contrary.
    """

    verdict: Verdict
    sure: bool
    account: dict[str, Any]
    used: Chunk | None
    disputed: bool


@dataclass(frozen=True, slots=True)
class Judge:
    """How logits become verdicts: their names, the temperature, and when a label is sure."""

    reading: Reading
    temperature: float
    min_confidence: float

    def pair(self, prepared: Prepared, raw: Raw, options: Options) -> Score:
        """Log-odds of entailment, and the label of one pair."""
        logits = self.reading.logits(raw)
        tempered = [logit / self.temperature for logit in logits]
        odds, score = log_odds(logits, 0), log_odds(tempered, 0)
        named = dict(zip(self.reading.labels, probabilities(tempered), strict=True))
        label = _highest(named)
        sure = named[label] >= self._least(options)
        details = {
            **prepared.details,
            "label": label,
            "status": "ok" if sure else LOW,
            "probabilities": named,
        }
        flags = prepared.flags if sure else (*prepared.flags, LOW)
        channels: dict[str, float] = dict(named.items())
        return Score(odds if options.raw else score, odds, channels, flags, details)

    def claims(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> Score:
        """Phi of all claims, and the account of each."""
        asked: Asked = prepared.state
        rows = iter([self._named(raw) for raw in raws])
        least = self._least(options)
        judged, told = [], []
        for name, chunks in asked.claims:
            one = judge([next(rows) for _ in chunks], chunks, least)
            judged.append(one)
            told.append({**name, **one.account})
        told += [{**name, "status": "unsupported_language"} for name in asked.unread]
        verdicts = [one.verdict for one in judged]
        found = phi(verdicts, {**WEIGHTS, **_weights(options)})
        details = {
            "claims": sorted(told, key=lambda one: one["index"]),
            "low_confidence_claims": sum(not one.sure for one in judged),
            "chunks": len({chunk for _, chunks in asked.claims for chunk in chunks}),
            "guards": asked.guards.told(),
            **prepared.details,
        }
        channels = {"phi": found.clipped, **self._channels(judged, asked)}
        flags = (*prepared.flags, *_signs(judged))
        served = found.unclipped if options.raw else found.clipped
        return Score(served, found.unclipped, channels, flags, details)

    def _named(self, raw: Raw) -> Named:
        logits = [logit / self.temperature for logit in self.reading.logits(raw)]
        return dict(zip(self.reading.labels, probabilities(logits), strict=True))

    def _channels(self, judged: Sequence[Judged], asked: Asked) -> dict[str, float]:
        """Shares of all judged claims; those without confidence are under no label."""
        labels = self.reading.labels
        sure = [one.verdict for one in judged if one.sure]
        parts = shares(sure, labels) if sure else dict.fromkeys(labels, 0.0)
        part = len(sure) / len(judged)
        used = _characters({one.used for one in judged if one.used is not None and one.sure})
        return {
            **{_CHANNELS.get(label, label): parts[label] * part for label in labels},
            "coverage": used / asked.characters,
            "claims": float(len(judged)),
            "evidence_overlap": asked.guards.overlap,
        }

    def _least(self, options: Options) -> float:
        return dict(options.numbers).get(MIN_CONFIDENCE, self.min_confidence)


def judge(held: Sequence[Named], chunks: Sequence[Chunk], least: float) -> Judged:
    """The verdict on one claim, from the chunk that decides it.

    A chunk that entails decides before one that contradicts, and that before one that is neutral:
    among retrieved passages most have nothing to do with the claim, and a model that learnt from
    captions is quick to call those a contradiction. Among several of a kind the surest decides.

    Args:
        held: the probabilities under each chunk.
        chunks: where these lie.
        least: the confidence from which a label is sure.
    """
    decisive = max(range(len(held)), key=lambda at: _decisiveness(held[at]))
    label = _highest(held[decisive])
    verdict = Verdict(label, held[decisive][label])
    sure = verdict.confidence >= least
    chunk = chunks[decisive]
    account: dict[str, Any] = {
        "status": "ok" if sure else LOW,
        "label": verdict.label,
        "confidence": verdict.confidence,
        "passage": chunk.passage,
        "chunk": {"start": chunk.start, "end": chunk.end},
        "probabilities": held[decisive],
        "best_supported": _extreme(held, chunks, "entailment"),
    }
    if "contradiction" in held[decisive]:
        account["worst_contradicted"] = _extreme(held, chunks, "contradiction")
    surely = {_highest(named) for named in held if max(named.values()) >= least}
    decides = label in ("entailment", "contradiction")
    return Judged(
        verdict,
        sure,
        account,
        chunk if decides else None,
        {"entailment", "contradiction"} <= surely,
    )


def _extreme(held: Sequence[Named], chunks: Sequence[Chunk], label: Label) -> dict[str, Any]:
    most = max(range(len(held)), key=lambda at: held[at][label])
    return {**chunks[most]._asdict(), label: held[most][label]}


def _decisiveness(named: Named) -> tuple[int, float]:
    label = _highest(named)
    if label in ("entailment", "contradiction"):
        return (2 if label == "entailment" else 1), named[label]
    return 0, -named[label]


def _highest(named: Named) -> Label:
    return max(named, key=lambda label: named[label])


def _weights(options: Options) -> dict[Label, float]:
    numbers = dict(options.numbers)
    return {label: numbers[WEIGHT + label] for label in WEIGHTS if WEIGHT + label in numbers}


def _signs(judged: Iterable[Judged]) -> list[str]:
    judged = list(judged)
    signs = {
        LOW: any(not one.sure for one in judged),
        "disputed_evidence": any(one.disputed for one in judged),
    }
    return [name for name, holds in signs.items() if holds]


def _characters(chunks: Iterable[Chunk]) -> int:
    """How many characters lie in any of these."""
    total, passage, reached = 0, -1, 0
    for chunk in sorted(chunks):
        if chunk.passage != passage:
            passage, reached = chunk.passage, 0
        total += max(0, chunk.end - max(chunk.start, reached))
        reached = max(reached, chunk.end)
    return total
