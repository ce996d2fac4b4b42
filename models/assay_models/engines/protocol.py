"""ProtocolEngine, the base class of the engines of each protocol."""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Sequence
from itertools import count
from typing import ClassVar, Literal, TypeVar

from assay_models.base import ItemError, Raw
from assay_models.card import EngineCard
from assay_models.engines import failures
from assay_models.engines.endpoints import Endpoint
from assay_models.engines.errors import EngineError, bad_reply
from assay_models.engines.http import Reply
from assay_models.engines.identity import EngineIdentity, agreed
from assay_models.engines.replies import JsonObject, parse_object
from assay_models.engines.splitting import compute_rows
from assay_models.engines.transport import Transport

Row = TypeVar("Row")
Text = str | tuple[str, str]
DEFAULT_FIELDS = ("text", "text_pair")
UNREACHABLE = ("engine_unavailable", "engine_timeout")
CHARACTERS_PER_TOKEN = 4


class ProtocolEngine(ABC):
    """An engine that speaks one protocol. `Engine` describes its methods.

    Args:
        transport: the sender of calls.
        card: the card's section `[engine]`.
    """

    takes: ClassVar[Literal["ids", "texts"]]
    can_activate: ClassVar[bool]
    takes_pairs: ClassVar[bool] = False

    def __init__(self, transport: Transport, card: EngineCard) -> None:
        self._transport = transport
        self._card = card
        self._width: int | None = None
        self._name = f"assay-{secrets.token_hex(8)}"
        self._numbers = count()

    async def classify(
        self,
        rows: Sequence[Sequence[int]],
        *,
        activation: bool | None = False,
        whole: bool = False,
    ) -> list[Raw | ItemError]:
        """See `Engine.classify`."""
        raise self._unsupported("token ids")

    async def classify_texts(
        self,
        texts: Sequence[Text],
        *,
        activation: bool | None = False,
        fields: tuple[str, str] = DEFAULT_FIELDS,
        whole: bool = False,
    ) -> list[Raw | ItemError]:
        """See `Engine.classify_texts`."""
        raise self._unsupported("texts")

    async def identity(self) -> EngineIdentity:
        """See `Engine.identity`. The number of labels may be another one afterwards."""
        endpoints = self._transport.endpoints.all
        answers = await asyncio.gather(*map(self._try_identify, endpoints))
        identities: list[tuple[Endpoint, EngineIdentity]] = []
        errors: list[EngineError] = []
        for endpoint, answer in zip(endpoints, answers, strict=True):
            if isinstance(answer, EngineIdentity):
                identities.append((endpoint, answer))
            elif answer.code in UNREACHABLE:
                errors.append(answer)
            else:
                raise answer
        if not identities:
            raise errors[-1]
        self._width = None
        answered = {endpoint.url for endpoint, _ in identities}
        silent = [endpoint.url for endpoint in endpoints if endpoint.url not in answered]
        return agreed(identities, silent)

    def use(self, urls: Collection[str]) -> None:
        """See `Engine.use`."""
        self._transport.endpoints.use(urls)

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    @abstractmethod
    async def _identify(self, endpoint: Endpoint) -> EngineIdentity: ...

    async def _try_identify(self, endpoint: Endpoint) -> EngineIdentity | EngineError:
        """Return a URL's identity, or why there is none: one URL may not delay the others."""
        try:
            identity = await self._identify(endpoint)
        except EngineError as error:
            return error
        endpoint.breaker.invite()
        return identity

    async def _compute(
        self,
        rows: Sequence[Row],
        compute: Callable[[Sequence[Row]], Awaitable[Sequence[Raw | ItemError]]],
        *,
        size: Callable[[Row], int],
        whole: bool,
    ) -> list[Raw | ItemError]:
        """Compute rows in one call, or in calls of the card's size; see `compute_rows`."""
        if whole:
            return list(await compute(rows))
        return await compute_rows(
            rows,
            compute,
            size=size,
            max_rows=self._card.max_call_items,
            max_tokens=self._card.max_call_tokens,
        )

    async def _compute_ids(
        self, rows: Sequence[Sequence[int]], activation: bool | None, whole: bool
    ) -> list[Raw | ItemError]:
        return await self._compute(
            rows, lambda part: self._call_ids(part, activation), size=len, whole=whole
        )

    async def _call_ids(
        self, rows: Sequence[Sequence[int]], activation: bool | None
    ) -> Sequence[Raw | ItemError]:
        raise self._unsupported("token ids")

    async def _get(self, endpoint: Endpoint, path: str, older: str | None = None) -> JsonObject:
        """Return the JSON object at a path of a URL, or at the path of older versions.

        Raises:
            EngineError: there is none.
        """
        reply = await self._transport.get(endpoint, path)
        if reply.status == 404 and older is not None:
            reply = await self._transport.get(endpoint, older)
        return _require(reply)

    def _next_name(self) -> str:
        """Return a name that no other call of any process has."""
        return f"{self._name}-{next(self._numbers)}"

    def _check_width(self, raws: Sequence[Raw]) -> Sequence[Raw]:
        """Return the raws.

        Raises:
            EngineError: one has another number of labels than those before.
        """
        for raw in raws:
            if self._width is not None and len(raw) != self._width:
                raise bad_reply(f"{len(raw)} labels, where there were {self._width} before")
            self._width = len(raw)
        return raws

    def _unsupported(self, what: str) -> EngineError:
        text = f"the protocol {self._card.protocol} takes no {what}"
        return EngineError("engine_refused", text, retryable=False)

    def _always_raw(self, activation: bool | None) -> None:
        if activation:
            raise self._unsupported("wish for an activation: its numbers are always raw")


def text_size(text: Text) -> int:
    """Return about how many tokens a text, or a pair of texts, has."""
    length = len(text) if isinstance(text, str) else len(text[0]) + len(text[1])
    return 1 + length // CHARACTERS_PER_TOKEN


def _require(reply: Reply) -> JsonObject:
    failure = failures.of_reply(reply)
    if failure is not None:
        raise failure.error
    return parse_object(reply)
