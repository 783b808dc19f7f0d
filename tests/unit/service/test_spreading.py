"""Rows that others help with: the same bits whoever computes them, however badly they help."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from service.cluster.local_cluster import LocalCluster
from service.errors import Aborted
from service.models.spreading import MOST_WAITING, PATIENCE, WORTH_SECONDS, spread
from tests.unit.service.examples import FEATURES, task
from worker.arrays import Array
from worker.gradient import Batch
from worker.losses import SoftmaxCrossEntropy
from worker.passes import Evaluation, Prediction

NETWORK = task().network
PARAMS = NETWORK.initial(3)
SIZE = 16
ROWS = np.random.default_rng(6).standard_normal((5 * SIZE + 3, FEATURES)).astype(np.float32)
STARTS = range(0, len(ROWS), SIZE)
SLOW = 2 * WORTH_SECONDS


@dataclass(frozen=True, eq=False)
class Dear(Prediction):
    """A prediction that takes so long that it is worth asking for."""

    seconds: float = SLOW

    def __call__(self, rows: Array) -> Array:
        time.sleep(self.seconds)
        return super().__call__(rows)


@dataclass
class Neighbour:
    """One who is asked, and does with it what the test says."""

    does: Callable[[Callable[[Any], Any], Any, "Future[Any]"], None]
    asked: list[Any] = field(default_factory=list)

    def ask(self, work: Callable[[Any], Any], part: Any) -> "Future[Any]":
        self.asked.append(part)
        answer: Future[Any] = Future()
        self.does(work, part, answer)
        return answer


def answers(work: Callable[[Any], Any], part: Any, answer: "Future[Any]") -> None:
    answer.set_result(work(part))


def answers_later(work: Callable[[Any], Any], part: Any, answer: "Future[Any]") -> None:
    threading.Timer(SLOW, lambda: answer.set_result(work(part))).start()


def is_lost(work: Callable[[Any], Any], part: Any, answer: "Future[Any]") -> None:  # noqa: ARG001
    answer.set_exception(ConnectionResetError("whatever it is"))


def says_nothing(work: Callable[[Any], Any], part: Any, answer: "Future[Any]") -> None:
    """As one that got stuck."""


def part_at(start: int) -> Array:
    return ROWS[start : start + SIZE]


def predicted(work: Prediction, ask: Any, starts: range = STARTS) -> Sequence[bytes]:
    return [made.tobytes() for made in spread(work, starts, part_at, ask, threading.Event())]


@pytest.mark.parametrize("does", [answers, answers_later, is_lost, says_nothing])
def test_whoever_helps_the_bits_are_those_of_one_alone(does: Any) -> None:
    neighbour = Neighbour(does)
    alone = [NETWORK.forward(PARAMS, part_at(start))[0].tobytes() for start in STARTS]
    assert predicted(Dear(NETWORK, PARAMS), LocalCluster().help_with) == alone
    assert predicted(Dear(NETWORK, PARAMS), neighbour.ask) == alone
    assert neighbour.asked


def test_sums_come_in_the_order_of_the_rows() -> None:
    """Floats don't add associatively."""
    targets = np.arange(len(ROWS)) % NETWORK.output_shape[0]

    def batch(start: int) -> Batch:
        return Batch(ROWS[start : start + SIZE], targets[start : start + SIZE])

    @dataclass(frozen=True, eq=False)
    class DearEvaluation(Evaluation):
        def __call__(self, batch: Batch) -> Any:
            time.sleep(SLOW)
            return super().__call__(batch)

    work = DearEvaluation(NETWORK, PARAMS, SoftmaxCrossEntropy())
    neighbour = Neighbour(answers_later)
    losses = [
        [sums.loss for sums in spread(work, STARTS, batch, ask, threading.Event())]
        for ask in (LocalCluster().help_with, neighbour.ask)
    ]
    assert losses[0] == losses[1]
    assert neighbour.asked


def test_nobody_is_asked_for_what_is_done_as_soon_here() -> None:
    def asked(seconds: float, starts: range) -> int:
        neighbour = Neighbour(answers)
        predicted(Dear(NETWORK, PARAMS, seconds), neighbour.ask, starts)
        return len(neighbour.asked)

    assert asked(SLOW, STARTS[:1]) == asked(SLOW, STARTS[:2]) == 0
    # On a busy machine anything may take long once, but not always.
    assert min(asked(0.0, STARTS) for _ in range(10)) == 0


def test_one_who_says_nothing_is_waited_for_as_long_as_it_would_take_here() -> None:
    """The first and the last are computed here, and those between after a while."""
    neighbour = Neighbour(says_nothing)
    begun = time.monotonic()
    predicted(Dear(NETWORK, PARAMS), neighbour.ask)
    parts = len(STARTS)
    assert len(neighbour.asked) == parts - 2
    assert time.monotonic() - begun < parts * SLOW + (parts - 2) * PATIENCE * SLOW + 1.0


def test_what_waits_behind_one_who_says_nothing_is_bounded() -> None:
    begun: list[int] = []
    starts = range(3 * MOST_WAITING)

    def work(start: int) -> int:
        time.sleep(SLOW if not begun else 0.0)
        begun.append(start)
        return start

    stuck: list[Future[Any]] = []

    def ask(work: Any, part: Any) -> "Future[Any] | None":  # noqa: ARG001
        if stuck:
            return None
        stuck.append(Future())
        return stuck[0]

    for number, result in enumerate(spread(work, starts, lambda start: start, ask, threading.Event())):
        assert result == number
        assert len(begun) <= number + 2 + MOST_WAITING
    assert len(stuck) == 1


def test_one_who_goes_has_it_stopped() -> None:
    stop = threading.Event()
    made = spread(Dear(NETWORK, PARAMS), STARTS, part_at, Neighbour(says_nothing).ask, stop)
    next(made)
    stop.set()
    with pytest.raises(Aborted):
        list(made)
