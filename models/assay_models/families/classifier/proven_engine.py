"""ProvenEngine: the engine that a proof accepted, as one value that threads read at once."""

from dataclasses import dataclass

from assay_models.base import Input, Raw
from assay_models.engines.identity import EngineIdentity


@dataclass(frozen=True, slots=True)
class Canary:
    """A short row, and the raw that the proven engine computed for it."""

    row: Input
    raw: Raw


@dataclass(frozen=True, slots=True)
class ProvenEngine:
    """An engine whose numbers were proven.

    `raws` are those of the proof's short rows and pairs. `mark` is empty where the identity names
    the weights, so that replicas agree, and else drawn at random, so that no number of other
    weights is ever taken for one of these.
    """

    identity: EngineIdentity
    raws: tuple[Raw, ...]
    canaries: tuple[Canary, ...]
    mark: str = ""

    @property
    def parts(self) -> tuple[object, ...]:
        """The parts of the identity that decide a number, for the fingerprint."""
        return (*parts_of(self.identity), self.mark)


def parts_of(identity: EngineIdentity) -> tuple[object, ...]:
    """Return what an engine says of itself that may decide a number."""
    return (
        *(identity.model, identity.revision, identity.version),
        *(identity.dtype, identity.labels, identity.fingerprint),
    )
