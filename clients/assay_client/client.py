"""The synchronous client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast

from assay_client._transport.arguments import (
    Candidates,
    Columns,
    Items,
    Run,
    score_arguments,
    single_item,
    to_run,
)
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
        items: Items,
        *,
        fields: Columns | None = None,
        options: Mapping[str, Any] | None = None,
        run: Run | None = None,
        step: int | None = None,
        timeout: float | None = None,
        on_error: OnError = "raise",
        priority: Priority | None = None,
    ) -> ScoreReply:
        """Score items.

        Args:
            model: `name@version`, or `name` for its default version.
            items: the fields of each, as the model's family takes them: dicts in a list or from any
                other iterable, or the rows of a DataFrame (pandas, polars), an Arrow table or a
                Hugging Face data set.
            fields: the key or column from which each field of an item is taken, such as
                `{"prompt": "question"}`, or those that are sent; without it all are.
            options: the server's `truncation`, `raw`, `on_error`; for `nli` also `weights` and
                `min_confidence`.
            run: the training run, for the server's monitors: its name, or `id`, `step`, `split`.
            step: of the run.
            timeout: seconds for this call, instead of the client's.
            on_error: `raise` an ItemFailedError if an item has no score, or `none`: return the
                reply, in which such an item's score is None. The client never substitutes a number.
            priority: the server's lane: `interactive`, `training` (its default for scores) or
                `bulk`. If its device is busy, the first goes first and the last waits.
        """
        arguments = score_arguments(
            model,
            items,
            fields=fields,
            options=options,
            run=run,
            step=step,
            on_error=on_error,
            priority=priority,
        )
        return self._run(self._open_calls().score(arguments, timeout))

    def score_one(
        self,
        model: str,
        item: Mapping[str, Any],
        *,
        options: Mapping[str, Any] | None = None,
        run: Run | None = None,
        step: int | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
    ) -> float:
        """Return the score of one item.

        Raises:
            ItemFailedError: it could not be scored.
        """
        reply = self.score(
            model,
            single_item(item),
            options=options,
            run=run,
            step=step,
            timeout=timeout,
            priority=priority,
        )
        return cast("float", reply.results[0].score)  # the call above raises if there is none

    def best_of_n(
        self,
        model: str,
        candidates: Candidates,
        *,
        top_n: int | None = None,
        tie_margin: float | None = None,
        abstain_below: float | None = None,
        min_confidence: float | None = None,
        options: Mapping[str, Any] | None = None,
        run: Run | None = None,
        step: int | None = None,
        timeout: float | None = None,
        priority: Priority | None = None,
        **shared_fields: Any,
    ) -> BestOfN:
        """Rank candidates.

        Args:
            model: `name@version`, or `name` for its default version.
            candidates: the N answers, each as a text or as the fields in which it differs, in what
                `score` takes as items.
            top_n: places of the ranking to return.
            tie_margin: scores no further apart count as equal.
            abstain_below: the score below which even the best is not good enough.
            min_confidence: the probability that the best is better than the next, from 0.5 to 1,
                below which the server abstains; for models whose card is calibrated. It also
                abstains if the best is tied, or its confidence is unknown: a rule decided one of
                the two scores, or there is no next.
            options: as for `score`.
            run: as for `score`.
            step: of the run.
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
            "run": to_run(run, step),
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

    def run_health(self, run: Run, *, timeout: float | None = None) -> RunHealth:
        """Return the health of a training run, as the server's rules evaluate it.

        Args:
            run: its name.
            timeout: seconds for this call, instead of the client's.

        Raises:
            NotFoundError: the server keeps no such run, or none at all.
        """
        return self._run(self._open_calls().run_health(run, timeout))

    def record_telemetry(
        self, run: Run, step: int, values: Mapping[str, float], *, timeout: float | None = None
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

    def wait_until_ready(self, timeout: float = 300.0) -> None:
        """Wait until a server is ready to score: all its models have computed a score.

        Args:
            timeout: seconds to wait, for a server that is not started yet too.

        Raises:
            NotReadyError: no server is ready in time, or a model failed to load. The message has
                the states of the models.
            APIConnectionError: no server answers in time.
        """
        self._run(self._open_calls().wait_until_ready(timeout))

    def is_live(self) -> bool:
        """Return whether a server's process is live. False also if none answers."""
        return self._run(self._open_calls().probe("/healthz"))

    def request(self, method: str, path: str, *, content: bytes | None = None) -> Response:
        """Send a request to any path, with the retries and errors of all other calls.

        Args:
            method: of HTTP.
            path: below the base URL, with its first slash, encoded.
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
        send = self._sender()
        try:
            step = next(steps)
            while True:
                response: Response | None = None
                try:
                    if isinstance(step, Send):
                        response = send(step)
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

    def _sender(self) -> Callable[[Send], Response]:
        """Return the function that sends a request with the connections of this process."""
        # Imported by the first call, because the HTTP library takes longest to import.
        from assay_client._transport.http import new_client, perform

        pool = self._pool(None, new_client)
        return lambda send: perform(pool, send, self._clock.monotonic)
