"""Another Assay: `POST /v1/score` with `options.raw`."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from assay_models.base import ItemError, Raw
from assay_models.card import EngineCard
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
    parse_object,
    text_at,
)
from assay_models.engines.transport import Call, Transport

CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
MAX_CODES = 64


class AssayEngine(ProtocolEngine):
    """Another Assay. It takes no token ids; a raw has one number, the one that it shows as `raw`.

    Entries of a reply are ordered by `index`, and each repeats the id of its item. The
    `fingerprint` of its replies must stay the same until `identity` is asked again. The time that
    is left is passed on, so that it computes nothing that comes too late. An item's error keeps its
    code.
    """

    takes = "texts"
    can_activate = False
    _fingerprint: str | None = None

    def __init__(self, transport: Transport, card: EngineCard) -> None:
        super().__init__(transport, card)
        self._codes: set[str] = set()

    async def classify_texts(
        self,
        texts: Sequence[Text],
        *,
        activation: bool | None = False,
        fields: tuple[str, str] = DEFAULT_FIELDS,
        whole: bool = False,
    ) -> list[Raw | ItemError]:
        """See `Engine.classify_texts`."""
        self._always_raw(activation)
        return await self._compute(
            texts, lambda part: self._call(part, fields), size=text_size, whole=whole
        )

    async def identity(self) -> EngineIdentity:
        """See `Engine.identity`."""
        identity = await super().identity()
        self._fingerprint = None
        return identity

    async def _call(
        self, texts: Sequence[Text], fields: tuple[str, str]
    ) -> Sequence[Raw | ItemError]:
        name = self._next_name()
        ids = [f"{name}-{position}" for position in range(len(texts))]
        items = [
            {"id": id_, "text": text}
            if isinstance(text, str)
            else {"id": id_, **_pair(fields, text)}
            for id_, text in zip(ids, texts, strict=True)
        ]
        body = {"model": self._card.model, "items": items, "options": {"raw": True}}
        call = Call(
            "/v1/score",
            orjson.dumps(body),
            len(texts),
            sum(map(text_size, texts)),
            timeout_header="x-assay-timeout-ms",
        )
        return await self._transport.call(call, lambda reply: self._read(reply, ids))

    async def _identify(self, endpoint: Endpoint) -> EngineIdentity:
        model = await self._get(endpoint, f"/v1/models/{self._card.model}")
        version = await self._get(endpoint, "/version")
        fingerprint = name_at(model, "fingerprint")
        if fingerprint is None:
            raise EngineError("engine_unavailable", f"{endpoint.url} has not loaded the model yet")
        return EngineIdentity(
            model=name_at(model, "id") or self._card.model,
            version=name_at(version, "version") or "",
            fingerprint=fingerprint,
        )

    def _read(self, reply: Reply, ids: Sequence[str]) -> list[Raw | ItemError]:
        """Return the raws of a reply, or items' own errors.

        Raises:
            EngineError: they are in doubt.
        """
        value = parse_object(reply)
        entries = by_index(value.get("results"), len(ids))
        if [entry.get("id") for entry in entries] != list(ids):
            raise bad_reply("its ids are not those of this call")
        results = [_result(entry, self._known) for entry in entries]
        fingerprint = text_at(value, "fingerprint")
        if fingerprint is None or self._fingerprint not in (None, fingerprint):
            raise bad_reply("its fingerprint is missing, or another one than before")
        self._check_width([result for result in results if not isinstance(result, ItemError)])
        self._fingerprint = fingerprint
        return results

    def _known(self, code: str) -> str:
        """Return an item's code, or one for all others: each code has metrics of its own."""
        if len(self._codes) < MAX_CODES:
            self._codes.add(code)
        return code if code in self._codes else "engine_refused"


def _pair(fields: tuple[str, str], text: tuple[str, str]) -> Mapping[str, str]:
    return dict(zip(fields, text, strict=True))


def _result(entry: JsonObject, known: Callable[[str], str]) -> Raw | ItemError:
    status = entry.get("status")
    if status == "error":
        code = text_at(entry, "error", "code") or ""
        if not CODE.fullmatch(code) or entry.get("score") is not None:
            raise bad_reply("an item's error has no code, or a score")
        return ItemError(known(code), f"the other server could not score this item ({code})")
    flags: Any = entry.get("flags")
    if status != "ok" or not isinstance(flags, list) or "substituted" in flags:
        raise bad_reply("an item is neither scored nor failed, or was substituted")
    return (number(entry.get("raw")),)
