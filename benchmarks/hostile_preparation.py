"""Latency of a small interactive request, alone and beside requests that are long to prepare.

A real server; each hostile request is sent once, with a timeout, while the small request is
repeated. A ratio compares times of one run. `prepare` and `queue` are the parts of the latency in
which other requests can be in the way; the rest is the forward pass, and the machine.

Example:
    python -m benchmarks.hostile_preparation --seconds 20
"""

import argparse
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import httpx2

from benchmarks.load import percentile
from benchmarks.memory import started

Body = dict[str, Any]
MODEL = "nli-small"
POLL_SECONDS = 0.2
EVIDENCE = ["The town has a church."]


class Latency(NamedTuple):
    """Milliseconds of one request: in all, and until its inputs were given to the model."""

    total: float
    waited: float


def claims_and_passages() -> list[Body]:
    """Return two requests of 20 items, each with 1,024 short claims and four passages."""
    return [
        _body(
            {
                "evidence": [f"Town {number} has a church." for number in range(4)],
                "claims": [
                    f"Town {claim} of {item} has {which} churches." for claim in range(1024)
                ],
            }
            for item in range(20)
        )
        for which in range(2)
    ]


def long_texts() -> list[Body]:
    """Return one request with eight texts of four megabytes, all too long."""
    long = "word " * 799_000
    return [_body({"premise": long, "hypothesis": f"Town {item}."} for item in range(8))]


def name_prefixes() -> list[Body]:
    """Return two requests with a response of 99 KB that has no end of a sentence."""
    return [
        _body([{"evidence": EVIDENCE, "response": "We saw St. " * 9000 + str(number)}])
        for number in range(2)
    ]


def many_sentences() -> list[Body]:
    """Return two requests with a response of 100,000 sentences."""
    text = "The town has a church number one. " * 100_000
    return [_body([{"evidence": EVIDENCE, "response": text + str(number)}]) for number in range(2)]


def wrong_elements() -> list[Body]:
    """Return one request with 200,000 elements that are no items."""
    return [{"model": MODEL, "items": [1] * 200_000}]


HOSTILE: Mapping[str, Callable[[], list[Body]]] = {
    "claims and passages": claims_and_passages,
    "long texts": long_texts,
    "name prefixes": name_prefixes,
    "many sentences": many_sentences,
    "wrong elements": wrong_elements,
}


def main() -> None:
    """Print the latencies alone, and beside each hostile client with their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args().seconds
    with started(MODEL) as (port, _):
        url = f"http://127.0.0.1:{port}"
        probe = _Probe(url)
        probe.wait_until_ready()
        probe.run(seconds / 4, threading.Event())
        quiet = probe.run(seconds, threading.Event())
        batch = probe.batch_milliseconds()
        print(f"{'alone':20} {_summary(quiet)}, a full batch takes {batch:.0f} ms")
        for name, make in HOSTILE.items():
            beside, statuses = _beside(probe, url, make(), seconds)
            slow, usual = (
                percentile([row.total for row in rows], 0.99) for rows in (beside, quiet)
            )
            ratio, bound = slow / usual, 2 * usual + batch
            verdict = "within" if slow <= bound else "above"
            print(
                f"{name:20} {_summary(beside)}, p99 {ratio:.2f} times alone, {verdict} twice that "
                f"and a batch ({bound:.0f} ms), replies {statuses}"
            )


class _Probe:
    """A small interactive request, never the same twice."""

    def __init__(self, url: str) -> None:
        self._client = httpx2.Client(base_url=url, timeout=120.0)
        self._sent = 0

    def wait_until_ready(self) -> None:
        """Wait until the server has loaded its model."""
        while True:
            with suppress(httpx2.TransportError):
                if self._client.get("/readyz").is_success:
                    return
            time.sleep(POLL_SECONDS)

    def run(self, seconds: float, ended: threading.Event) -> list[Latency]:
        """Repeat the request for so many seconds, or until the event."""
        until = time.monotonic() + seconds
        rows: list[Latency] = []
        while not rows or (time.monotonic() < until and not ended.is_set()):
            rows.append(self._send())
        return rows

    def batch_milliseconds(self) -> float:
        """Return the time of the forward pass of about 4,096 tokens, the largest batch."""
        items = [
            {"premise": f"{number} " + "word " * 50, "hypothesis": "word " * 8}
            for number in range(64)
        ]
        reply = self._client.post("/v1/score", json=_body(items)).raise_for_status()
        milliseconds: float = reply.json()["timing"]["predict_ms"]
        return milliseconds

    def _send(self) -> Latency:
        self._sent += 1
        item = {"premise": EVIDENCE[0], "hypothesis": f"Town {self._sent} has a church."}
        began = time.perf_counter()
        headers = {"X-Assay-Priority": "interactive"}
        reply = self._client.post("/v1/score", json=_body([item]), headers=headers)
        total = 1e3 * (time.perf_counter() - began)
        timing = reply.raise_for_status().json()["timing"]
        return Latency(total, timing["prepare_ms"] + timing["queue_ms"])


def _beside(
    probe: _Probe, url: str, bodies: list[Body], seconds: float
) -> tuple[list[Latency], list[int]]:
    ended, statuses = threading.Event(), list[int]()

    def send(body: Body) -> None:
        with httpx2.Client(base_url=url, timeout=4 * seconds) as client:
            headers = {"X-Assay-Timeout-Ms": f"{1e3 * seconds:.0f}"}
            statuses.append(client.post("/v1/score", json=body, headers=headers).status_code)
        if len(statuses) == len(bodies):
            ended.set()

    threads = [threading.Thread(target=send, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    rows = probe.run(seconds, ended)
    for thread in threads:
        thread.join()
    return rows, statuses


def _body(items: Any) -> Body:
    return {"model": MODEL, "items": list(items)}


def _summary(rows: list[Latency]) -> str:
    return ", ".join(
        f"{name} p50 {percentile(values, 0.5):.1f} ms p99 {percentile(values, 0.99):.1f} ms"
        for name, values in (
            ("latency", [row.total for row in rows]),
            ("prepare and queue", [row.waited for row in rows]),
        )
    )


if __name__ == "__main__":
    main()
