"""Idle workers that compute a part for somebody who has no job.

They stay where they are, and a job gets them whenever it wants: at most one part is under way at a worker, and is
finished beside the job's first steps. So nobody who trains ever waits for one who doesn't.
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any
from weakref import WeakKeyDictionary

import ray
from ray.exceptions import RayError


class RayHelp:
    """Asks the workers that are idle."""

    def __init__(self, idle: Callable[[], Sequence[Any]]) -> None:
        """`idle` tells the workers that no job has just now."""
        self._idle = idle
        self._lock = threading.Lock()
        self._busy: set[Any] = set()
        """Those that have not answered. One that is stuck is never asked again; one that is lost has answered so."""
        self._known: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        """What they are asked for, in the object store: put there once, for as long as somebody here has it."""

    def ask(self, work: Callable[[Any], Any], part: Any) -> "Future[Any] | None":
        """See service.models.spreading.Ask."""
        with self._lock:
            worker = next((each for each in self._idle() if each not in self._busy), None)
            if worker is None:
                return None
            self._busy.add(worker)
        try:
            answer: Future[Any] = worker.help.remote(self._ref(work), part).future()
        except RayError:
            self._busy.discard(worker)
            return None
        answer.add_done_callback(lambda _: self._busy.discard(worker))
        return answer

    def _ref(self, work: Callable[[Any], Any]) -> Any:
        with self._lock:
            ref = self._known.get(work)
        if ref is None:
            ref = ray.put(work)
            with self._lock:
                self._known[work] = ref
        return ref
