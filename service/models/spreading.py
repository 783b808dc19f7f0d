"""Goes through many rows part by part, some of which others may compute.

Nobody counts on the others: what they don't bring in time is computed here. Parts are the same whoever computes them,
and so are the bits.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

from service.errors import Aborted

P = TypeVar("P")
R = TypeVar("R")

CANCELLED = "CANCELLED"

WORTH_SECONDS = 0.02
"""How long a part must take here for it to be worth sending: at 10 ms, that took what it saved."""

PATIENCE = 2.0
"""How much longer than here a part may take elsewhere, once there is nothing else to do than wait for it."""

MOST_WAITING = 16
"""How many parts may be done, or asked for, behind one that others don't bring."""


class Ask(Protocol):
    """Asks somebody who has nothing else to do for `work(part)`."""

    def __call__(self, work: Callable[[P], R], part: P) -> "Future[R] | None":
        """What will come of it, if anything does; None if nobody is idle. Never waits for anyone."""


def ask_nobody(work: Callable[[P], R], part: P) -> "Future[R] | None":  # noqa: ARG001
    """Where there is nobody to ask."""
    return None


def spread(
    work: Callable[[P], R], starts: range, part_at: Callable[[int], P], ask: Ask, stop: threading.Event
) -> Iterator[R]:
    """What `work` makes of each part, in their order; `part_at` takes the part that starts at a row.

    The first part is computed here, and shows whether it is worth asking for others. Raises what `work` and `part_at`
    raise, and Aborted soon after `stop`.
    """
    waiting: deque[tuple[int, Future[Any]]] = deque()
    seconds = 0.0

    def here(part: P) -> "Future[Any]":
        nonlocal seconds
        if stop.is_set():
            raise Aborted("the caller has gone", reason=CANCELLED)
        begun, done = time.perf_counter(), Future[Any]()
        done.set_result(work(part))
        seconds = time.perf_counter() - begun
        return done

    def brought(patience: float) -> R:
        start, answer = waiting.popleft()
        result: R = (answer if _has_come(answer, patience) else here(part_at(start))).result()
        return result

    for start in starts:
        # The last is computed here: there would be nothing to do meanwhile.
        is_worth = seconds > WORTH_SECONDS and start != starts[-1]
        part = part_at(start)
        waiting.append((start, (ask(work, part) if is_worth else None) or here(part)))
        while waiting and (waiting[0][1].done() or len(waiting) > MOST_WAITING):
            yield brought(0.0)
    while waiting:
        yield brought(PATIENCE * seconds)


def _has_come(answer: "Future[Any]", patience: float) -> bool:
    """Whether an answer comes within some seconds, and not that whoever was asked is lost."""
    try:
        return answer.exception(patience) is None
    except TimeoutError:
        return False
