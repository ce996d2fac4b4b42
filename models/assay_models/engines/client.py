"""Engine, the interface of all engines, and `open_engine`."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, Protocol

from assay_models.base import ItemError, Raw
from assay_models.card import CardError, EngineCard, ModelCard
from assay_models.engines.assay import AssayEngine
from assay_models.engines.endpoints import Endpoints
from assay_models.engines.http import HttpPool
from assay_models.engines.identity import EngineIdentity
from assay_models.engines.keys import ApiKeyFile
from assay_models.engines.listener import SILENT, EngineListener
from assay_models.engines.protocol import Text
from assay_models.engines.sglang import SglangEngine
from assay_models.engines.tei import TeiEngine
from assay_models.engines.transport import Retries, Transport
from assay_models.engines.vllm import VllmEngine


class Engine(Protocol):
    """An engine that computes raws."""

    @property
    def takes(self) -> Literal["ids", "texts"]:
        """Token ids (`classify`) or texts (`classify_texts`): the other method raises."""

    @property
    def takes_pairs(self) -> bool:
        """Whether beside token ids it takes pairs of texts for a model with one label, so that
        their segments reach it."""

    @property
    def can_activate(self) -> bool:
        """Whether it can also return activated numbers, which proves that the others are raw."""

    async def classify(
        self,
        rows: Sequence[Sequence[int]],
        *,
        activation: bool | None = False,
        whole: bool = False,
    ) -> list[Raw | ItemError]:
        """Return the raws of rows of token ids, or a row's own error, in order.

        Args:
            rows: token ids; nothing is added to them.
            activation: whether to apply sigmoid or softmax; None leaves it to the engine.
            whole: whether to send all rows in one call, which fails as a whole.

        Raises:
            EngineError: a call failed as a whole.
        """

    async def classify_texts(
        self,
        texts: Sequence[Text],
        *,
        activation: bool | None = False,
        fields: tuple[str, str] = ("text", "text_pair"),
        whole: bool = False,
    ) -> list[Raw | ItemError]:
        """Return the raws of texts, or of pairs of texts, which the engine tokenizes.

        Args:
            texts: a text or a pair of texts each.
            activation: as for `classify`.
            fields: names of a pair's two fields in an item of another Assay.
            whole: as for `classify`.

        Raises:
            EngineError: a call failed as a whole.
        """

    async def identity(self) -> EngineIdentity:
        """Ask every URL for its model and version.

        Raises:
            EngineError: no URL answers, one has not the model, or two differ.
        """

    def use(self, urls: Collection[str]) -> None:
        """Send calls to these URLs of the card only. `identity` still asks all of them."""

    async def close(self) -> None:
        """Close all connections."""


_PROTOCOLS: Mapping[str, Callable[[Transport, EngineCard], Engine]] = {
    "vllm": VllmEngine,
    "sglang": SglangEngine,
    "tei": TeiEngine,
    "assay": AssayEngine,
}


def open_engine(
    card: ModelCard,
    *,
    clock: Callable[[], float] = time.monotonic,
    listener: EngineListener = SILENT,
) -> Engine:
    """Return the engine of a card. No call is made yet.

    Args:
        card: a card with a section `[engine]`.
        clock: monotonic seconds, the clock of `deadlines.latest()`.
        listener: receiver of events, for metrics.

    Raises:
        CardError: the card has no such section, or the file with the key cannot be used.
    """
    if card.engine is None:
        raise CardError(f"{card.id}: the card has no section [engine]")
    transport = open_transport(card.id, card.engine, clock=clock, listener=listener)
    return _PROTOCOLS[card.engine.protocol](transport, card.engine)


def open_transport(
    model: str, card: EngineCard, *, clock: Callable[[], float], listener: EngineListener
) -> Transport:
    """Return the transport of a card's section `[engine]`.

    Raises:
        CardError: the file with the key cannot be used.
    """
    endpoints = Endpoints(
        model, card.urls, max_calls=card.max_calls, clock=clock, listener=listener
    )
    http = HttpPool(
        card.max_calls * len(card.urls),
        card.connect_seconds,
        is_encrypted=any(url.startswith("https:") for url in card.urls),
    )
    return Transport(
        endpoints,
        http,
        key=ApiKeyFile(card.api_key_file),
        retries=Retries(card.retries, card.timeout_seconds),
        clock=clock,
        listener=listener,
    )
