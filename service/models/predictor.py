"""Predicts and judges in threads of its own, so that the event loop goes on with other calls.

A thread reads models from the disk, one at a time; others run forward passes, each with one thread of BLAS; and one
goes through whole datasets, so that this never keeps predictions waiting. A call that is given up stops its thread at
the next block of rows.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from service.data.preparation import Table
from service.errors import ResourceExhausted
from service.models.loaded import LoadedModel, LoadedModels
from service.models.spreading import Ask, ask_nobody
from service.models.usage import Usage
from worker.arrays import Array

T = TypeVar("T")

MOST_EVALUATIONS = 16
"""How many may be asked for at a time; one is under way, the others wait."""

MOST_SECONDS = 600.0
"""How long an evaluation may take, waiting included, whatever deadline its caller has."""


class Predictor:
    """What models make of rows. Close it at the end."""

    def __init__(self, loaded: LoadedModels, threads: int | None = None, ask: Ask = ask_nobody) -> None:
        """`threads` forward passes at a time; by default as many as there are cores. Others may be asked for parts."""
        self.loaded = loaded
        self.ask = ask
        self.usage = Usage()
        self._reading = ThreadPoolExecutor(1, "read-model")
        self._working = ThreadPoolExecutor(threads or os.cpu_count() or 1, "predict")
        self._judging = ThreadPoolExecutor(1, "evaluate")
        self._evaluations = 0
        self._stops: set[threading.Event] = set()

    def close(self) -> None:
        """Gives up what is under way, and ends the threads."""
        for stop in tuple(self._stops):
            stop.set()
        self._reading.shutdown(cancel_futures=True)
        self._working.shutdown(cancel_futures=True)
        self._judging.shutdown(cancel_futures=True)

    async def model(self, model_id: str) -> LoadedModel:
        """A model to predict with. Raises NotFound, or ResourceExhausted if it is too large."""
        if found := self.loaded.at_hand(model_id):
            return found
        return await asyncio.get_running_loop().run_in_executor(self._reading, self.loaded.load, model_id)

    async def predict(self, model: LoadedModel, rows: Array | Table) -> Array:
        """What the model makes of some rows. Raises InvalidArgument."""
        return await self._run(self._working, lambda stop: model.predict(rows, stop, self.ask))

    async def evaluate(self, work: Callable[[threading.Event], T]) -> T:
        """Has the thread for it do some work of judging, which ends soon after its event is set.

        Raises ResourceExhausted if too many wait already, or it takes too long.
        """
        if self._evaluations >= MOST_EVALUATIONS:
            raise ResourceExhausted(
                f"{self._evaluations} evaluations wait already, which is the most; try again later",
                reason="TOO_MANY_EVALUATIONS",
            )
        self._evaluations += 1
        try:
            return await asyncio.wait_for(self._run(self._judging, work), MOST_SECONDS)
        except TimeoutError:
            raise ResourceExhausted(
                f"the evaluation was given up after {MOST_SECONDS:.0f} seconds; use a dataset with fewer rows",
                reason="EVALUATION_TOO_LONG",
            ) from None
        finally:
            self._evaluations -= 1

    async def _run(self, threads: ThreadPoolExecutor, work: Callable[[threading.Event], T]) -> T:
        """Has a thread do some work, which is told to stop when whoever waits for it is cancelled."""
        stop = threading.Event()
        self._stops.add(stop)
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, work, stop)
        finally:
            stop.set()
            self._stops.discard(stop)
