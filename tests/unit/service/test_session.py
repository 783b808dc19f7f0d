"""What a trainer has to tell: all of it, in order, until it is known to have arrived; and how it ended."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.cluster.local_workers import LocalWorkers
from service.jobs.events import (
    CheckpointSaved,
    EpochCompleted,
    Event,
    Failed,
    Progress,
    Running,
    StateChanged,
    WorkerJoined,
    WorkerLost,
)
from service.training.checkpoints import Checkpoints
from service.training.outbox import Outbox, Posted
from service.training.session import Broken, Halted, Order, Outcome, Session, Trained
from service.training.trainer import Policy
from tests.unit.service.examples import DATA, INPUTS, SPEC, TARGETS, task
from tests.unit.service.full_disk import largest_file
from tests.unit.service.stories import EPOCH, ROLLED_BACK
from tests.unit.service.training_run import BITS, NEVER, broken_validation
from tests.unit.service.unreliable import GatedWorkers, UnreliableWorkers
from worker.task import Data

POLICY = Policy(checkpoint_seconds=0.0, wait_seconds=0.05)


@given(st.lists(st.none() | st.integers(0, 3), max_size=30))
def test_what_is_taken_stays_until_it_is_acknowledged(steps: list[int | None]) -> None:
    """None posts an event; a number takes, and acknowledges so many of those that are there."""
    outbox, posted, acknowledged = Outbox(), 0, 0
    for step in steps:
        if step is None:
            posted += 1
            outbox.post(CheckpointSaved(posted))
        else:
            acknowledged = min(acknowledged + step, posted)
            expected = [Posted(n, CheckpointSaved(n)) for n in range(acknowledged + 1, posted + 1)]
            assert outbox.take(acknowledged, 0.0) == expected
            assert outbox.take(acknowledged, 0.0) == expected


def test_what_was_acknowledged_is_forgotten_and_the_rest_is_carried() -> None:
    outbox = Outbox()
    events: list[Event] = [EPOCH, CheckpointSaved(4), ROLLED_BACK, WorkerLost(0, 1, "")]
    for event in events:
        outbox.post(event)
    assert outbox.unacknowledged() == (EPOCH, ROLLED_BACK)
    outbox.take(1, 0.0)
    assert outbox.unacknowledged() == (ROLLED_BACK,)
    outbox.take(4, 0.0)
    assert outbox.unacknowledged() == ()


def test_who_waits_is_woken_by_a_change_of_state_and_by_the_end() -> None:
    outbox = Outbox()
    for number, wake in enumerate((lambda: outbox.post(StateChanged(Running())), outbox.close)):
        began = time.monotonic()
        threading.Timer(0.05, wake).start()
        outbox.take(number, 20.0)
        assert time.monotonic() - began < 10


def test_other_events_come_in_batches() -> None:
    """Or every one of them would cost the service a write to its disk."""
    outbox = Outbox()
    for _ in range(3):
        threading.Timer(0.05, outbox.post, (EPOCH,)).start()
    assert len(outbox.take(0, 0.5)) == 3


def test_waiting_has_an_end() -> None:
    assert Outbox().take(0, 0.01) == []


@contextmanager
def session(directory: Path, workers: LocalWorkers | UnreliableWorkers, policy: Policy = POLICY) -> Iterator[Session]:
    made = Session(Order("job-a", SPEC, task(), directory, policy), lambda: workers)
    try:
        yield made
    finally:
        made.halt()


def follow(running: Session) -> tuple[list[Posted], Outcome, Progress]:
    """Everything there is to hear, each event acknowledged as it comes."""
    heard: list[Posted] = []
    while True:
        news = running.news(heard[-1].number if heard else 0, 5.0)
        heard += news.posted
        if news.outcome is not None:
            return heard, news.outcome, news.progress


def test_a_whole_run_is_heard_in_order_and_its_end_with_the_last_events(tmp_path: Path) -> None:
    with session(tmp_path, LocalWorkers(task(), DATA, 2)) as running:
        heard, outcome, progress = follow(running)
    assert [posted.number for posted in heard] == list(range(1, len(heard) + 1))
    assert [e.event.epoch for e in heard if isinstance(e.event, EpochCompleted)] == [1, 2, 3]
    assert isinstance(outcome, Trained)
    assert outcome.params.tobytes() == BITS
    assert outcome.epoch == heard[-1].event
    assert progress.step == 12


def test_the_end_can_be_heard_again_with_what_was_not_acknowledged(tmp_path: Path) -> None:
    with session(tmp_path, LocalWorkers(task(), DATA, 2)) as running:
        while (last := running.news(0, 5.0)).outcome is None:
            pass
        heard = last.posted
        began = time.monotonic()
        assert running.news(heard[-3].number, 20.0).posted == heard[-2:]
        assert running.news(heard[-1].number, 20.0).posted == []
        assert time.monotonic() - began < 5  # nobody waits for more


@pytest.mark.parametrize("event", [WorkerLost(1, 4, "its process ended"), WorkerJoined(1, 4, "shared_memory")])
def test_what_the_next_trainer_would_not_tell_again_is_taken_at_once(event: Event) -> None:
    outbox = Outbox()
    outbox.post(EPOCH)
    began = time.monotonic()
    assert [posted.event for posted in outbox.take(0, 0.2)] == [EPOCH]
    assert time.monotonic() - began >= 0.2  # an epoch can wait for more
    threading.Timer(0.1, outbox.post, [event]).start()
    began = time.monotonic()
    assert [posted.event for posted in outbox.take(1, 20.0)] == [event]
    assert time.monotonic() - began < 5


def test_told_to_halt_it_halts_with_a_checkpoint_and_lets_its_workers_go(tmp_path: Path) -> None:
    gate, entered = threading.Event(), threading.Event()
    with session(tmp_path, GatedWorkers(task(), DATA, 2, gate, entered), NEVER) as running:
        assert entered.wait(10)
        assert running.news(9, 0.0).outcome is None
        running.halt()
        gate.set()
        heard, outcome, _ = follow(running)
    assert outcome == Halted()
    assert heard[-1].event == CheckpointSaved(1)
    saved = Checkpoints(tmp_path).load()
    assert saved is not None
    assert saved.step == 1


def ended(news: tuple[list[Posted], Outcome, Progress]) -> Outcome:
    return news[1]


def test_the_reasons_for_a_failure(tmp_path: Path) -> None:
    lost = UnreliableWorkers(task(), DATA, 1, {2: [0]}, comes_back=lambda: False)
    with session(tmp_path / "lost", lost) as running:
        outcome = ended(follow(running))
    assert isinstance(outcome, Failed)
    assert (outcome.reason, lost.ready()) == ("WORKERS_LOST", 0)
    with session(tmp_path / "diverged", LocalWorkers(task(), broken_validation())) as running:
        outcome = ended(follow(running))
    assert isinstance(outcome, Failed)
    assert outcome.reason == "TRAINING_DIVERGED"
    weightless = Data(INPUTS, TARGETS, np.zeros(len(TARGETS), np.float32))
    with session(tmp_path / "weightless", LocalWorkers(task(), weightless)) as running:
        outcome = ended(follow(running))
    assert isinstance(outcome, Failed)
    assert outcome.reason == "ROWS_WITHOUT_WEIGHT"
    assert f"the {task().shards.training_count} rows that are trained on all weigh 0" in outcome.message
    (tmp_path / "file").touch()
    with session(tmp_path / "file" / "job", LocalWorkers(task(), DATA)) as running:
        outcome = ended(follow(running))
    assert isinstance(outcome, Broken)
    assert outcome.failed.reason == "STORAGE_FAILED"


def test_a_full_disk_is_an_end_even_if_the_log_lies_on_it(tmp_path: Path) -> None:
    gate, entered = threading.Event(), threading.Event()
    with session(tmp_path, GatedWorkers(task(), DATA, 2, gate, entered)) as running:
        assert entered.wait(10)
        with largest_file(100):
            gate.set()
            outcome = ended(follow(running))
    assert isinstance(outcome, Broken)
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_foresaw_comes_with_its_traceback(tmp_path: Path) -> None:
    broken = LocalWorkers(task(), Data(DATA.inputs, np.zeros((30, 9, 9))))
    with session(tmp_path, broken) as running:
        outcome = ended(follow(running))
    assert isinstance(outcome, Broken)
    assert "Traceback" in outcome.report
    assert "softmax.py" in outcome.report


def test_workers_that_cannot_be_made_are_an_end_too(tmp_path: Path) -> None:
    def make() -> LocalWorkers:
        raise LookupError("no workers")

    running = Session(Order("job-a", SPEC, task(), tmp_path, POLICY), make)
    outcome = ended(follow(running))
    assert isinstance(outcome, Broken)
    assert "no workers" in outcome.report


def test_a_new_session_tells_what_the_old_one_could_not(tmp_path: Path) -> None:
    """The service heard nothing of the first: what its checkpoint carries comes first in the second."""
    gate, entered = threading.Event(), threading.Event()
    with session(tmp_path, GatedWorkers(task(), DATA, 2, gate, entered)) as deaf:
        gate.set()
        while deaf.news(0, 5.0).outcome is None:
            pass
    with session(tmp_path, LocalWorkers(task(), DATA, 2)) as running:
        heard, outcome, _ = follow(running)
    assert isinstance(outcome, Trained)
    assert outcome.params.tobytes() == BITS
    told = [e.event.epoch for e in heard if isinstance(e.event, EpochCompleted)]
    assert told == [1, 2, 3]
