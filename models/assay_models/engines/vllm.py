"""vLLM: `POST /classify` with token ids and `use_activation`."""

from collections.abc import Sequence
from typing import Any

import orjson

from assay_models.base import ItemError, Raw
from assay_models.engines.endpoints import Endpoint
from assay_models.engines.errors import EngineError, bad_reply
from assay_models.engines.http import Reply
from assay_models.engines.identity import EngineIdentity
from assay_models.engines.protocol import ProtocolEngine
from assay_models.engines.replies import by_index, numbers, parse_object, text_at, whole_at
from assay_models.engines.transport import Call


class VllmEngine(ProtocolEngine):
    """vLLM with `--runner pooling` and a sequence classifier.

    Entries of a reply are ordered by their `index`. Its `usage` must count the tokens that were
    sent, and its `id`, where it repeats this client's request id, must be that of this call.
    vLLM ignores fields that it does not know: an old version takes `use_activation` for nothing
    and answers with activated numbers, so ask with and without activation before trusting it.
    """

    takes = "ids"
    can_activate = True

    async def classify(
        self, rows: Sequence[Sequence[int]], *, activation: bool | None = False
    ) -> list[Raw | ItemError]:
        """See `Engine.classify`."""
        return await self._compute_ids(rows, activation)

    async def _call_ids(
        self, rows: Sequence[Sequence[int]], activation: bool | None
    ) -> Sequence[Raw | ItemError]:
        name, tokens = self._next_name(), sum(map(len, rows))
        body: dict[str, Any] = {"input": rows}
        if self._card.model:
            body["model"] = self._card.model
        if activation is not None:
            body["use_activation"] = activation
        call = Call(
            "/classify", orjson.dumps(body), len(rows), tokens, headers={"x-request-id": name}
        )
        return await self._transport.call(
            call, lambda reply: self._check_width(_read(reply, len(rows), tokens, name))
        )

    async def _identify(self, endpoint: Endpoint) -> EngineIdentity:
        listed = (await self._get(endpoint, "/v1/models")).get("data")
        models = listed if isinstance(listed, list) else []
        name = self._card.model
        served = [model for model in models if name in ("", text_at(model, "id"))]
        if not served:
            text = f"{endpoint.url} does not serve the card's `engine.model`"
            raise EngineError("engine_refused", text, retryable=False)
        root = text_at(served[0], "root") or text_at(served[0], "id")
        if root is None:
            raise bad_reply("its list of models names no model")
        version = await self._get(endpoint, "/version")
        return EngineIdentity(
            model=root,
            version=text_at(version, "version") or "",
            max_tokens=whole_at(served[0], "max_model_len"),
        )


def _read(reply: Reply, rows: int, tokens: int, name: str) -> list[Raw]:
    """Return the raws of a reply.

    Raises:
        EngineError: they are in doubt.
    """
    value = parse_object(reply)
    repeated = text_at(value, "id") or ""
    if "assay-" in repeated and not repeated.endswith(name):
        raise bad_reply("it is the reply to another call")
    counted = whole_at(value, "usage", "prompt_tokens")
    if counted is not None and counted != tokens:
        raise bad_reply(f"it counts {counted} tokens, where {tokens} were sent")
    raws = []
    for entry in by_index(value.get("data"), rows):
        raw = numbers(entry.get("probs"))
        if whole_at(entry, "num_classes") not in (None, len(raw)):
            raise bad_reply("it has another number of labels than it says")
        raws.append(raw)
    return raws
