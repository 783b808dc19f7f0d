"""Idle workers that compute a part for somebody who has no job.

They stay where they are, and a job gets them whenever it wants: what is under way at one then, two parts at the most,
is finished beside the job's first steps. So nobody who trains ever waits for one who doesn't.
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any
from weakref import WeakKeyDictionary

import ray
from ray.exceptions import RayError

MOST_AT_ONE = 2
"""How many parts are under way at a worker: one that it computes, and the next on its way."""


class RayHelp:
    """Asks the workers that are idle."""

    def __init__(self, idle: Callable[[], Sequence[Any]]) -> None:
        """`idle` tells the workers that no job has just now."""
        self._idle = idle
        self._lock = threading.Lock()
        self._asked: Counter[Any] = Counter()
        """How many parts are under way at whom. One that is stuck keeps them, and is asked no more; one that is lost
        has lost them too."""
        self._known: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        """What they are asked for, in the object store: put there once, for as long as somebody here has it."""

    def ask(self, work: Callable[[Any], Any], part: Any) -> "Future[Any] | None":
        """See service.models.spreading.Ask."""
        with self._lock:
            worker = min(self._idle(), key=self._asked.__getitem__, default=None)
            if worker is None or self._asked[worker] >= MOST_AT_ONE:
                return None
            self._asked[worker] += 1
        try:
            answer: Future[Any] = worker.help.remote(self._ref(work), part).future()
        except RayError:
            self._forget(worker)
            return None
        answer.add_done_callback(lambda _: self._forget(worker))
        return answer

    def _forget(self, worker: Any) -> None:
        with self._lock:
            self._asked -= Counter([worker])

    def _ref(self, work: Callable[[Any], Any]) -> Any:
        with self._lock:
            ref = self._known.get(work)
        if ref is None:
            ref = ray.put(work)
            with self._lock:
                self._known[work] = ref
        return ref
