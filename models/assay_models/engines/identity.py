"""EngineIdentity: the model and the software that an engine says it runs."""

from dataclasses import dataclass, field, replace

from assay_models.engines.endpoints import Endpoint
from assay_models.engines.errors import EngineError

MAX_TEXT = 1000


@dataclass(frozen=True, slots=True)
class EngineIdentity:
    """The identity of an engine, as far as its protocol shows it.

    `model` is the root or path of the checkpoint, `revision` of its weights, `version` the
    engine's own; `max_tokens` the longest input; `labels` their names by position; `fingerprint`
    that of another Assay. `unreachable` are URLs that did not answer, and are not compared.
    """

    model: str
    revision: str = ""
    version: str = ""
    dtype: str | None = None
    max_tokens: int | None = None
    labels: tuple[str, ...] = ()
    fingerprint: str = ""
    unreachable: tuple[str, ...] = field(default=(), compare=False)


def agreed(
    identities: list[tuple[Endpoint, EngineIdentity]], unreachable: list[str]
) -> EngineIdentity:
    """Return the identity of all URLs that answered, at least one.

    Raises:
        EngineError: two of them run different models or versions; the text names both URLs.
    """
    first_endpoint, first = identities[0]
    for endpoint, identity in identities[1:]:
        if identity != first:
            raise EngineError(
                "engine_bad_reply",
                f"{first_endpoint.url} and {endpoint.url} are not the same engine: {_text(first)}"
                f" and {_text(identity)}: start the same version with the same model on both, or"
                " give each a card of its own",
                retryable=False,
            )
    return replace(first, unreachable=tuple(unreachable))


def _text(identity: EngineIdentity) -> str:
    """Return an identity for an error; a model may have thousands of labels."""
    return str(identity)[:MAX_TEXT]
