"""The client for code that waits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from assay_client._transport.base import BaseClient
from assay_client._transport.calls import Send, Steps
from assay_client._transport.requests import Reply
from assay_client.errors import AssayError
from assay_client.types import BestOfN, Model, OnError, Priority, RunHealth, ScoreReply

if TYPE_CHECKING:
    from assay_client._transport.http import HTTPClient  # noqa: F401 the base class names it

T = TypeVar("T")


class Client(BaseClient["HTTPClient"]):
    """Scores over HTTP. Its arguments are those of `BaseClient`.

    Threads may share one client, and a pickled one carries its configuration alone. Every call
    raises the errors of `assay_client.errors`, and ValueError for arguments that cannot be sent.
    """

    def score(
        self,
        model: str,
        items: Sequence[Mapping[str, Any]],
        *,
        options: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        on_error: OnError = "raise",
        priority: Priority | None = None,
    ) -> ScoreReply:
        """Score items.

        Args:
            model: `name@version`, or `name` for its default version.
            items: the fields of each, as the model's family takes them.
            options: `truncation`, `raw`, `on_error` as the server knows them; for `nli` also
                `weights` and `min_confidence`.
            run: the training run and step, for the server's monitors: `id`, `step`, `split`.
            timeout: seconds for this call, instead of the client's.
            on_error: `raise` an ItemFailedError if an item has no score, or `none`: return the
                reply, in which such an item's score is None. No number is ever put in its place.
            priority: the server's lane: `interactive`, `training` (what it takes scores for) or
                `bulk`. Where its device is busy, the first goes first and the last waits.
        """
        return self._run(
            self._ready_calls().score(
                model,
                items,
                options=options,
                run=run,
                timeout=timeout,
                on_error=on_error,
                priority=priority,
            )
        )

    def score_one(
        self,
        model: str,
        item: Mapping[str, Any],
        *,
        options: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
    ) -> float:
        """The score of one item.

        Raises:
            ItemFailedError: it could not be scored.
        """
        return self._run(
            self._ready_calls().score_one(
                model, item, options=options, run=run, timeout=timeout, priority=priority
            )
        )

    def best_of_n(
        self,
        model: str,
        candidates: Sequence[Any],
        *,
        top_n: int | None = None,
        tie_margin: float | None = None,
        abstain_below: float | None = None,
        min_confidence: float | None = None,
        options: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
        **shared_fields: Any,
    ) -> BestOfN:
        """Rank candidates.

        Args:
            model: `name@version`, or `name` for its default version.
            candidates: the N answers, each as a text or as the fields in which it differs.
            top_n: how many places of the ranking to return.
            tie_margin: scores no further apart count as equal.
            abstain_below: the score below which even the best is not good enough.
            min_confidence: how sure the model must be that the best is better than the next, from
                0.5 to 1; for models whose card is calibrated.
            options: as for `score`.
            run: as for `score`.
            timeout: seconds for this call, instead of the client's.
            priority: as for `score`; the server takes a ranking for `interactive`.
            **shared_fields: what all candidates have in common, such as `prompt`.
        """
        choices = {
            "top_n": top_n,
            "tie_margin": tie_margin,
            "abstain_below": abstain_below,
            "min_confidence": min_confidence,
            "options": options,
            "run": run,
        }
        return self._run(
            self._ready_calls().best_of_n(
                model,
                candidates,
                choices=choices,
                shared=shared_fields,
                timeout=timeout,
                priority=priority,
            )
        )

    def models(self) -> list[Model]:
        """The models that the server has."""
        return self._run(self._ready_calls().models())

    def model(self, name: str) -> Model:
        """One model and its card.

        Raises:
            NotFoundError: the server does not have it.
        """
        return self._run(self._ready_calls().model(name))

    def health(self, run: str, *, timeout: float | None = None) -> RunHealth:
        """The health of a training run, as the server's rules see it.

        Args:
            run: its name.
            timeout: seconds for this call, instead of the client's.

        Raises:
            NotFoundError: the server keeps no such run, or none at all.
        """
        return self._run(self._ready_calls().health(run, timeout))

    def tell(
        self, run: str, step: int, values: Mapping[str, float], *, timeout: float | None = None
    ) -> None:
        """Tell the server what only the trainer knows of a step: entropy, divergence, lengths.

        Of values that are told twice their mean counts, so telling again does no harm.

        Args:
            run: its name.
            step: of the run, from 0.
            values: by name; those that rules look at are in the server's documentation.
            timeout: seconds for this call, instead of the client's.

        Raises:
            NotFoundError: the server keeps no runs.
        """
        self._run(self._ready_calls().tell(run, step, values, timeout))

    def ready(self) -> bool:
        """Whether a server is ready to score. False also where none answers."""
        return self._run(self._ready_calls().probe("/readyz"))

    def healthy(self) -> bool:
        """Whether a server's process lives. False also where none answers."""
        return self._run(self._ready_calls().probe("/healthz"))

    def close(self) -> None:
        """Close the connections. The client cannot be used any more."""
        for pool in self._take_pools():
            pool.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        # Only a call needs the HTTP library, which takes longest to import.
        from assay_client._transport.http import new_client, perform

        pool = self._pool(None, new_client)
        try:
            step = next(steps)
            while True:
                reply: Reply | None = None
                try:
                    if isinstance(step, Send):
                        reply = perform(pool, step, self._clock.monotonic)
                    else:
                        self._clock.sleep(step.seconds)
                except AssayError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as done:
            return cast("T", done.value)
        finally:
            steps.close()
