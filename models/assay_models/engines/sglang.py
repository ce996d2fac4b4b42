"""SGLang: its native `POST /classify` with token ids."""

from collections.abc import Sequence
from typing import Any

import orjson

from assay_models.base import ItemError, Raw
from assay_models.engines.endpoints import Endpoint
from assay_models.engines.errors import bad_reply
from assay_models.engines.http import Reply
from assay_models.engines.identity import EngineIdentity
from assay_models.engines.protocol import ProtocolEngine
from assay_models.engines.replies import by_id, name_at, numbers, parse_list, text_at, whole_at
from assay_models.engines.transport import Call


class SglangEngine(ProtocolEngine):
    """SGLang with `--is-embedding` and a sequence classifier.

    Its route `/v1/classify` is never used: it always applies softmax, which makes 1.0 of every
    score of a model with one label. Entries of a reply are ordered by `meta_info.id`, which repeats
    the `rid` of a row, and `meta_info.prompt_tokens` must be the row's length. Without ids their
    order is that of the rows.
    """

    takes = "ids"
    can_activate = False

    async def classify(
        self,
        rows: Sequence[Sequence[int]],
        *,
        activation: bool | None = False,
        whole: bool = False,
    ) -> list[Raw | ItemError]:
        """See `Engine.classify`."""
        self._always_raw(activation)
        return await self._compute_ids(rows, activation, whole)

    async def _call_ids(
        self, rows: Sequence[Sequence[int]], activation: bool | None
    ) -> Sequence[Raw | ItemError]:
        name, lengths = self._next_name(), [len(row) for row in rows]
        ids = [f"{name}-{position}" for position in range(len(rows))]
        body = orjson.dumps({"input_ids": rows, "rid": ids})
        call = Call("/classify", body, len(rows), sum(lengths))
        return await self._transport.call(
            call, lambda reply: self._check_width(_read(reply, ids, lengths))
        )

    async def _identify(self, endpoint: Endpoint) -> EngineIdentity:
        info: dict[str, Any] = await self._get(endpoint, "/model_info", "/get_model_info")
        server: dict[str, Any] = await self._get(endpoint, "/server_info", "/get_server_info")
        model = name_at(info, "model_path")
        if model is None:
            raise bad_reply("its description names no model")
        return EngineIdentity(
            model=model,
            revision=name_at(info, "weight_version") or name_at(server, "revision") or "",
            version=name_at(server, "version") or "",
            dtype=name_at(server, "dtype"),
            max_tokens=whole_at(server, "context_length"),
        )


def _read(reply: Reply, ids: Sequence[str], lengths: Sequence[int]) -> list[Raw]:
    """Return the raws of a reply.

    Raises:
        EngineError: they are in doubt.
    """
    value = parse_list(reply)
    entries = by_id(value, ids, [text_at(entry, "meta_info", "id") for entry in value])
    for entry, length in zip(entries, lengths, strict=True):
        if whole_at(entry, "meta_info", "prompt_tokens") not in (None, length):
            raise bad_reply("it counts other tokens than were sent")
    return [numbers(entry.get("embedding")) for entry in entries]
