"""Best-of-n: the candidates of one prompt, scored and ranked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from assay.groups import ranking, ties
from assay.results import BestOfNReply, Ranked
from assay.scoring import ScoreCall, ScoringService


@dataclass(frozen=True, slots=True)
class BestOfNCall:
    """What a protocol asks for.

    A candidate is the text of the family's varying field, or the fields that differ from `shared`.
    Ranks within `tie_margin` are reported as ties (None: the card's resolution). The server
    abstains where the best score is below `abstain_below`, or nothing could be scored.
    """

    score: ScoreCall
    candidates: Sequence[str | Mapping[str, Any]]
    shared: Mapping[str, Any]
    top_n: int | None = None
    tie_margin: float | None = None
    abstain_below: float | None = None


async def best_of_n(service: ScoringService, call: BestOfNCall) -> BestOfNReply:
    """Rank the candidates of one prompt; one that could not be scored comes last, marked.

    Raises:
        AssayError: as `ScoringService.score` does.
    """
    served = service.find(call.score.model)
    varying = served.family.candidate
    items = [
        {**call.shared, **(candidate if isinstance(candidate, Mapping) else {varying: candidate})}
        for candidate in call.candidates
    ]
    reply = await service.score(replace(call.score, items=items))
    places = ranking(reply.results)
    margin = served.card.resolution if call.tie_margin is None else call.tie_margin
    best = _best(places, call.abstain_below)
    return BestOfNReply(
        model=reply.model,
        fingerprint=reply.fingerprint,
        best=best,
        ranking=places[: call.top_n],
        ties=ties(places, margin),
        abstained=best is None,
        results=reply.results,
    )


def _best(places: Sequence[Ranked], abstain_below: float | None) -> int | None:
    first = places[0]
    if first.score is None or (abstain_below is not None and first.score < abstain_below):
        return None
    return first.index
