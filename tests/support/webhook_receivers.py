"""A receiver of webhooks on a real socket, with scripted replies."""

import json
import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class ReceivedPost:
    """A POST as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """A webhook endpoint.

    It replies with `statuses` (and their headers) in order, then with 204. Each reply waits until
    `open` is set. Received posts are put in `inbox`.
    """

    statuses: deque[tuple[int, dict[str, str]]] = field(default_factory=deque)
    inbox: "queue.Queue[ReceivedPost]" = field(default_factory=queue.Queue)
    open: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def next_post(self) -> ReceivedPost:
        """Return the next post, waiting for it."""
        return self.inbox.get(timeout=TIMEOUT_SECONDS)


@contextmanager
def dripping(message: bytes, seconds: float) -> Iterator[tuple[str, "queue.Queue[int]"]]:
    """Yield the URL of a receiver that never ends its reply, and a queue of its connections.

    It sends `message` again and again, every few `seconds`, to each connection on a thread.
    """
    closing, connections = threading.Event(), queue.Queue[int]()

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            connections.put(self.client_address[1])
            with suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\n" if message[:1] != b"H" else b"")
                while not closing.wait(seconds):
                    self.wfile.write(message)

    server = ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/hook", connections
    finally:
        closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def receiving() -> Iterator[Receiver]:
    """Yield a receiver that listens on a loopback port."""
    receiver = Receiver()
    receiver.open.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.inbox.put(ReceivedPost(self.path, dict(self.headers.items()), body))
            receiver.open.wait(TIMEOUT_SECONDS)
            status, headers = receiver.statuses.popleft() if receiver.statuses else (204, {})
            self.send_response(status)
            for name, text in headers.items():
                self.send_header(name, text)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook?token=hush"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.open.set()
        server.shutdown()
        thread.join()
        server.server_close()
