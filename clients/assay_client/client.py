"""The synchronous client."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from assay_client._transport.base import BaseClient
from assay_client._transport.requests import Request
from assay_client._transport.steps import Send, Steps
from assay_client.errors import AssayError
from assay_client.types import BestOfN, Model, OnError, Priority, Response, RunHealth, ScoreReply

if TYPE_CHECKING:
    from assay_client._transport.http import HTTPClient  # noqa: F401 the base class names it

T = TypeVar("T")


class Client(BaseClient["HTTPClient"]):
    """A synchronous client of Assay. Its arguments are those of `BaseClient`.

    Threads may share one client. A pickled client has only its configuration. Every call raises the
    errors of `assay_client.errors`, and ValueError for arguments that cannot be sent.
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
            options: the server's `truncation`, `raw`, `on_error`; for `nli` also `weights` and
                `min_confidence`.
            run: the training run and step, for the server's monitors: `id`, `step`, `split`.
            timeout: seconds for this call, instead of the client's.
            on_error: `raise` an ItemFailedError if an item has no score, or `none`: return the
                reply, in which such an item's score is None. The client never substitutes a number.
            priority: the server's lane: `interactive`, `training` (its default for scores) or
                `bulk`. If its device is busy, the first goes first and the last waits.
        """
        return self._run(
            self._open_calls().score(
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
        """Return the score of one item.

        Raises:
            ItemFailedError: it could not be scored.
        """
        return self._run(
            self._open_calls().score_one(
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
            top_n: places of the ranking to return.
            tie_margin: scores no further apart count as equal.
            abstain_below: the score below which even the best is not good enough.
            min_confidence: the probability that the best is better than the next, from 0.5 to 1,
                below which the server abstains; for models whose card is calibrated. It also
                abstains if the best is tied, or its confidence is unknown: a rule decided one of
                the two scores, or there is no next.
            options: as for `score`.
            run: as for `score`.
            timeout: seconds for this call, instead of the client's.
            priority: as for `score`; the server's default for a ranking is `interactive`.
            **shared_fields: the fields that all candidates share, such as `prompt`.
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
            self._open_calls().best_of_n(
                model,
                candidates,
                choices=choices,
                shared=shared_fields,
                timeout=timeout,
                priority=priority,
            )
        )

    def models(self) -> list[Model]:
        """Return the models that the server has."""
        return self._run(self._open_calls().models())

    def model(self, name: str) -> Model:
        """Return one model and its card.

        Raises:
            NotFoundError: the server does not have it.
        """
        return self._run(self._open_calls().model(name))

    def run_health(self, run: str, *, timeout: float | None = None) -> RunHealth:
        """Return the health of a training run, as the server's rules evaluate it.

        Args:
            run: its name.
            timeout: seconds for this call, instead of the client's.

        Raises:
            NotFoundError: the server keeps no such run, or none at all.
        """
        return self._run(self._open_calls().run_health(run, timeout))

    def record_telemetry(
        self, run: str, step: int, values: Mapping[str, float], *, timeout: float | None = None
    ) -> None:
        """Record figures of a step that only the trainer knows: entropy, divergence, lengths.

        A value that is recorded twice counts with its mean, so that a repetition does no harm.

        Args:
            run: its name.
            step: of the run, from 0.
            values: by name; the names that rules use are in the server's documentation.
            timeout: seconds for this call, instead of the client's.

        Raises:
            NotFoundError: the server keeps no runs.
        """
        self._run(self._open_calls().record_telemetry(run, step, values, timeout))

    def is_ready(self) -> bool:
        """Return whether a server is ready to score. False also if none answers."""
        return self._run(self._open_calls().probe("/readyz"))

    def is_live(self) -> bool:
        """Return whether a server's process is live. False also if none answers."""
        return self._run(self._open_calls().probe("/healthz"))

    def request(self, method: str, path: str, *, content: bytes | None = None) -> Response:
        """Send a request to any path, with the retries and errors of all other calls.

        Args:
            method: of HTTP.
            path: below the base URL, encoded.
            content: a body, as JSON.
        """
        return self._run(self._open_calls().request(Request(method, path, content)))

    def close(self) -> None:
        """Close the connections. The client cannot be used any more."""
        for pool in self._detach_pools():
            pool.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        # Imported by the first call, because the HTTP library takes longest to import.
        from assay_client._transport.http import new_client, perform

        pool = self._pool(None, new_client)
        try:
            step = next(steps)
            while True:
                response: Response | None = None
                try:
                    if isinstance(step, Send):
                        response = perform(pool, step, self._clock.monotonic)
                    else:
                        self._clock.sleep(step.seconds)
                except AssayError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(response)
        except StopIteration as done:
            return cast("T", done.value)
        finally:
            steps.close()
