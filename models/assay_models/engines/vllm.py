"""vLLM: `POST /classify` with token ids, or `POST /score` with pairs, and `use_activation`."""

from collections.abc import Mapping, Sequence

import orjson

from assay_models.base import ItemError, Raw
from assay_models.engines.endpoints import Endpoint
from assay_models.engines.errors import EngineError, bad_reply
from assay_models.engines.http import Reply
from assay_models.engines.identity import EngineIdentity
from assay_models.engines.protocol import DEFAULT_FIELDS, ProtocolEngine, Text, text_size
from assay_models.engines.replies import (
    JsonObject,
    by_index,
    name_at,
    number,
    numbers,
    parse_object,
    text_at,
    whole_at,
)
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
    takes_pairs = True

    async def classify(
        self,
        rows: Sequence[Sequence[int]],
        *,
        activation: bool | None = False,
        whole: bool = False,
    ) -> list[Raw | ItemError]:
        """See `Engine.classify`."""
        return await self._compute_ids(rows, activation, whole)

    async def classify_texts(
        self,
        texts: Sequence[Text],
        *,
        activation: bool | None = False,
        fields: tuple[str, str] = DEFAULT_FIELDS,
        whole: bool = False,
    ) -> list[Raw | ItemError]:
        """Return the scores of pairs of texts, of a model with one label, by `POST /score`.

        Segment ids cannot be sent beside token ids; a model that was trained with them has to read
        its pairs as texts. `fields` has no meaning here.

        Raises:
            EngineError: a call failed as a whole, or a text is no pair.
        """
        pairs = [text for text in texts if not isinstance(text, str)]
        if len(pairs) < len(texts):
            raise self._unsupported("single texts: send token ids")
        return await self._compute(
            pairs, lambda part: self._call_pairs(part, activation), size=text_size, whole=whole
        )

    async def _call_ids(
        self, rows: Sequence[Sequence[int]], activation: bool | None
    ) -> Sequence[Raw | ItemError]:
        tokens = sum(map(len, rows))
        body = self._body(activation, input=rows)
        return await self._send("/classify", body, len(rows), tokens, counted=tokens)

    async def _call_pairs(
        self, pairs: Sequence[tuple[str, str]], activation: bool | None
    ) -> Sequence[Raw | ItemError]:
        queries, documents = zip(*pairs, strict=True)
        body = self._body(activation, queries=queries, documents=documents)
        return await self._send("/score", body, len(pairs), sum(map(text_size, pairs)))

    def _body(self, activation: bool | None, **inputs: object) -> dict[str, object]:
        model = {"model": self._card.model} if self._card.model else {}
        choice = {} if activation is None else {"use_activation": activation}
        return {**model, **inputs, **choice}

    async def _send(
        self,
        path: str,
        body: Mapping[str, object],
        rows: int,
        tokens: int,
        counted: int | None = None,
    ) -> Sequence[Raw]:
        name = self._next_name()
        headers = {"x-request-id": name}
        call = Call(path, orjson.dumps(body), rows, tokens, headers=headers)
        return await self._transport.call(
            call, lambda reply: self._check_width(_read(reply, rows, name, counted))
        )

    async def _identify(self, endpoint: Endpoint) -> EngineIdentity:
        listed = (await self._get(endpoint, "/v1/models")).get("data")
        models = listed if isinstance(listed, list) else []
        name = self._card.model
        served = [model for model in models if name in ("", name_at(model, "id"))]
        if not served:
            text = f"{endpoint.url} does not serve the card's `engine.model`"
            raise EngineError("engine_refused", text, retryable=False)
        root = name_at(served[0], "root") or name_at(served[0], "id")
        if root is None:
            raise bad_reply("its list of models names no model")
        version = await self._get(endpoint, "/version")
        return EngineIdentity(
            model=root,
            version=name_at(version, "version") or "",
            max_tokens=whole_at(served[0], "max_model_len"),
        )


def _read(reply: Reply, rows: int, name: str, tokens: int | None) -> list[Raw]:
    """Return the raws of a reply.

    Args:
        reply: of `/classify` or `/score`.
        rows: that were sent.
        name: the request id that was sent.
        tokens: that were sent; None if the engine counts other ones, of its own tokenization.

    Raises:
        EngineError: they are in doubt.
    """
    value = parse_object(reply)
    repeated = text_at(value, "id") or ""
    if "assay-" in repeated and not repeated.endswith(name):
        raise bad_reply("it is the reply to another call")
    counted = whole_at(value, "usage", "prompt_tokens")
    if None not in (tokens, counted) and counted != tokens:
        raise bad_reply(f"it counts {counted} tokens, where {tokens} were sent")
    return [_numbers(entry) for entry in by_index(value.get("data"), rows)]


def _numbers(entry: JsonObject) -> Raw:
    if "score" in entry:
        return (number(entry["score"]),)
    raw = numbers(entry.get("probs"))
    if whole_at(entry, "num_classes") not in (None, len(raw)):
        raise bad_reply("it has another number of labels than it says")
    return raw
