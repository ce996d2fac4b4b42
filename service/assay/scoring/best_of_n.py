"""Best-of-n: the candidates of one prompt, scored and ranked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from assay.errors import InvalidRequest
from assay.scoring.ranking import ranking, ties
from assay.scoring.service import ScoreCall, ScoringService
from assay.types import BestOfNReply, RankedCandidate


@dataclass(frozen=True, slots=True)
class BestOfNCall:
    """One best-of-n request.

    A candidate is the text of the family's varying field, or the fields that differ from `shared`.
    Ranks within `tie_margin` are reported as ties (None: the card's resolution). The server
    abstains if the best score is below `abstain_below`, if its confidence in the best against the
    next is known and below `min_confidence`, or if no candidate could be scored.
    """

    score: ScoreCall
    candidates: Sequence[str | Mapping[str, Any]]
    shared: Mapping[str, Any]
    top_n: int | None = None
    tie_margin: float | None = None
    abstain_below: float | None = None
    min_confidence: float | None = None


async def best_of_n(service: ScoringService, call: BestOfNCall) -> BestOfNReply:
    """Rank the candidates of one prompt; those that could not be scored come last.

    Raises:
        InvalidRequest: the model is not calibrated, and the request needs its confidence.
        AssayError: see `ScoringService.score`.
    """
    served = service.find(call.score.model)
    calibration = served.card.calibration
    if call.min_confidence is not None and calibration is None:
        raise InvalidRequest(
            f"{served.card.id} is not calibrated: its card gives no confidence",
            hint="leave min_confidence out; abstain_below takes a score instead",
        )
    varying = served.family.candidate
    items = [{**call.shared, **_fields(candidate, varying)} for candidate in call.candidates]
    reply = await service.score(replace(call.score, items=items))
    places = ranking(reply.results, calibration)
    margin = served.card.resolution if call.tie_margin is None else call.tie_margin
    best = _best(places, call)
    return BestOfNReply(
        model=reply.model,
        fingerprint=reply.fingerprint,
        best=best,
        ranking=places[: call.top_n],
        ties=ties(places, margin),
        abstained=best is None,
        results=reply.results,
    )


def _fields(candidate: str | Mapping[str, Any], varying: str) -> Mapping[str, Any]:
    """Return the fields of a candidate; null leaves the shared field in place."""
    if not isinstance(candidate, Mapping):
        return {varying: candidate}
    return {name: value for name, value in candidate.items() if value is not None}


def _best(places: Sequence[RankedCandidate], call: BestOfNCall) -> int | None:
    first = places[0]
    if first.score is None or _is_below(first.score, call.abstain_below):
        return None
    return None if _is_below(first.confidence, call.min_confidence) else first.index


def _is_below(value: float | None, minimum: float | None) -> bool:
    return value is not None and minimum is not None and value < minimum
