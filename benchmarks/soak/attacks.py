"""Attacks on a server of this machine: `python -m benchmarks.soak.attacks NAME`, for some seconds.

Each has a key of its own, if any, and prints what it was answered, by status. It opens bounded
numbers of connections, and only to the loopback address.
"""

import argparse
import itertools
import json
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

HOST = "127.0.0.1"
CHUNK = 2**20
MAX_SENT_BYTES = 300 * CHUNK
MAX_SILENT = 900
MAX_SLOW_BODIES = 20
SLOW_SECONDS = 10.0
PAUSE_SECONDS = 0.05
REQUEST_SECONDS = 60.0
ANSWER_BYTES = 65_536
EVIDENCE = ["The town has a church."]


@dataclass
class Attack:
    """One attacker's tools: the server's port, its own key, and the time that is left."""

    port: int
    key: str
    ends: float
    file: Path | None = None
    answers: Counter[str] = field(default_factory=Counter)

    def rounds(self, pause: float = PAUSE_SECONDS) -> Iterator[int]:
        """Yield numbers until the time is over, with a pause between them."""
        for number in itertools.count():
            if time.monotonic() > self.ends:
                return
            yield number
            time.sleep(pause)

    def connect(self) -> socket.socket:
        """Open a connection whose operations end after a second."""
        connection = socket.create_connection((HOST, self.port), timeout=1.0)
        connection.settimeout(1.0)
        return connection

    def flood(self, first: bytes, more: bytes) -> None:
        """Send bytes without end on one connection, and count how it was answered."""
        sent = 0
        with suppress(OSError), self.connect() as connection:
            try:
                connection.sendall(first)
                while sent < MAX_SENT_BYTES and time.monotonic() < self.ends:
                    connection.sendall(more)
                    sent += len(more)
            except OSError:
                sent = -1
            answer = b""
            with suppress(OSError):
                answer = connection.recv(ANSWER_BYTES)
            self.answers[answer[9:12].decode() or ("closed" if sent < 0 else "taken")] += 1

    def post(self, path: str, body: Any, **options: Any) -> httpx2.Response | None:
        """Post a body, and count the status; None if there was no reply."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        headers.update(options.get("headers", {}))
        try:
            reply = httpx2.post(
                f"http://{HOST}:{self.port}{path}",
                content=content,
                headers=headers,
                timeout=min(REQUEST_SECONDS, max(1.0, self.ends - time.monotonic())),
            )
        except httpx2.HTTPError as error:
            self.answers[type(error).__name__] += 1
            return None
        self.answers[str(reply.status_code)] += 1
        return reply

    def score(self, model: str, *items: Mapping[str, Any], **options: Any) -> list[float | None]:
        """Post items; return their scores."""
        reply = self.post("/v1/score", {"model": model, "items": list(items)}, **options)
        if reply is None or not reply.is_success:
            return []
        return [row["score"] for row in reply.json()["results"]]


def endless_headers(attack: Attack) -> None:
    """Send headers, one header, a path and trailers without end; no key."""
    start = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
    chunked = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    kinds = [
        (start, b"a:\r\n" * 250_000),
        (start, b"X-n: " + b"v" * 90 + b"\r\n"),
        (start + b"X: ", b"v" * CHUNK),
        (b"GET /", b"v" * CHUNK),
        (chunked + b"0\r\n", b"a: b\r\n" * 100_000),
        (chunked + b"5;", b"a=b;" * 100_000),
    ]
    for number in attack.rounds():
        attack.flood(*kinds[number % len(kinds)])


def silent_connections(attack: Attack) -> None:
    """Hold connections that send nothing; no key."""
    held: list[socket.socket] = []
    for _ in attack.rounds(0.0 if len(held) < MAX_SILENT else PAUSE_SECONDS):
        if len(held) >= MAX_SILENT:
            held.pop(0).close()
        try:
            held.append(attack.connect())
            attack.answers["open"] += 1
        except OSError:
            attack.answers["refused"] += 1
            time.sleep(PAUSE_SECONDS)


def slow_bodies(attack: Attack) -> None:
    """Send bodies of 32 MiB but for their end, and drip."""
    head = (
        f"POST /v1/score HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {attack.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {32 * CHUNK}\r\n\r\n"
    ).encode()
    held: list[socket.socket] = []
    for number in attack.rounds():
        if len(held) < MAX_SLOW_BODIES:
            with suppress(OSError):
                connection = attack.connect()
                connection.settimeout(SLOW_SECONDS)
                connection.sendall(head + b" " * 31 * CHUNK)
                held.append(connection)
                attack.answers["open"] += 1
                continue
            attack.answers["refused"] += 1
            continue
        try:
            held[number % len(held)].sendall(b" ")
        except OSError:
            held.pop(number % len(held)).close()
            attack.answers["closed"] += 1


def wrong_elements(attack: Attack) -> None:
    """Post lists of a million elements that are no items, to several routes."""
    ones = json.dumps([1] * 1_000_000)
    bodies = {
        "/v1/score": f'{{"model": "nli-small", "items": {ones}}}',
        "/v2/models/code/infer": '{"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", '
        f'"data": {ones}}}]}}',
        "/v1/rerank": f'{{"model": "nli-small", "query": "a", "documents": {ones}}}',
        "/classify": f'{{"model": "nli-small", "input": {ones}}}',
    }
    for number in attack.rounds():
        path = list(bodies)[number % len(bodies)]
        attack.post(path, bodies[path].encode())


def name_prefixes(attack: Attack) -> None:
    """Post responses of 99 KB that have no end of a sentence."""
    for number in attack.rounds():
        response = "We saw St. " * 9000 + str(number)
        attack.score("nli-small", {"evidence": EVIDENCE, "response": response})


def claims_and_passages(attack: Attack) -> None:
    """Post 20 items, each with 1,024 claims and four passages."""
    for number in attack.rounds():
        items = [
            {
                "evidence": [f"Town {place} has a church." for place in range(4)],
                "claims": [f"Town {claim} of {item} has {number}." for claim in range(1024)],
            }
            for item in range(20)
        ]
        attack.score("nli-small", *items, headers={"X-Assay-Timeout-Ms": "20000"})


def long_texts(attack: Attack) -> None:
    """Post eight texts of four megabytes."""
    text = "word " * 799_000
    for number in attack.rounds():
        items = [{"premise": text, "hypothesis": f"{number} {item}."} for item in range(8)]
        attack.score("nli-small", *items, headers={"X-Assay-Timeout-Ms": "20000"})


SHARED_MEMORY = """
import ctypes, os
def add(a, b):
    c = ctypes.CDLL(None, use_errno=True)
    c.shmat.restype = ctypes.c_void_p
    for _ in range(10):
        segment = c.shmget(0, 200 << 20, 0o1600)
        address = c.shmat(segment, None, 0)
        ctypes.memset(address, 1, 200 << 20)
    files = [os.memfd_create("m") for _ in range(40)]
    for file in files:
        os.write(file, bytes(15 << 20))
    return a + b
"""
ALWAYS_EQUAL = """
class Equal:
    def __eq__(self, other): return True
    def __sub__(self, other): return self
    def __abs__(self): return self
    def __lt__(self, other): return True
    def __getitem__(self, place): return self
def add(a, b):
    return Equal()
"""
EARLY_EXIT = "import os\nos._exit(0)\ndef add(a, b):\n    return a\n"
SLEEP = "import time\ndef add(a, b):\n    time.sleep(50)\n    return a + b\n"
TESTS = [
    "assert add(1, 2) == 3",
    "r = add(1, 2)\nassert r == 3",
    "assert abs(add(1, 2) - 3) < 1e-6",
    "import unittest\nclass T(unittest.TestCase):\n"
    "    def test(self):\n        self.assertEqual(add(1, 2), 3)",
]


def _program(text: str, number: int) -> dict[str, Any]:
    return {"response": f"```python\n# {number}\n{text}```", "tests": [TESTS[number % len(TESTS)]]}


def hostile_programs(attack: Attack) -> None:
    """Run programs that take memory, forge equality, exit early or sleep; none may score 1."""
    kinds = (SHARED_MEMORY, ALWAYS_EQUAL, EARLY_EXIT, SLEEP)
    for number in attack.rounds():
        scores = attack.score("code-exec", _program(kinds[number % len(kinds)], number))
        attack.answers["forged passes"] += sum(score == 1.0 for score in scores)


def damaged_rows(attack: Attack) -> None:
    """Ask for a run whose name cannot be kept, and send telemetry of every kind of damage."""
    for number in attack.rounds():
        name = ("..", "a%0Ab", "x" * 200, f"noise-{number}")[number % 4]
        values = {"entropy": 1.7e308 if number % 2 else 5e-324}
        attack.post(f"/v1/runs/{name}/telemetry", {"step": number % 7, "values": values})


def many_runs(attack: Attack) -> None:
    """Begin runs without end, to push out those of others."""
    for number in attack.rounds(0.0):
        path = f"/v1/runs/evil-{number}/telemetry"
        attack.post(path, {"step": 0, "values": {"entropy": 1.0}})


def many_streams(attack: Attack) -> None:
    """Begin streams and gold sources of one run without end, and read its reports."""
    items = [{"prompt": "p", "proxy": 0.1, "gold": 0.2}, {"prompt": "p", "proxy": 0.3, "gold": 0.1}]
    for number in attack.rounds(0.0):
        item = {"premise": "a b", "hypothesis": "c d"}
        run = {"id": "evil", "step": 1, "split": f"s{number}"}
        attack.post("/v1/score", {"model": "nli-small", "items": [item], "run": run})
        gold = {"step": 1, "source": f"g{number}", "items": items}
        attack.post("/v1/runs/evil/gold", gold)


def unread_jobs(attack: Attack) -> None:
    """Submit jobs with large fields, and never fetch them."""
    prompt = "x" * (4 * CHUNK)
    for number in attack.rounds():
        body = {
            "prompt": prompt,
            "response": f"```python\n# {number}\n{SLEEP}```",
            "rollout_id": str(number),
            "reward_info": {"tests": [TESTS[0]]},
        }
        attack.post("/compat/roll/code-exec/submit", body)


def guessed_keys(attack: Attack) -> None:
    """Guess keys, from web pages of others and under other hosts' names too."""
    for number in attack.rounds(0.0):
        headers = {
            "Authorization": f"Bearer guess-{number:032}",
            "Host": "evil.example",
            "Origin": "https://evil.example",
        }
        attack.post("/v1/score", {"model": "nli-small", "items": []}, headers=headers)


def upgrades(attack: Attack) -> None:
    """Offer to change the protocol, with a body that is a request of its own."""
    inner = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    head = (
        "POST /v1/score HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {attack.key}\r\nContent-Length: {len(inner)}\r\n\r\n"
    ).encode()
    for _ in attack.rounds():
        with suppress(OSError), attack.connect() as connection:
            connection.sendall(head)
            connection.sendall(inner)
            answer = connection.recv(ANSWER_BYTES)
            attack.answers[answer[9:12].decode() or "closed"] += 1


ATTACKS: Mapping[str, Callable[[Attack], None]] = {
    attack.__name__.replace("_", " "): attack
    for attack in (
        endless_headers,
        silent_connections,
        slow_bodies,
        wrong_elements,
        name_prefixes,
        claims_and_passages,
        long_texts,
        hostile_programs,
        damaged_rows,
        many_runs,
        many_streams,
        unread_jobs,
        guessed_keys,
        upgrades,
    )
}


def main() -> None:
    """Attack for some seconds; print the answers as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.attacks", description=__doc__)
    parser.add_argument("name", choices=ATTACKS)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--key", default="")
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    attack = Attack(given.port, given.key, time.monotonic() + given.seconds)
    ATTACKS[given.name](attack)
    print(json.dumps(attack.answers))


if __name__ == "__main__":
    main()
