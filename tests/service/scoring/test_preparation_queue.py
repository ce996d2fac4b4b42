"""The order of preparation: lanes, tasks of one lane, and the tasks that may start."""

import gc
import weakref
from functools import partial

from assay.scoring.preparation_pool import (
    LONG_SECONDS,
    MAX_LONG,
    MAX_STARTED,
    PreparationQueue,
    Task,
)
from assay.types import Lane


class Passage(list[str]):
    """An item's texts, which a weak reference can point to."""


def drain(queue: PreparationQueue, slices: int) -> list[Lane]:
    """Run slices of one second each; return the lanes of the slices."""
    lanes: list[Lane] = []
    for _ in range(slices):
        task = queue.pop()
        assert task is not None
        queue.charge(task, 1.0)
        queue.push(task)
        lanes.append(task.lane)
    return lanes


def test_lower_lanes_get_their_minimum_share() -> None:
    queue = PreparationQueue()
    lanes: tuple[Lane, ...] = ("interactive", "training", "bulk")
    for lane in lanes:
        queue.push(Task(lane))
    order = drain(queue, 800)
    shares = {lane: order.count(lane) / len(order) for lane in lanes}
    assert order[0] == "interactive"
    assert shares["training"] >= 0.2
    assert shares["bulk"] >= 0.12
    assert shares["interactive"] >= 0.6


def test_tasks_of_one_lane_get_equal_seconds_from_their_arrival_on() -> None:
    queue = PreparationQueue()
    old, new = Task("training"), Task("training")
    queue.push(old)
    drain(queue, 100)
    queue.push(new)
    drain(queue, 100)
    assert abs(old.used - new.used) <= 1.0
    assert abs(old.used - 150) <= 1.0


def test_only_so_many_tasks_of_a_lane_start_before_others_finish() -> None:
    queue = PreparationQueue()
    tasks = [Task("training") for _ in range(MAX_STARTED + 1)]
    for task in tasks:
        queue.push(task)
    started = [queue.pop() for _ in range(MAX_STARTED)]
    assert queue.pop() is None
    queue.push(Task("interactive"))
    other = queue.pop()
    assert other is not None
    assert other.lane == "interactive", "the bound is the lane's own"
    first = started[0]
    assert first is not None
    first.state = "done"
    queue.finish(first)
    assert queue.pop() is tasks[-1]


def test_only_so_many_started_tasks_of_a_lane_are_long() -> None:
    queue = PreparationQueue()
    tasks = [Task("training") for _ in range(MAX_LONG + 1)]
    for task in tasks:
        queue.push(task)
        assert queue.pop() is task
        queue.charge(task, LONG_SECONDS)
    assert [queue.outgrows(task) for task in tasks] == [False] * MAX_LONG + [True]
    last = tasks[-1]
    queue.finish(last)
    last.state, last.is_long = "restarting", True
    queue.push(last)
    assert queue.pop() is None, "it waits for a long one's end"
    short = Task("training")
    queue.push(short)
    assert queue.pop() is short
    queue.finish(tasks[0])
    assert queue.pop() is last


def test_dropped_tasks_leave_the_queue_before_they_would_be_next() -> None:
    queue = PreparationQueue()
    passages = [Passage() for _ in range(20)]
    alive = [weakref.ref(passage) for passage in passages]
    tasks = [Task("bulk", work=partial(len, passage)) for passage in passages]
    for task in tasks:
        queue.push(task)
    for task in tasks[1:]:
        task.state = "done"
        queue.discard(task)
    first = tasks[0]
    del passages, tasks, task
    gc.collect()
    assert sum(passage() is not None for passage in alive) <= 2
    assert queue.pop() is first
    assert queue.pop() is None
