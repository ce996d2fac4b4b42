"""Scheduler: the waiting entries, and the choice of those in the next batch.

Pure: the time is passed in, nothing is computed, and there are no futures and no threads. Lanes
share the device by deficit round robin; within a lane, entries are ordered by virtual start time.
"""

from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from assay.types import LANES, Lane
from assay_models.base import Input

RANK: dict[Lane, int] = {lane: rank for rank, lane in enumerate(LANES)}
MIN_SHARE: dict[Lane, float] = {"interactive": 0.0, "training": 1 / 4, "bulk": 1 / 8}
"""Of the tokens computed for a lane and those above it, the share that the lane gets at least."""
RESERVED: dict[Lane, int] = {"interactive": 0, "training": 16, "bulk": 4}
"""One part in this many of the queue is kept from this lane and those below it."""

Cost = Callable[[Sequence[Input]], int]

WINDOW = 1024
AGEING_FACTOR = 4.0
ASSUMED_SPEED = 10_000.0
SMOOTHING = 0.2
MAX_PADDING_SHARE = 1 / 2
FREE_PADDING_SHARE = 1 / 16


class Schedulable(Protocol):
    """The part of an entry that the scheduler reads and writes; see `batching.entry.Entry`."""

    input: Input
    lane: Lane
    deadline: float
    enqueued: float
    virtual_start: float
    number: int
    ticket: int


EntryT = TypeVar("EntryT", bound=Schedulable)
_Place = tuple[float, int, int, EntryT]


@dataclass(frozen=True, slots=True)
class Batch(Generic[EntryT]):
    """The entries of one forward pass, the leader first, and those found expired.

    `by_share`: the leader's lane went before a waiting higher one. `deficits`: those of the lanes
    before the batch was formed, to undo it.
    """

    entries: list[EntryT]
    expired: list[EntryT]
    lane: Lane = "interactive"
    by_share: bool = False
    deficits: tuple[float, ...] = ()


class ThroughputEstimator:
    """Running estimates of tokens per second, from the forward passes so far."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0
        self._since = float("-inf")
        self._speed = ASSUMED_SPEED
        self._seen_full = False

    @property
    def drain_rate(self) -> float | None:
        """Tokens settled per second of wall clock while there is work, gaps included; recent
        forward passes weigh most. None before the first."""
        return self._tokens / self._seconds if self._seconds > 0 else None

    @property
    def speed(self) -> float:
        """Tokens per second of the device with a full batch; `ASSUMED_SPEED` until there was one. A
        small batch underestimates it, so it only ever raises the estimate."""
        return self._speed

    def resume(self, now: float) -> None:
        """Restart the wall clock, because work arrived after an idle period."""
        self._since = now

    def record(self, tokens: int, seconds: float, ended: float, full: bool) -> None:
        """Add one forward pass.

        Args:
            tokens: the tokens that it settled.
            seconds: its time on the device.
            ended: the clock's time at its end.
            full: whether it used most of the budget.
        """
        busy, self._since = ended - self._since, ended
        if tokens <= 0 or seconds <= 0 or busy <= 0:
            return
        self._tokens += tokens - SMOOTHING * self._tokens
        self._seconds += busy - SMOOTHING * self._seconds
        rate = tokens / seconds
        if rate > self._speed or (full and not self._seen_full):
            self._speed = rate
        elif full:
            self._speed += SMOOTHING * (rate - self._speed)
        self._seen_full |= full


class LaneQueue(Generic[EntryT]):
    """The waiting entries of one lane, by virtual start time.

    `held` counts the tokens that are waiting or being computed, `tokens` those waiting alone.
    Entries that left stay in the list until a window passes them or they outnumber the others.
    """

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.quantum = MIN_SHARE[lane] / (1 - MIN_SHARE[lane])
        self.held = 0
        self.count = 0
        self.tokens = 0
        self.deficit = 0.0
        self._order: list[_Place[EntryT]] = []

    def add(self, entry: EntryT, ticket: int) -> None:
        """Insert an entry by its virtual start, under a new ticket."""
        entry.ticket = ticket
        insort(self._order, (entry.virtual_start, entry.number, ticket, entry))
        self.count += 1
        self.tokens += entry.input.tokens

    def remove(self, entry: EntryT) -> None:
        """Take an entry out, wherever it is in the lane."""
        entry.ticket = 0
        self.count -= 1
        self.tokens -= entry.input.tokens
        if not self.count:
            self._order.clear()
        elif len(self._order) > 2 * self.count + WINDOW:
            self._order = [place for place in self._order if place[3].ticket == place[2]]

    def window(self, now: float, expired: list[EntryT]) -> list[EntryT]:
        """Return the first `WINDOW` entries, moving those past their deadline to `expired`."""
        places: list[_Place[EntryT]] = []
        late: list[EntryT] = []
        passed = 0
        for place in self._order:
            passed += 1
            entry = place[3]
            if entry.ticket != place[2]:
                continue
            if entry.deadline <= now:
                late.append(entry)
                continue
            places.append(place)
            if len(places) == WINDOW:
                break
        if passed > len(places):
            self._order[:passed] = places
        for entry in late:
            self.remove(entry)
        expired += late
        return [place[3] for place in places]


class Scheduler(Generic[EntryT]):
    """Waiting entries in lanes, and the order in which they go.

    Order: a higher lane goes first. Within a lane the entry with the smallest virtual start leads:
    its arrival plus `AGEING_FACTOR` times the seconds it takes to compute. So within its lane an
    entry waits only for batches led by entries with an earlier virtual start, at most one for each;
    a longer entry leads before it only if it arrived at least `AGEING_FACTOR` times the difference
    of their computing times earlier. Besides, it waits for the batch on the device and, under load,
    the one staged behind it. Each costs no more than the batch budget, or is a single entry. No
    entry starves: what arrives after its virtual start never leads before it.

    Shares: while a lower lane waits, its deficit grows by its quantum with each token computed for
    the lanes above it, and it leads a batch as soon as the deficit covers its first entry (deficit
    round robin, Shreedhar and Varghese 1995). It gets its minimum share of the tokens, short of at
    most its first entry and two batches.

    Room: a request is admitted whole or not at all. Bulk may hold three quarters of the queue,
    training and bulk together fifteen sixteenths, so that interactive work always finds room.

    Args:
        cost: tokens that one forward pass of these inputs computes.
        max_tokens: the bound on the tokens (true lengths) of entries added and not yet released.
        throughput: the estimate that the caller keeps up to date.
    """

    def __init__(self, cost: Cost, max_tokens: int, throughput: ThroughputEstimator) -> None:
        self._cost = cost
        self._max_tokens = max_tokens
        self._throughput = throughput
        self._queues: list[LaneQueue[EntryT]] = [LaneQueue(lane) for lane in LANES]
        self._tickets = 0
        self._latest = float("-inf")
        self._offset = 0.0

    @property
    def tokens(self) -> int:
        """Tokens added and not yet released, whether waiting or being computed."""
        return sum(queue.held for queue in self._queues)

    def room(self, lane: Lane) -> int:
        """Return the tokens that this lane and those below it may hold together."""
        return self._max_tokens - reserve(self._max_tokens, lane)

    def excess(self, tokens: int, lane: Lane) -> int:
        """Return by how many tokens `tokens` more would exceed the room; 0 or less if they fit."""
        below = 0
        worst = -self._max_tokens
        for queue in reversed(self._queues):
            below += queue.held
            if RANK[queue.lane] <= RANK[lane]:
                worst = max(worst, below + tokens - self.room(queue.lane))
        return worst

    def add(self, entry: EntryT) -> None:
        """Queue an entry and fix its virtual start. The caller checks the room first."""
        ageing = AGEING_FACTOR * entry.input.tokens / self._throughput.speed
        entry.virtual_start = self._time(entry.enqueued) + ageing
        entry.number = self._ticket()
        queue = self._queue(entry.lane)
        queue.held += entry.input.tokens
        queue.add(entry, entry.number)

    def promote(self, entry: EntryT, lane: Lane) -> None:
        """Move an entry up to `lane`, keeping its virtual start; a lower lane changes nothing."""
        if RANK[lane] >= RANK[entry.lane]:
            return
        old, new = self._queue(entry.lane), self._queue(lane)
        old.held -= entry.input.tokens
        new.held += entry.input.tokens
        entry.lane = lane
        if entry.ticket:
            old.remove(entry)
            new.add(entry, self._ticket())

    def release(self, entry: EntryT) -> None:
        """Remove a settled entry and free its room. Call once for each entry."""
        queue = self._queue(entry.lane)
        queue.held -= entry.input.tokens
        if entry.ticket:
            queue.remove(entry)

    def holds_full_batch(self, max_tokens: int, max_size: int) -> bool:
        """Return whether the waiting entries would fill a batch."""
        count = sum(queue.count for queue in self._queues)
        return count >= max_size or sum(queue.tokens for queue in self._queues) >= max_tokens

    def form(self, now: float, max_tokens: int, max_size: int) -> Batch[EntryT]:
        """Take out the next batch.

        It holds the leader, the entries that share its prefix, and those nearest to it in length,
        from its own lane, then from the others. It costs no more than `max_tokens`, unless it is
        one entry alone; `_fits` says what else is left out.

        Args:
            now: the clock's time.
            max_tokens: the budget of the batch.
            max_size: the maximum number of rows.
        """
        expired: list[EntryT] = []
        windows = {
            queue.lane: window
            for queue in self._queues
            if queue.count and (window := queue.window(now, expired))
        }
        if not windows:
            return Batch([], expired)
        lane = self._leading(windows)
        by_share = lane != next(iter(windows))
        candidates = _candidates(lane, windows, max_size)
        entries = candidates[: self._fitting(candidates, max_tokens)]
        for entry in entries:
            self._queue(entry.lane).remove(entry)
        deficits = tuple(queue.deficit for queue in self._queues)
        self._update_deficits(entries, lane if by_share else None)
        return Batch(entries, expired, lane, by_share, deficits)

    def put_back(self, batch: Batch[EntryT], entries: Iterable[EntryT]) -> None:
        """Undo the latest `form` for those of its entries that are still wanted."""
        for queue, deficit in zip(self._queues, batch.deficits, strict=True):
            queue.deficit = deficit
        for entry in entries:
            self._queue(entry.lane).add(entry, self._ticket())

    def _queue(self, lane: Lane) -> LaneQueue[EntryT]:
        return self._queues[RANK[lane]]

    def _ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def _time(self, now: float) -> float:
        """Return the clock's time, continued from where it was if the clock was set back."""
        self._offset += max(0.0, self._latest - now)
        self._latest = now
        return now + self._offset

    def _leading(self, windows: dict[Lane, list[EntryT]]) -> Lane:
        first, *others = windows
        for lane in others:
            if self._queue(lane).deficit >= windows[lane][0].input.tokens:
                return lane
        return first

    def _fitting(self, candidates: Sequence[EntryT], max_tokens: int) -> int:
        inputs = [entry.input for entry in candidates]
        if len(inputs) == 1 or self._fits(inputs, max_tokens):
            return len(inputs)
        low, high = 1, len(inputs)
        while high - low > 1:
            middle = (low + high) // 2
            if self._fits(inputs[:middle], max_tokens):
                low = middle
            else:
                high = middle
        return low

    def _fits(self, inputs: Sequence[Input], max_tokens: int) -> bool:
        """Return whether these inputs are within the budget and not mostly padding.

        A short leader does not take in a much longer entry that would make it wait, unless all of
        them are so small that a forward pass of their own costs more.
        """
        cost = self._cost(inputs)
        true = sum(row.tokens for row in inputs)
        max_padding = max(true * MAX_PADDING_SHARE, max_tokens * FREE_PADDING_SHARE)
        return cost <= max_tokens and cost - true <= max_padding

    def _update_deficits(self, entries: Sequence[EntryT], paying: Lane | None) -> None:
        """Account for the tokens computed.

        The lane that led by its share pays in full and may go below zero; what another lane gets in
        the same batch is paid from a positive deficit only.
        """
        true = sum(entry.input.tokens for entry in entries)
        computed = self._cost([entry.input for entry in entries]) / max(1, true)
        above = 0.0
        for queue in self._queues:
            own = computed * sum(
                entry.input.tokens for entry in entries if entry.lane == queue.lane
            )
            queue.deficit += queue.quantum * above
            floor = queue.deficit - own if queue.lane == paying else min(0.0, queue.deficit)
            queue.deficit = max(floor, queue.deficit - own)
            if not queue.count:
                queue.deficit = min(0.0, queue.deficit)
            above += own


def padded_cost(inputs: Sequence[Input]) -> int:
    """Return the tokens of a forward pass whose rows are padded to the longest."""
    return len(inputs) * max((row.tokens for row in inputs), default=0)


def reserve(amount: int, lane: Lane) -> int:
    """Return the part of a queue's room that this lane and those below it may not hold."""
    return amount // RESERVED[lane] if RESERVED[lane] else 0


def _candidates(lane: Lane, windows: dict[Lane, list[EntryT]], max_size: int) -> list[EntryT]:
    leader = windows[lane][0]
    prefix, length = leader.input.prefix_key, leader.input.tokens

    def distance(entry: EntryT) -> int:
        if prefix and entry.input.prefix_key == prefix:
            return -1
        return abs(entry.input.tokens - length)

    nearest: list[EntryT] = []
    for candidate in (lane, *(other for other in windows if other != lane)):
        nearest += sorted(windows[candidate], key=distance)[: max_size - len(nearest)]
    return nearest
