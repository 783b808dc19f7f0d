"""Threads that predict and judge: told to stop when nobody waits any more, and never more work than there may be."""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from service.errors import ResourceExhausted
from service.models.loaded import LoadedModels
from service.models.predictor import MOST_EVALUATIONS, Predictor
from service.models.spreading import WORTH_SECONDS
from tests.unit.service.examples import FEATURES
from tests.unit.service.test_loaded import BYTES, NETWORK, loading, made
from worker.arrays import Array, Shape
from worker.layers import Backward, Context, Parameter, Params
from worker.network import Network
from worker.task import rows_at_once

P = TypeVar("P")
R = TypeVar("R")

SECONDS = 10.0


def run(root: Path, test: Any) -> None:
    """Runs a test with a predictor of one model, "a"."""

    async def within() -> None:
        with closing(Predictor(loading(made(root, "a"), 1), threads=1)) as predictor:
            await asyncio.wait_for(test(predictor), SECONDS)

    asyncio.run(within())


def test_one_who_goes_has_the_work_stopped(tmp_path: Path) -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(stop: threading.Event) -> None:
        begun.set()
        assert stop.wait(SECONDS)
        ended.set()

    async def test(predictor: Predictor) -> None:
        call = asyncio.create_task(predictor.evaluate(work))
        await asyncio.to_thread(begun.wait, SECONDS)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await asyncio.to_thread(ended.wait, SECONDS)
        assert await predictor.evaluate(lambda stop: stop.is_set()) is False

    run(tmp_path, test)


def test_no_more_evaluations_wait_than_may(tmp_path: Path) -> None:
    gate = threading.Event()

    async def test(predictor: Predictor) -> None:
        calls: list[Coroutine[Any, Any, bool]] = [
            predictor.evaluate(lambda _: gate.wait(SECONDS)) for _ in range(MOST_EVALUATIONS)
        ]
        under_way = asyncio.gather(*calls)
        await asyncio.sleep(0)
        with pytest.raises(ResourceExhausted, match="try again later"):
            await predictor.evaluate(lambda _: None)
        # Predictions don't wait behind them.
        model = await predictor.model("a")
        assert len(await predictor.predict(model, model.params[:0].reshape(0, 4))) == 0
        gate.set()
        assert all(await under_way)
        assert await predictor.evaluate(lambda _: 7) == 7

    run(tmp_path, test)


@dataclass(frozen=True)
class Dozing:
    """A layer that changes nothing, and takes longer than it is worth to ask others."""

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:  # noqa: ARG002
        return {}

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        time.sleep(2 * WORTH_SECONDS)
        return x, lambda dy, grads: dy  # noqa: ARG005


def test_others_are_asked_for_some_of_many_rows(tmp_path: Path) -> None:
    dozing = Network((*NETWORK.layers, Dozing()), NETWORK.input_shape)
    rows = np.random.default_rng(1).standard_normal((3 * rows_at_once(dozing) + 1, FEATURES)).astype(np.float32)
    asked: list[Any] = []

    def ask(work: Callable[[P], R], part: P) -> Future[R]:
        asked.append(part)
        answer: Future[R] = Future()
        answer.set_result(work(part))
        return answer

    async def predict(predictor: Predictor) -> Array:
        return await predictor.predict(await predictor.model("a"), rows)

    loaded = LoadedModels(made(tmp_path, "a"), lambda _: dozing, BYTES)
    with closing(Predictor(loaded)) as alone, closing(Predictor(loaded, ask=ask)) as helped:
        np.testing.assert_array_equal(asyncio.run(predict(helped)), asyncio.run(predict(alone)), strict=True)
    assert [len(part) for part in asked] == [rows_at_once(dozing)] * 2


def test_a_model_that_many_wait_for_is_read_once(tmp_path: Path) -> None:
    async def test(predictor: Predictor) -> None:
        found = await asyncio.gather(*(predictor.model("a") for _ in range(20)))
        assert len(set(map(id, found))) == 1
        assert predictor.loaded.loads == 1

    run(tmp_path, test)
