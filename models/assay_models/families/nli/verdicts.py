"""From the logits of an item's pairs to its verdicts, phi and channels, as pure functions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from assay_models.base import Options, Prepared, Raw, Score
from assay_models.families.nli.chunking import Chunk
from assay_models.families.nli.claims import WEIGHTS, ClaimVerdict, label_shares, phi
from assay_models.families.nli.gaming_signals import GamingSignals
from assay_models.families.nli.label_mapping import LabelMapping
from assay_models.items import Label
from assay_models.shaping import log_odds, probabilities

LOW_CONFIDENCE = "low_confidence"
MIN_CONFIDENCE = "min_confidence"
WEIGHT = "weights."
_CHANNELS: Mapping[Label, str] = {"entailment": "support"}

Probabilities = dict[Label, float]


@dataclass(frozen=True, slots=True)
class ClassifiedClaims:
    """The claims and chunks of one item that its raws belong to.

    Attributes:
        claims: for each its name, and the chunks it is compared with, in the order of the raws.
        unread: names of claims that are not classified, because of their language.
        characters: of the evidence.
        signals: measures of the answer.
    """

    claims: tuple[tuple[Mapping[str, Any], tuple[Chunk, ...]], ...]
    unread: tuple[Mapping[str, Any], ...]
    characters: int
    signals: GamingSignals


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """The verdict on one claim and its report.

    `deciding_chunk` is the chunk that decided, where it entails or contradicts. `is_disputed` says
    that another chunk confidently says the contrary.
    """

    verdict: ClaimVerdict
    report: dict[str, Any]
    _: KW_ONLY
    is_confident: bool
    is_disputed: bool
    deciding_chunk: Chunk | None


@dataclass(frozen=True, slots=True)
class ClaimScorer:
    """The way from logits to scores: label mapping, temperature, and the least confidence."""

    mapping: LabelMapping
    temperature: float
    min_confidence: float

    def score_pair(self, prepared: Prepared, raw: Raw, options: Options) -> Score:
        """Return the log-odds of entailment, and the label of one pair."""
        logits = self.mapping.logits(raw)
        tempered = [logit / self.temperature for logit in logits]
        odds, score = log_odds(logits, 0), log_odds(tempered, 0)
        by_label = dict(zip(self.mapping.labels, probabilities(tempered), strict=True))
        label = _most_probable(by_label)
        is_confident = by_label[label] >= self._min_confidence(options)
        details = {
            **prepared.details,
            "label": label,
            "status": "ok" if is_confident else LOW_CONFIDENCE,
            "probabilities": by_label,
        }
        return Score(
            odds if options.raw else score,
            odds,
            channels=dict(by_label.items()),
            flags=prepared.flags if is_confident else (*prepared.flags, LOW_CONFIDENCE),
            details=details,
        )

    def score_claims(self, prepared: Prepared, raws: Sequence[Raw], options: Options) -> Score:
        """Return phi of all claims, and the report on each."""
        classified: ClassifiedClaims = prepared.state
        rows = iter([self._probabilities(raw) for raw in raws])
        threshold = self._min_confidence(options)
        results = [
            decide([next(rows) for _ in chunks], chunks, threshold)
            for _, chunks in classified.claims
        ]
        mean = phi([result.verdict for result in results], {**WEIGHTS, **_weights(options)})
        details = {
            "claims": _reports(classified, results),
            "low_confidence_claims": sum(not result.is_confident for result in results),
            "chunks": len({chunk for _, chunks in classified.claims for chunk in chunks}),
            "gaming_signals": classified.signals.to_dict(),
            **prepared.details,
        }
        return Score(
            mean.unclipped if options.raw else mean.clipped,
            mean.unclipped,
            channels={"phi": mean.clipped, **self._channels(results, classified)},
            flags=(*prepared.flags, *_flags(results)),
            details=details,
        )

    def _probabilities(self, raw: Raw) -> Probabilities:
        logits = [logit / self.temperature for logit in self.mapping.logits(raw)]
        return dict(zip(self.mapping.labels, probabilities(logits), strict=True))

    def _channels(
        self, results: Sequence[ClaimResult], classified: ClassifiedClaims
    ) -> dict[str, float]:
        """Compute the shares of all classified claims; those without confidence have no label."""
        labels = self.mapping.labels
        confident = [result for result in results if result.is_confident]
        shares = dict.fromkeys(labels, 0.0)
        if confident:
            shares = label_shares([result.verdict for result in confident], labels)
        confident_share = len(confident) / len(results)
        deciding = {result.deciding_chunk for result in confident}
        used = _characters(chunk for chunk in deciding if chunk is not None)
        return {
            **{_CHANNELS.get(label, label): shares[label] * confident_share for label in labels},
            "coverage": used / classified.characters,
            "claims": float(len(results)),
            "evidence_overlap": classified.signals.overlap,
        }

    def _min_confidence(self, options: Options) -> float:
        return dict(options.numbers).get(MIN_CONFIDENCE, self.min_confidence)


def decide(
    by_chunk: Sequence[Probabilities], chunks: Sequence[Chunk], min_confidence: float
) -> ClaimResult:
    """Return the verdict on one claim, from the chunk that decides it.

    A chunk that entails decides before one that contradicts, and that before one that is neutral:
    among retrieved passages most have nothing to do with the claim, and a model that learnt from
    captions is quick to call those a contradiction. Among several of a kind the most confident one
    decides.

    Args:
        by_chunk: the probabilities under each chunk.
        chunks: the places of these.
        min_confidence: the probability from which a label is confident.
    """
    decisive = max(range(len(by_chunk)), key=lambda index: _decisiveness(by_chunk[index]))
    label = _most_probable(by_chunk[decisive])
    verdict = ClaimVerdict(label, by_chunk[decisive][label])
    is_confident = verdict.confidence >= min_confidence
    report: dict[str, Any] = {
        "status": "ok" if is_confident else LOW_CONFIDENCE,
        "label": verdict.label,
        "confidence": verdict.confidence,
        "passage": chunks[decisive].passage,
        "chunk": {"start": chunks[decisive].start, "end": chunks[decisive].end},
        "probabilities": by_chunk[decisive],
        **_extremes(by_chunk, chunks),
    }
    confident_labels = {
        _most_probable(row) for row in by_chunk if max(row.values()) >= min_confidence
    }
    return ClaimResult(
        verdict,
        report,
        is_confident=is_confident,
        is_disputed={"entailment", "contradiction"} <= confident_labels,
        deciding_chunk=chunks[decisive] if label in ("entailment", "contradiction") else None,
    )


def _extremes(by_chunk: Sequence[Probabilities], chunks: Sequence[Chunk]) -> dict[str, Any]:
    extremes = {"best_supported": _extreme(by_chunk, chunks, "entailment")}
    if "contradiction" in by_chunk[0]:
        extremes["worst_contradicted"] = _extreme(by_chunk, chunks, "contradiction")
    return extremes


def _extreme(
    by_chunk: Sequence[Probabilities], chunks: Sequence[Chunk], label: Label
) -> dict[str, Any]:
    highest = max(range(len(by_chunk)), key=lambda index: by_chunk[index][label])
    return {**chunks[highest]._asdict(), label: by_chunk[highest][label]}


def _decisiveness(row: Probabilities) -> tuple[int, float]:
    label = _most_probable(row)
    if label in ("entailment", "contradiction"):
        return (2 if label == "entailment" else 1), row[label]
    return 0, -row[label]


def _most_probable(row: Probabilities) -> Label:
    return max(row, key=lambda label: row[label])


def _weights(options: Options) -> dict[Label, float]:
    numbers = dict(options.numbers)
    return {label: numbers[WEIGHT + label] for label in WEIGHTS if WEIGHT + label in numbers}


def _reports(classified: ClassifiedClaims, results: Sequence[ClaimResult]) -> list[dict[str, Any]]:
    reports = [
        {**name, **result.report}
        for (name, _), result in zip(classified.claims, results, strict=True)
    ]
    reports += [{**name, "status": "unsupported_language"} for name in classified.unread]
    return sorted(reports, key=lambda report: report["index"])


def _flags(results: Sequence[ClaimResult]) -> list[str]:
    conditions = {
        LOW_CONFIDENCE: any(not result.is_confident for result in results),
        "disputed_evidence": any(result.is_disputed for result in results),
    }
    return [name for name, holds in conditions.items() if holds]


def _characters(chunks: Iterable[Chunk]) -> int:
    """Count the characters that lie in any of these chunks."""
    total, passage, reached = 0, -1, 0
    for chunk in sorted(chunks):
        if chunk.passage != passage:
            passage, reached = chunk.passage, 0
        total += max(0, chunk.end - max(chunk.start, reached))
        reached = max(reached, chunk.end)
    return total
