"""Mixed honest load for some minutes, with one attacker of each kind beside it in turn.

It starts a server of its own, with two API keys: one for the honest callers, one for the attacker.
The caches are off, so that every honest answer is computed anew, and is compared with the answer to
the same request before the first attack. The last lines state what was lost, what was wrong, and
the server's resident memory at the end as a share of that at the start.

Example:
    python -m benchmarks.soak --minutes 30
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from assay_client import AssayError, AsyncClient
from benchmarks.load import percentile
from benchmarks.mixed_items import text_of
from benchmarks.processes import ProcessTree, free_port
from benchmarks.soak.attacks import ATTACKS, HOST

SEED = 20_261_130
MODELS = "code,nli-small,code-exec"
MIB = 2**20
QUIET = "none"
TOLERANCE = 1e-3
SAMPLE_SECONDS = 1.0
PAUSE_SECONDS = 0.1
CALL_SECONDS = 120.0
POOL = 24

Ask = Callable[[AsyncClient, int], Awaitable[list[float | None]]]


@dataclass
class Phase:
    """The events while one attacker is at work. Times are of small interactive requests."""

    attack: str
    seconds: float
    calls: int = 0
    lost: int = 0
    wrong: int = 0
    p50_ms: float = math.nan
    p99_ms: float = math.nan
    max_ms: float = math.nan
    peak_mib: float = 0.0
    end_mib: float = 0.0
    peak_descriptors: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    problems: dict[str, int] = field(default_factory=dict)


def small_pair(client: AsyncClient, number: int) -> Awaitable[list[float | None]]:
    """Score a claim of a few words, as an interactive caller does."""
    item = {"premise": "The town has a church.", "hypothesis": f"Town {number} has a church."}
    return _scores(client, "nli-small", [item], priority="interactive")


def group_of_claims(client: AsyncClient, number: int) -> Awaitable[list[float | None]]:
    """Score a group of eight answers, as a step of a training run."""
    draw = random.Random(number)  # noqa: S311
    evidence = [f"{text_of(draw, 20).capitalize()}." for _ in range(3)]
    items = [
        {"evidence": evidence, "claims": [f"{text_of(draw, 8).capitalize()}."], "group": "g"}
        for _ in range(8)
    ]
    return _scores(client, "nli-small", items, run="honest", step=number)


def group_of_programs(client: AsyncClient, number: int) -> Awaitable[list[float | None]]:
    """Score four programs for one task."""
    items = [
        {
            "prompt": "Add two numbers.",
            "response": f"```python\ndef add(a, b):\n    return a {sign} b + {number}\n```",
        }
        for sign in "+-*%"
    ]
    return _scores(client, "code", items)


def executed_programs(client: AsyncClient, number: int) -> Awaitable[list[float | None]]:
    """Run a right and a wrong program."""
    items = [
        {
            "response": f"```python\ndef add(a, b):\n    return a {sign} b\n# {number}\n```",
            "tests": [f"assert add({number}, 2) == {number + 2}"],
        }
        for sign in "+-"
    ]
    return _scores(client, "code-exec", items)


async def run_health(client: AsyncClient, number: int) -> list[float | None]:
    """Read the health of the own run, and the server's state."""
    if number % 2:
        return [float(await client.is_ready())]
    health = await client.run_health("honest")
    return [float(health.run == "honest")]


ASKS: tuple[Ask, ...] = (
    small_pair,
    group_of_claims,
    group_of_programs,
    executed_programs,
    run_health,
)


async def _scores(
    client: AsyncClient, model: str, items: list[dict[str, Any]], **options: Any
) -> list[float | None]:
    reply = await client.score(model, items, on_error="none", **options)
    return [result.score for result in reply.results]


class HonestLoad:
    """Callers of every kind, each with a few requests that it repeats.

    Args:
        client: with the honest key.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._expected: dict[tuple[Ask, int], list[float | None]] = {}
        self._latencies: list[float] = []
        self._phase = Phase(QUIET, 0.0)
        self._is_over = False

    async def learn(self) -> None:
        """Keep the answers to all requests, each asked for twice.

        Raises:
            RuntimeError: two answers to one request differ.
        """
        for ask in (*ASKS[1:], ASKS[0]):
            for number in range(POOL):
                first = await ask(self._client, number)
                if not _equal(first, await ask(self._client, number)):
                    raise RuntimeError(f"{ask.__name__} {number}: two answers differ")
                self._expected[ask, number] = first

    async def during(self, phase: Phase, watch: AsyncIterator[None]) -> None:
        """Load the server until `watch` ends, and fill in the phase."""
        self._phase, self._latencies = phase, []
        callers = [asyncio.create_task(self._call(ask)) for ask in ASKS]
        try:
            async for _ in watch:
                for caller in callers:
                    if caller.done():
                        caller.result()
        finally:
            await self._stop(callers)
        times = [1e3 * seconds for seconds in self._latencies]
        phase.p50_ms, phase.p99_ms = percentile(times, 0.5), percentile(times, 0.99)
        phase.max_ms = max(times)

    async def _stop(self, callers: list[asyncio.Task[None]]) -> None:
        """Let every call in flight end: none may be lost."""
        self._is_over = True
        await asyncio.gather(*callers)
        self._is_over = False

    async def _call(self, ask: Ask) -> None:
        number = 0
        while not self._is_over:
            await self._check(ask, number % POOL)
            number += 1
            await asyncio.sleep(PAUSE_SECONDS)

    async def _check(self, ask: Ask, number: int) -> None:
        phase, began = self._phase, time.perf_counter()
        phase.calls += 1
        try:
            answer = await ask(self._client, number)
        except AssayError as error:
            phase.lost += 1
            phase.problems[f"{ask.__name__}: {error}"[:200]] = 1
            return
        if not _equal(answer, self._expected[ask, number]):
            phase.wrong += 1
            phase.problems[f"{ask.__name__}: {answer}"] = 1
        if ask is small_pair:
            self._latencies.append(time.perf_counter() - began)


def _equal(left: list[float | None], right: list[float | None]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(
        a == b or (a is not None and b is not None and abs(a - b) <= TOLERANCE) for a, b in pairs
    )


class Soak:
    """The server, its honest load and its attackers."""

    def __init__(self, tree: ProcessTree, port: int, keys: tuple[str, str]) -> None:
        self._tree, self._port = tree, port
        self._honest, self._hostile = keys
        self._pid = tree.members()[0].pid

    async def run(self, seconds: float) -> list[Phase]:
        """Return the phases: quiet, each attack in turn, and quiet again."""
        names = (QUIET, *ATTACKS, QUIET)
        phases = []
        url = f"http://{HOST}:{self._port}"
        async with AsyncClient(url, api_key=self._honest, timeout=CALL_SECONDS) as client:
            await client.wait_until_ready()
            load = HonestLoad(client)
            await load.learn()
            for name in names:
                phase = Phase(name, seconds / len(names))
                phases.append(phase)
                await load.during(phase, self._watch(phase))
                print(row_of(phase), flush=True)
        return phases

    async def _watch(self, phase: Phase) -> AsyncIterator[None]:
        """Attack, and sample the server's memory and descriptors, until the phase ends."""
        attacker = None
        if phase.attack != QUIET:
            command = [sys.executable, "-m", "benchmarks.soak.attacks", phase.attack]
            options = ["--port", str(self._port), "--key", self._hostile]
            attacker = await asyncio.create_subprocess_exec(
                *command, *options, "--seconds", str(phase.seconds), stdout=asyncio.subprocess.PIPE
            )
        ends = time.monotonic() + phase.seconds
        while time.monotonic() < ends:
            self._sample(phase)
            yield
            await asyncio.sleep(SAMPLE_SECONDS)
        if attacker is not None:
            output, _ = await attacker.communicate()
            phase.answers = dict(Counter(json.loads(output or b"{}")))
        self._sample(phase)

    def _sample(self, phase: Phase) -> None:
        # Of the server alone: a child that was just started shares its parent's memory.
        phase.end_mib = psutil.Process(self._pid).memory_info().rss / MIB
        phase.peak_mib = max(phase.peak_mib, phase.end_mib)
        descriptors = len(os.listdir(f"/proc/{self._pid}/fd"))
        phase.peak_descriptors = max(phase.peak_descriptors, descriptors)


HEADER = (
    f"{'attack':20} {'calls':>6} {'lost':>4} {'wrong':>5} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}"
    f" {'peak MiB':>8} {'end MiB':>8} {'files':>5}  answers"
)


def row_of(phase: Phase) -> str:
    """Return a phase as a row under `HEADER`."""
    answers = ", ".join(f"{name} {count}" for name, count in sorted(phase.answers.items()))
    return (
        f"{phase.attack:20} {phase.calls:6} {phase.lost:4} {phase.wrong:5} {phase.p50_ms:8.1f} "
        f"{phase.p99_ms:8.1f} {phase.max_ms:8.1f} {phase.peak_mib:8.0f} {phase.end_mib:8.0f} "
        f"{phase.peak_descriptors:5}  {answers}{''.join(f'; {name}' for name in phase.problems)}"
    )


def summary_of(phases: list[Phase]) -> str:
    """Return the last lines of the report."""
    first, last = phases[0], phases[-1]
    calls, lost, wrong = (
        sum(getattr(phase, name) for phase in phases) for name in ("calls", "lost", "wrong")
    )
    peak = max(phase.peak_mib for phase in phases)
    return (
        f"honest calls {calls}, lost {lost}, wrong {wrong}\n"
        f"resident memory: {first.end_mib:.0f} MiB at the start, {last.end_mib:.0f} MiB at the end "
        f"({last.end_mib / first.end_mib:.2f} times), peak {peak:.0f} MiB"
    )


@contextlib.contextmanager
def started() -> Iterator[Soak]:
    """Run a server with a key for the honest callers and one for the attacker."""
    with tempfile.TemporaryDirectory(prefix="assay-soak-") as folder:
        port = free_port()
        keys = ("honest-" + os.urandom(16).hex(), "hostile-" + os.urandom(16).hex())
        file = Path(folder) / "keys.toml"
        file.write_text(
            "".join(
                f"[{key.partition('-')[0]}]\nscopes = ['score', 'read', 'record']\n"
                f"sha256 = '{hashlib.sha256(key.encode()).hexdigest()}'\n"
                for key in keys
            )
        )
        own = {
            "ASSAY_MODELS": MODELS,
            "ASSAY_RUNS": str(Path(folder) / "runs.db"),
            "ASSAY_API_KEYS_FILE": str(file),
            "ASSAY_CACHE_BYTES": "0",
            "ASSAY_PREPARED_BYTES": "0",
        }
        program = "from assay.cli import app; app()"
        command = [sys.executable, "-c", program, "serve", "--port", str(port)]
        tree = ProcessTree(command, {**os.environ, **own}, Path(folder) / "server.log")
        try:
            yield Soak(tree, port, keys)
        finally:
            print(tree.log_tail(), file=sys.stderr)
            tree.stop()


def main() -> None:
    """Run the soak; the exit status is 1 if an honest call was lost or answered wrongly."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=30.0, help="in all (30)")
    parser.add_argument("--out", type=Path, help="a file for the phases, in JSON")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with started() as soak:
        print(HEADER, flush=True)
        phases = asyncio.run(soak.run(60 * given.minutes))
    print(summary_of(phases), flush=True)
    if given.out:
        given.out.write_text(json.dumps([asdict(phase) for phase in phases], indent=2) + "\n")
    sys.exit(any(phase.lost or phase.wrong for phase in phases))


if __name__ == "__main__":
    main()
