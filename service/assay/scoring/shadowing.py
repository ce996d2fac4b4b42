"""Shadowing: a model scores the same items as another one, after that one's reply is complete."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from assay.errors import AssayError, DeadlineExceeded, ModelNotReady, Overloaded, ShuttingDown
from assay.lifecycle.table import ModelTable
from assay.metrics import Metrics
from assay.runs.steps import SPLIT
from assay.scoring.comparison import Agreement, GroupAgreement, ScorePair
from assay.scoring.service import ScoreCall, ScoringService
from assay.served_model import Ready, ServedModel
from assay.types import NO_SHARE, ItemResult
from assay_monitors.observations import SHADOW_SPLIT

logger = logging.getLogger(__name__)

MAX_ITEMS, MAX_BYTES = 4_096, 32 * 2**20
"""What one shadow may have admitted and not scored; beyond it items are dropped and counted."""
SHADOW_SECONDS = 60.0
DROPS: Mapping[type[AssayError], str] = {
    Overloaded: "overloaded",
    DeadlineExceeded: "expired",
    ShuttingDown: "stopped",
    ModelNotReady: "stopped",
}


@dataclass(slots=True)
class ShadowReport:
    """Counts of what a shadow has scored since it was loaded: items, and pairs within groups.

    `compared` have a score from both models, `failed` only from the other one; `dropped` were not
    scored, because the shadow could not keep up. `mean_absolute_difference` is that of the
    compared scores. `pair_agreement` is the share of `concordant` pairs among those that neither
    model ties.
    """

    compared: int = 0
    failed: int = 0
    dropped: int = 0
    concordant: int = 0
    discordant: int = 0
    tied: int = 0
    absolute_difference: float = 0.0

    @property
    def mean_absolute_difference(self) -> float | None:
        """The mean absolute difference of the scores; None before there are any."""
        return self.absolute_difference / self.compared if self.compared else None

    @property
    def pair_agreement(self) -> float | None:
        """The share of pairs in the same order; None before there are any."""
        ordered = self.concordant + self.discordant
        return self.concordant / ordered if ordered else None


@dataclass(slots=True, eq=False)
class _Shadow:
    """One shadow: its report, and what it has admitted."""

    report: ShadowReport = field(default_factory=ShadowReport)
    groups: GroupAgreement = field(default_factory=GroupAgreement)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    items: int = 0
    size: int = 0


class Shadowing:
    """The scoring of items by shadows, of which no reply depends.

    Args:
        service: scores for shadows as for any request, in the lane `bulk`.
        table: the models and their shadows.
        metrics: the series of the process.
    """

    def __init__(self, service: ScoringService, table: ModelTable, metrics: Metrics) -> None:
        self._service = service
        self._table = table
        self._series = metrics.shadows
        self._shadows: dict[str, _Shadow] = {}

    def mirror(self, call: ScoreCall, served: ServedModel, results: Sequence[ItemResult]) -> None:
        """Let the shadows of a model score a request's items, after the request's reply."""
        loop = asyncio.get_running_loop()
        for shadow in self._table.shadowed.get(served.id, ()):
            loop.call_soon(self._start, call, shadow, results)

    def report(self, model: str) -> ShadowReport:
        """Return what a shadow has scored until now."""
        return self._shadows.get(model, _Shadow()).report

    def stop(self, model: str) -> None:
        """End a model's work as a shadow, if it was one."""
        shadow = self._shadows.pop(model, None)
        for task in [] if shadow is None else shadow.tasks:
            task.cancel()

    def _start(self, call: ScoreCall, served: ServedModel, results: Sequence[ItemResult]) -> None:
        if not isinstance(served.state, Ready) or self._table.primary_of(served.id) is None:
            return
        shadow = self._shadows.setdefault(served.id, _Shadow())
        items, size = len(call.items), _size(call.items)
        if shadow.items + items > MAX_ITEMS or shadow.size + size > MAX_BYTES:
            self._drop(shadow, served.id, items, "busy")
            return
        shadow.items += items
        shadow.size += size
        known = [(result.score if result.error is None else None) for result in results]
        task = asyncio.create_task(self._score(shadow, served, call, known))
        shadow.tasks.add(task)
        task.add_done_callback(partial(self._finish, shadow, served.id, items, size))

    async def _score(
        self,
        shadow: _Shadow,
        served: ServedModel,
        call: ScoreCall,
        known: Sequence[float | None],
    ) -> None:
        try:
            reply = await self._service.score(_shadow_call(call, served.id))
        except AssayError as error:
            reason = next((DROPS[kind] for kind in type(error).__mro__ if kind in DROPS), None)
            if reason is not None:
                self._drop(shadow, served.id, len(known), reason)
                return
            scores: Sequence[tuple[float | None, str | None]] = [(None, None)] * len(known)
        else:
            scores = [(result.score, result.group) for result in reply.results]
        pairs = [ScorePair(left, *right) for left, right in zip(known, scores, strict=True)]
        agreement = shadow.groups.add(pairs, _window(call))
        self._count(shadow.report, served.id, pairs, agreement)

    def _count(
        self,
        report: ShadowReport,
        model: str,
        pairs: Sequence[ScorePair],
        agreement: Agreement,
    ) -> None:
        differences = [
            abs(pair.primary - pair.shadow)
            for pair in pairs
            if pair.primary is not None and pair.shadow is not None
        ]
        report.compared += len(differences)
        report.absolute_difference += sum(differences)
        failed = sum([pair.primary is not None and pair.shadow is None for pair in pairs])
        only_shadow = sum([pair.primary is None and pair.shadow is not None for pair in pairs])
        neither = len(pairs) - len(differences) - failed - only_shadow
        report.failed += failed
        report.concordant += agreement.concordant
        report.discordant += agreement.discordant
        report.tied += agreement.tied
        self._series.count_items(
            model, both=len(differences), primary=failed, shadow=only_shadow, neither=neither
        )
        self._series.count_pairs(model, **agreement._asdict())
        for difference in differences:
            self._series.difference.labels(model).observe(difference)

    def _drop(self, shadow: _Shadow, model: str, items: int, reason: str) -> None:
        shadow.report.dropped += items
        self._series.dropped.labels(model, reason).inc(items)

    def _finish(
        self,
        shadow: _Shadow,
        model: str,
        items: int,
        size: int,
        task: asyncio.Task[None],
    ) -> None:
        shadow.tasks.discard(task)
        shadow.items -= items
        shadow.size -= size
        error = None if task.cancelled() else task.exception()
        if task.cancelled():
            self._drop(shadow, model, items, "stopped")
        elif error is not None:
            logger.error("the shadow %s raised %s", model, type(error).__name__, exc_info=error)


def _shadow_call(call: ScoreCall, model: str) -> ScoreCall:
    """Return the request to a shadow; its results are recorded under a split of their own."""
    run = call.run
    if run is not None:
        run = replace(run, split=f"{SHADOW_SPLIT}{run.split or SPLIT}")
    return replace(
        call,
        model=model,
        substitute=None,
        timeout=SHADOW_SECONDS,
        lane="bulk",
        run=run,
        caller=replace(call.caller, share=NO_SHARE),
    )


def _window(call: ScoreCall) -> tuple[str, str | None, int] | None:
    run = call.run
    return None if run is None or run.step is None else (run.id, run.split, run.step)


def _size(items: Sequence[Mapping[str, Any]]) -> int:
    """Return about the bytes that items hold: characters, and eight for each value of a list.

    It stops beyond `MAX_BYTES`: more than that is not read in the event loop.
    """
    size, left = 0, list[Any](items)
    while left and size <= MAX_BYTES:
        value = left.pop()
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, Mapping):
            size += sum(map(len, value))
            left.extend(value.values())
        elif isinstance(value, list | tuple):
            size += 8 * len(value)
            if size <= MAX_BYTES:
                left.extend(value)
    return size
