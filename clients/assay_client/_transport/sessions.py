"""Session ids: requests about the same prompt carry the same id, for the affinity of a proxy.

A proxy before several replicas can thus send the candidates of a prompt to one of them, where the
prompt's cached scores and its shared prefix are. The server itself ignores the id.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from assay_client._transport.arguments import JsonObject
from assay_client._transport.requests import encode_value

SHARED_FIELDS = ("prompt", "question", "query", "problem", "premise", "evidence")
"""The fields that the candidates of a prompt share, of all families; an item has the first."""

_ID_BYTES = 8


class Sessions:
    """The session ids of one client.

    An id is a digest of 64 bits. With an API key it is keyed with it, so that the logs of a proxy
    do not let a reader test guesses of the prompt; clients with one key agree on the ids.
    """

    def __init__(self, api_key: str | None) -> None:
        # BLAKE2b takes keys of up to 64 bytes only.
        self._key = b"" if api_key is None else blake2b(api_key.encode(), digest_size=32).digest()

    def id_of(self, items: Sequence[JsonObject]) -> str | None:
        """Return the id of a request: 16 hexadecimal digits.

        Args:
            items: of the request; they can be encoded as JSON.

        Returns:
            The id; None if the items share neither a prompt nor a group.
        """
        shared = _shared_part(items)
        if shared is None:
            return None
        content = shared.encode() if isinstance(shared, str) else encode_value(shared)
        return blake2b(content, digest_size=_ID_BYTES, key=self._key).hexdigest()


def _shared_part(items: Sequence[JsonObject]) -> Any:
    """Return the prompt of all items, or else their group's name; None if there is neither."""
    first = items[0]
    field = next((name for name in SHARED_FIELDS if first.get(name) is not None), None)
    if field is not None:
        return _common([item.get(field) for item in items])
    if _is_conversation(first.get("messages")):
        return _common([_context(item.get("messages")) for item in items])
    return _common([item.get("group") for item in items])


def _is_conversation(messages: Any) -> bool:
    """Return whether a prompt precedes the conversation's last message."""
    return isinstance(messages, Sequence) and len(messages) > 1


def _context(messages: Any) -> Any:
    return messages[:-1] if _is_conversation(messages) else None


def _common(values: Sequence[Any]) -> Any:
    """Return the value that all are equal to; None if there is none."""
    first = _plain(values[0])
    try:
        is_shared = all(value is values[0] or _plain(value) == first for value in values)
    except ValueError:  # arrays within, which do not compare to a truth value
        return None
    return first if is_shared else None


def _plain(value: Any) -> Any:
    """Return an array of another library as a list."""
    return value.tolist() if hasattr(value, "tolist") else value
