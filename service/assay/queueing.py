"""Queue: who may wait, and who goes into the next batch. It is told the time, computes nothing, and
knows neither futures nor threads.
"""

from bisect import insort
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, get_args

from assay_models.base import Input

Lane = Literal["interactive", "training", "bulk"]
LANES: tuple[Lane, ...] = get_args(Lane)
RANK: dict[Lane, int] = {lane: rank for rank, lane in enumerate(LANES)}
SHARES: dict[Lane, float] = {"interactive": 0.0, "training": 1 / 4, "bulk": 1 / 8}
"""Of the tokens computed for a lane and those above it, what the lane gets at least if it waits."""
RESERVED: dict[Lane, int] = {"interactive": 0, "training": 16, "bulk": 4}
"""One part in so many of the queue is kept from this lane and those below it."""

Cost = Callable[[Sequence[Input]], int]

WINDOW = 1024
PATIENCE = 4.0
ASSUMED_SPEED = 10_000.0
SMOOTHING = 0.2
PADDING = 1 / 2
PADDING_ALWAYS_FINE = 1 / 16


@dataclass(slots=True, eq=False)
class Entry:
    """One input, with all that decides when it goes: `turn`, in seconds of the queue's own time,
    and for equal turns `number`, both fixed when it comes. `ticket` is its place in a lane, 0 when
    it waits no more."""

    input: Input
    lane: Lane
    deadline: float
    enqueued: float
    turn: float = 0.0
    number: int = 0
    ticket: int = 0


EntryT = TypeVar("EntryT", bound=Entry)
_Place = tuple[float, int, int, EntryT]


@dataclass(frozen=True, slots=True)
class Batch(Generic[EntryT]):
    """What goes next, its leader first, and what had expired and goes nowhere.

    `by_share`: the leader's lane went before a higher one that waits. `credits`: the lanes' before.
    """

    entries: list[EntryT]
    expired: list[EntryT]
    lane: Lane = "interactive"
    by_share: bool = False
    credits: tuple[float, ...] = ()


class Pace:
    """Tokens per second, as measured."""

    def __init__(self) -> None:
        self._tokens = 0.0
        self._seconds = 0.0
        self._since = float("-inf")
        self._speed = ASSUMED_SPEED
        self._seen_full = False

    @property
    def drain(self) -> float | None:
        """Tokens settled per second of wall clock while there is work, gaps included; the latest
        forward passes count most. None before the first."""
        return self._tokens / self._seconds if self._seconds > 0 else None

    @property
    def speed(self) -> float:
        """Tokens per second of the device with a full batch, assumed until there was one. A small
        batch cannot show it, so it only ever raises the estimate."""
        return self._speed

    def resume(self, now: float) -> None:
        """Work has come after a time without any."""
        self._since = now

    def count(self, tokens: int, seconds: float, ended: float, full: bool) -> None:
        """A forward pass settled so many tokens; `full`: it used most of the budget."""
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


class _Line(Generic[EntryT]):
    """One lane's entries by turn. What left stays in the list until it is passed, or until such
    leftovers outweigh the rest."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane
        self.ratio = SHARES[lane] / (1 - SHARES[lane])
        self.held = 0
        self.count = 0
        self.tokens = 0
        self.credit = 0.0
        self._order: list[_Place[EntryT]] = []

    def add(self, entry: EntryT, ticket: int) -> None:
        entry.ticket = ticket
        insort(self._order, (entry.turn, entry.number, ticket, entry))
        self.count += 1
        self.tokens += entry.input.tokens

    def remove(self, entry: EntryT) -> None:
        entry.ticket = 0
        self.count -= 1
        self.tokens -= entry.input.tokens
        if not self.count:
            self._order.clear()
        elif len(self._order) > 2 * self.count + WINDOW:
            self._order = [place for place in self._order if place[3].ticket == place[2]]

    def window(self, now: float, expired: list[EntryT]) -> list[EntryT]:
        """The first `WINDOW` entries by turn; those found past their deadline are taken out."""
        found: list[_Place[EntryT]] = []
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
            found.append(place)
            if len(found) == WINDOW:
                break
        if passed > len(found):
            self._order[:passed] = found
        for entry in late:
            self.remove(entry)
        expired += late
        return [place[3] for place in found]


class Queue(Generic[EntryT]):
    """Waiting inputs in lanes.

    Order: a higher lane goes first. Within a lane the smallest turn leads, where an entry's turn is
    when it came plus `PATIENCE` times the seconds it takes to compute. So in its lane an entry
    waits only for batches led by what came before its turn, at most one for each; and a longer one
    leads before it only if that came at least `PATIENCE` times the difference of their computing
    times earlier. Besides it waits for the batch on the device and, under load, the one staged
    behind it. Each costs no more than the batch budget, or is one input alone. Nothing starves:
    what comes after an entry's turn never leads before it.

    Shares: while a lower lane waits, it earns credit with each token computed for those above it,
    and leads a batch as soon as its credit pays for its first entry. It so gets its share of the
    tokens, short of at most its first entry and two batches.

    Room: a request is let in whole or not at all. Bulk may hold three quarters of the queue,
    training and bulk together fifteen sixteenths, so that they cannot keep interactive work out.

    Args:
        cost: tokens that one forward pass of some inputs computes.
        max_tokens: of all entries added and not yet released, their true lengths.
        pace: measured by the caller.
    """

    def __init__(self, cost: Cost, max_tokens: int, pace: Pace) -> None:
        self._cost = cost
        self._max_tokens = max_tokens
        self._pace = pace
        self._lines: list[_Line[EntryT]] = [_Line(lane) for lane in LANES]
        self._tickets = 0
        self._latest = float("-inf")
        self._offset = 0.0

    @property
    def tokens(self) -> int:
        """Held: added and not yet released, whether waiting or being computed."""
        return sum(line.held for line in self._lines)

    def room(self, lane: Lane) -> int:
        """Tokens that this lane and those below it may hold together."""
        return self._max_tokens - _reserve(self._max_tokens, lane)

    def excess(self, tokens: int, lane: Lane) -> int:
        """By how many tokens too many so many more would be; 0 or less if there is room."""
        below = 0
        worst = -self._max_tokens
        for line in reversed(self._lines):
            below += line.held
            if RANK[line.lane] <= RANK[lane]:
                worst = max(worst, below + tokens - self.room(line.lane))
        return worst

    def add(self, entry: EntryT) -> None:
        """Let an entry wait, and fix its turn. Whether there is room is the caller's to ask."""
        entry.turn = self._time(entry.enqueued) + PATIENCE * entry.input.tokens / self._pace.speed
        entry.number = self._ticket()
        line = self._line(entry.lane)
        line.held += entry.input.tokens
        line.add(entry, entry.number)

    def promote(self, entry: EntryT, lane: Lane) -> None:
        """Move an entry up to `lane`, where it keeps its turn; a lower lane changes nothing."""
        if RANK[lane] >= RANK[entry.lane]:
            return
        old, new = self._line(entry.lane), self._line(lane)
        old.held -= entry.input.tokens
        new.held += entry.input.tokens
        entry.lane = lane
        if entry.ticket:
            old.remove(entry)
            new.add(entry, self._ticket())

    def release(self, entry: EntryT) -> None:
        """An entry is settled: it waits no more and takes no more room. Call once for each."""
        line = self._line(entry.lane)
        line.held -= entry.input.tokens
        if entry.ticket:
            line.remove(entry)

    def holds_full_batch(self, max_tokens: int, max_size: int) -> bool:
        """Whether what waits would fill a batch."""
        count = sum(line.count for line in self._lines)
        return count >= max_size or sum(line.tokens for line in self._lines) >= max_tokens

    def form(self, now: float, max_tokens: int, max_size: int) -> Batch[EntryT]:
        """Take out the next batch: the leader, its kin, and the entries nearest to it in length,
        from its own lane, then from the others. It costs no more than `max_tokens`, unless it is
        one entry alone; see `_fits` for what else is left out.
        """
        expired: list[EntryT] = []
        windows = {
            line.lane: window
            for line in self._lines
            if line.count and (window := line.window(now, expired))
        }
        if not windows:
            return Batch([], expired)
        lane = self._leading(windows)
        by_share = lane != next(iter(windows))
        candidates = _candidates(lane, windows, max_size)
        entries = candidates[: self._fitting(candidates, max_tokens)]
        for entry in entries:
            self._line(entry.lane).remove(entry)
        credits = tuple(line.credit for line in self._lines)
        self._charge(entries, lane if by_share else None)
        return Batch(entries, expired, lane, by_share, credits)

    def put_back(self, batch: Batch[EntryT], entries: Iterable[EntryT]) -> None:
        """Undo the latest `form` for those of its entries that are still wanted."""
        for line, credit in zip(self._lines, batch.credits, strict=True):
            line.credit = credit
        for entry in entries:
            self._line(entry.lane).add(entry, self._ticket())

    def _line(self, lane: Lane) -> _Line[EntryT]:
        return self._lines[RANK[lane]]

    def _ticket(self) -> int:
        self._tickets += 1
        return self._tickets

    def _time(self, now: float) -> float:
        """The clock's time, going on from where it was if the clock has been set back."""
        self._offset += max(0.0, self._latest - now)
        self._latest = now
        return now + self._offset

    def _leading(self, windows: dict[Lane, list[EntryT]]) -> Lane:
        first, *others = windows
        for lane in others:
            if self._line(lane).credit >= windows[lane][0].input.tokens:
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
        """Within the budget, and not mostly padding: a short leader takes in no much longer entry
        that would make it wait, unless all is so small that a forward pass of its own costs more.
        """
        cost = self._cost(inputs)
        true = sum(one.tokens for one in inputs)
        bearable = max(true * PADDING, max_tokens * PADDING_ALWAYS_FINE)
        return cost <= max_tokens and cost - true <= bearable

    def _charge(self, entries: Sequence[EntryT], paying: Lane | None) -> None:
        """Book the tokens computed. The lane that led by its share pays in full, and may go into
        debt; what a lane gets besides costs it credit that it has."""
        true = sum(entry.input.tokens for entry in entries)
        computed = self._cost([entry.input for entry in entries]) / max(1, true)
        above = 0.0
        for line in self._lines:
            own = computed * sum(e.input.tokens for e in entries if e.lane == line.lane)
            line.credit += line.ratio * above
            least = line.credit - own if line.lane == paying else min(0.0, line.credit)
            line.credit = max(least, line.credit - own)
            if not line.count:
                line.credit = min(0.0, line.credit)
            above += own


def padded_cost(inputs: Sequence[Input]) -> int:
    """Tokens of a forward pass whose rows are padded to the longest."""
    return len(inputs) * max((one.tokens for one in inputs), default=0)


def _reserve(tokens: int, lane: Lane) -> int:
    return tokens // RESERVED[lane] if RESERVED[lane] else 0


def _candidates(lane: Lane, windows: dict[Lane, list[EntryT]], max_size: int) -> list[EntryT]:
    leader = windows[lane][0]
    kin, length = leader.input.kin, leader.input.tokens

    def distance(entry: EntryT) -> int:
        return -1 if kin and entry.input.kin == kin else abs(entry.input.tokens - length)

    found: list[EntryT] = []
    for one in (lane, *(other for other in windows if other != lane)):
        found += sorted(windows[one], key=distance)[: max_size - len(found)]
    return found
