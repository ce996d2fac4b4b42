"""Forms of mathematical texts from worker processes, each text read once at a time."""

import asyncio
import hashlib

from cachetools import LRUCache

from assay_models.answers.canonical import Form, Query, Unreadable
from assay_models.workers.pool import WORKERS, LimitExceeded, WorkerPool

FORM, UNREADABLE, LIMIT = b"=", b"?", b"!"
"""The first byte of a reply: a form follows, it is no mathematics, or it is beyond the bounds."""

MAX_KEPT = 1 << 16
"""Texts whose forms are kept."""


class MathForms:
    """The canonical forms of mathematical texts.

    A text is read by a worker once, however many callers ask for it at the same time; its form, or
    that it has none, is kept. Thus a text of which workers die is not tried again.
    """

    def __init__(self, workers: int = WORKERS) -> None:
        self.workers = WorkerPool("assay_models.answers.worker", workers)
        self._slots = asyncio.Semaphore(workers)
        self._kept: LRUCache[bytes, bytes] = LRUCache(MAX_KEPT)
        self._pending: dict[bytes, asyncio.Event] = {}

    async def form(self, query: Query) -> Form:
        """Return the form of a text.

        Raises:
            Unreadable: it is no mathematics, or a worker died of it.
            WorkerUnavailable: the text is not at fault.
        """
        reply = await self._reply(query.text)
        if not reply.startswith(FORM):
            is_limit = reply == LIMIT
            raise Unreadable(
                "it takes too long" if is_limit else "no mathematics", is_limit=is_limit
            )
        return query.form(reply[len(FORM) :].decode())

    async def _reply(self, text: str) -> bytes:
        request = text.encode(errors="replace")
        key = hashlib.sha256(request).digest()
        while (reply := self._kept.get(key)) is None:
            if key in self._pending:
                await self._pending[key].wait()
                continue
            done = self._pending[key] = asyncio.Event()
            try:
                async with self._slots:
                    self._kept[key] = await asyncio.to_thread(self._ask, request)
            finally:  # a caller that waits takes over where this one was cancelled
                del self._pending[key]
                done.set()
        return reply

    def _ask(self, request: bytes) -> bytes:
        try:
            return self.workers.ask(request)
        except LimitExceeded:
            return LIMIT
