"""Best-of-n: the candidates of one prompt, scored and ranked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from assay.errors import InvalidRequest
from assay.scoring.ranking import ranking, ties
from assay.scoring.service import ScoreCall, ScoringService
from assay.types import BestOfNReply, RankedCandidate, ScoreReply


@dataclass(frozen=True, slots=True)
class BestOfNCall:
    """One best-of-n request.

    A candidate is the text of the family's varying field, or the fields that differ from `shared`.
    Ranks within `tie_margin` are reported as ties (None: the card's resolution). The server
    abstains if no candidate could be scored, or if the best score is below `abstain_below`. With
    `min_confidence` it also abstains unless its confidence in the best against the next is known
    and no lower, and if the best is tied. The confidence is unknown if a rule decided one of the
    two scores, or if there is no next candidate with a score.
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
    served = service.find(call.score.model, call.score.run, call.score.caller)
    calibration = served.card.calibration
    if call.min_confidence is not None and calibration is None:
        raise InvalidRequest(
            f"{served.card.id} is not calibrated: its card gives no confidence",
            hint="leave min_confidence out; abstain_below takes a score instead",
        )
    reply = await _score(service, call, served.family.candidate)
    places = ranking(reply.results, calibration)
    margin = served.card.resolution if call.tie_margin is None else call.tie_margin
    tied = ties(places, margin)
    best = _best(places, tied, call)
    return BestOfNReply(
        model=reply.model,
        fingerprint=reply.fingerprint,
        best=best,
        ranking=places[: call.top_n],
        ties=tied,
        abstained=best is None,
        results=reply.results,
    )


async def _score(service: ScoringService, call: BestOfNCall, varying: str) -> ScoreReply:
    """Score the candidates; the problems of a refused request name them as the caller sent them."""
    own = [_fields(candidate, varying) for candidate in call.candidates]
    items = [{**call.shared, **fields} for fields in own]
    try:
        return await service.score(replace(call.score, items=items))
    except InvalidRequest as error:
        problems = _rename_fields(error.problems or (), own, call.candidates)
        if not problems:
            raise
        detail = f"{problems[0]['field']}: {problems[0]['problem']}"
        raise InvalidRequest(detail, hint=error.hint, problems=problems) from error


def _rename_fields(
    problems: Sequence[Mapping[str, str]],
    own: Sequence[Mapping[str, Any]],
    candidates: Sequence[str | Mapping[str, Any]],
) -> list[dict[str, str]]:
    """Return the problems of `items.N.field` under `candidates.N.field`, or under `field` if it is
    shared.

    A field is shared if no candidate brings it. Its problem is the same for all, and kept once.
    """
    names = {name for fields in own for name in fields}
    renamed: dict[tuple[str, str], None] = {}
    for problem in problems:
        _, index, *rest = problem["field"].split(".", 2)
        path = "".join(rest)
        if path and not any(path == name or path.startswith(f"{name}.") for name in names):
            field = path
        elif path and not isinstance(candidates[int(index)], str):
            field = f"candidates.{index}.{path}"
        else:
            field = f"candidates.{index}"
        renamed[field, problem["problem"]] = None
    return [{"field": field, "problem": problem} for field, problem in renamed]


def _fields(candidate: str | Mapping[str, Any], varying: str) -> Mapping[str, Any]:
    """Return the fields of a candidate; null leaves the shared field in place."""
    if not isinstance(candidate, Mapping):
        return {varying: candidate}
    return {name: value for name, value in candidate.items() if value is not None}


def _best(
    places: Sequence[RankedCandidate], tied: Sequence[Sequence[int]], call: BestOfNCall
) -> int | None:
    first = places[0]
    if first.score is None:
        return None
    if call.abstain_below is not None and first.score < call.abstain_below:
        return None
    if call.min_confidence is not None:
        is_tied = any(first.index in run for run in tied)
        if is_tied or first.confidence is None or first.confidence < call.min_confidence:
            return None
    return first.index
