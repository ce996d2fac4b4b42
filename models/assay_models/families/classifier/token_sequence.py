"""TokenSequence: one row of a forward pass, as token ids."""

from array import array
from dataclasses import dataclass
from typing import Any

from assay_models.base import Input


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """One sequence, ready for the forward pass; `truncated` counts the tokens that were cut.

    Ids are C integers, so each takes as many bytes as it needs. `prefix_key` is equal for sequences
    that begin alike. `text` is the text or pair of which an engine makes these ids, where it takes
    no ids.
    """

    ids: "array[int]"
    type_ids: "array[int] | None" = None
    truncated: int = 0
    prefix_key: bytes = b""
    text: str | tuple[str, str] | None = None

    @property
    def flags(self) -> tuple[str, ...]:
        """`truncated`, if anything was cut."""
        return ("truncated",) if self.truncated else ()

    @property
    def details(self) -> dict[str, Any]:
        """The number of tokens that were cut, if any were."""
        return {"truncated_tokens": self.truncated} if self.truncated else {}

    def input(self) -> Input:
        """Return the row of a forward pass: keys are equal exactly where ids and type ids are."""
        kinds = b"" if self.type_ids is None else self.type_ids.tobytes()
        key = len(self.ids).to_bytes(4, "big") + self.ids.tobytes() + kinds
        return Input(key, len(self.ids), self, self.prefix_key)
