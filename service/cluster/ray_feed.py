"""Mini-batches on their way to a trainer in a process of its own."""

from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from service.training.arrivals import Answers, TrainerGone


class RayFeed:
    """Implements service.training.arrivals.Feed by calls. A batch lies in the object store, once a node."""

    def __init__(self, trainer: Any, answer: Callable[[Any], Any]) -> None:
        """`answer` gives what a call of the trainer's answers."""
        self._trainer = trainer
        self._answer = answer

    def put(self, step: int, batch: Any) -> None:
        self._ask(self._trainer.put, step, [ray.put(batch)])

    def finish(self, steps: int) -> None:
        self._ask(self._trainer.finish, steps)

    def answers(self, after: int, timeout: float) -> Answers | None:
        answers: Answers | None = self._ask(self._trainer.answers, after, timeout)
        return answers

    def _ask(self, method: Any, *arguments: Any) -> Any:
        try:
            return self._answer(method.remote(*arguments))
        except (RayError, GetTimeoutError) as error:
            raise TrainerGone from error
