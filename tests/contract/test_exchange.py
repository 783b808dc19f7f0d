"""The exchange through shared memory: both ends, in processes of their own."""

import multiprocessing
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess

import numpy as np
import posix_ipc
import pytest
from threadpoolctl import threadpool_limits

from tests.contract.tasks import DATA, NETWORK, PARAMS, SECONDS, TASK
from worker import exchange
from worker.blocks import merge
from worker.exchange import Seat
from worker.gradient import tree_sum
from worker.scores import sizes
from worker.segment import (
    ALIGNMENT,
    SHARED_MEMORY,
    TOKEN_BYTES,
    Address,
    Kind,
    Layout,
    NotHere,
    Segment,
    attach,
    create,
    semaphore,
    sweep,
)

pytestmark = pytest.mark.system

PREFIX = f"chainrule-test-{os.getpid()}-"
SHARDS = TASK.shards.shards
LAYOUT = Layout(NETWORK.size, SHARDS, 2, sizes(TASK.training_scores), sizes(TASK.scores), checksums=True)


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = create(PREFIX, LAYOUT)
    try:
        yield made
    finally:
        made.close()
        sweep(PREFIX)
        assert not left_over()


def left_over() -> list[str]:
    return [path.name for path in SHARED_MEMORY.iterdir() if PREFIX in path.name]


def work(address: Address, seat: int) -> None:
    threadpool_limits(1)
    exchange.serve(attach(address), seat, TASK, DATA, lambda: False)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@contextmanager
def serving(segment: Segment, seat: int) -> Iterator[BaseProcess]:
    process = multiprocessing.get_context("spawn").Process(target=work, args=(segment.address, seat))
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join(SECONDS)


def test_gradients_and_scores_come_with_the_same_bits(segment: Segment) -> None:
    segment.params[:] = PARAMS
    semaphore(segment.address, "done", make=True)
    seats = [Seat(segment, number) for number in range(2)]
    shares = ({0: 5, 1: 1, 2: 0, 3: 3}, {4: 4, 5: 2, 6: 6})
    with serving(segment, 0) as first, serving(segment, 1) as second, threadpool_limits(1):
        for step in range(5):
            for seat, slots in zip(seats, shares, strict=True):
                seat.order(Kind.GRADIENTS, step, slots)
            until(lambda: all(seat.is_finished() for seat in seats))
            (block,) = merge([block for seat in seats for block in seat.blocks()], SHARDS)
            whole = tree_sum([TASK.gradient(DATA, PARAMS, step, shard) for shard in range(SHARDS)])
            assert block.total.vector.tobytes() == whole.vector.tobytes()
            assert block.total.sums == whole.sums
        for seat, slots in zip(seats, shares, strict=True):
            seat.order(Kind.EVALUATE, 0, slots)
        until(lambda: all(seat.is_finished() for seat in seats))
        (block,) = merge([block for seat in seats for block in seat.blocks()], SHARDS)
        assert block.total.sums == tree_sum([TASK.evaluate(DATA, PARAMS, shard) for shard in range(SHARDS)])
        for seat in seats:
            seat.leave()
        first.join(SECONDS)
        second.join(SECONDS)
        assert (first.exitcode, second.exitcode) == (0, 0)


def test_a_killed_worker_is_known_to_be_dead_and_a_stopped_one_is_not(segment: Segment) -> None:
    semaphore(segment.address, "done", make=True)
    seat = Seat(segment, 1)
    assert not seat.is_dead()  # nobody has begun to serve
    with serving(segment, 1) as process:
        seat.order(Kind.EVALUATE, 0, {0: 0})
        until(seat.is_finished)
        assert not seat.is_dead()
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        seat.order(Kind.EVALUATE, 0, {0: 0})
        assert not seat.is_dead()
        os.kill(process.pid, signal.SIGKILL)
        until(seat.is_dead)
        assert not seat.is_finished()


def test_others_cannot_open_it(segment: Segment) -> None:
    done = semaphore(segment.address, "done", make=True)
    done.close()
    for name in left_over():
        assert stat.S_IMODE((SHARED_MEMORY / name).stat().st_mode) == 0o600
    assert len(segment.address.name) - len(PREFIX) >= 32  # 128 random bits, in hexadecimal


@pytest.mark.parametrize(
    "changed",
    [
        {"token": bytes(TOKEN_BYTES)},
        {"name": f"/{PREFIX}of-nobody"},
        {"layout": replace(LAYOUT, parameters=LAYOUT.parameters + 100)},
    ],
)
def test_who_has_not_the_name_the_token_and_the_layout_is_turned_away(
    segment: Segment, changed: dict[str, object]
) -> None:
    with pytest.raises(NotHere):
        attach(replace(segment.address, **changed))  # type: ignore[arg-type]
    attached = attach(segment.address)
    attached.params[:] = 7
    assert (segment.params == 7).all()
    attached.close()


def test_a_slot_that_is_overwritten_shows_where_checksums_are_on(segment: Segment) -> None:
    sums = TASK.evaluate(DATA, PARAMS, 0)
    segment.slot(2)[:] = 1
    segment.write_sums(2, Kind.EVALUATE, sums)
    assert segment.read_sums(2, Kind.EVALUATE) == sums
    segment.slot(2)[3] = 2
    with pytest.raises(AssertionError, match="slot 2"):
        segment.read_sums(2, Kind.EVALUATE)


def test_without_room_there_is_no_segment_and_nothing_is_left() -> None:
    with pytest.raises(OSError, match=r"No space left|File too large|Cannot allocate"):
        create(PREFIX, replace(LAYOUT, parameters=1 << 44))
    assert not left_over()


def test_the_sweep_takes_what_has_its_prefix_and_nothing_else(segment: Segment) -> None:
    other = posix_ipc.SharedMemory(f"/other-{PREFIX}", posix_ipc.O_CREX, size=1)
    other.close_fd()
    semaphore(segment.address, "done", make=True)
    Seat(segment, 0)
    assert len(sweep(PREFIX)) == 3
    assert left_over() == [f"other-{PREFIX}"]
    other.unlink()


def test_a_seat_can_be_taken_again(segment: Segment) -> None:
    """By the process that takes the place of one that ended."""
    for _ in range(3):
        seat = Seat(segment, 1)
        assert semaphore(segment.address, "go1")
        seat.close()
        with pytest.raises(posix_ipc.ExistentialError):
            semaphore(segment.address, "go1")


def test_vectors_do_not_overlap(segment: Segment) -> None:
    for number, vector in enumerate(segment.vectors):
        vector[:] = number
    assert [float(vector.min()) for vector in segment.vectors] == list(range(1 + LAYOUT.slots))
    assert all(vector.ctypes.data % ALIGNMENT == 0 for vector in segment.vectors)
    assert np.array_equal(segment.token, np.frombuffer(segment.address.token, np.uint8))
