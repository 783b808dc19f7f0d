"""Threads that predict and judge: told to stop when nobody waits any more, and never more work than there may be."""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.errors import ResourceExhausted
from service.models.predictor import MOST_EVALUATIONS, Predictor
from tests.unit.service.test_loaded import loading, made

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


def test_a_model_that_many_wait_for_is_read_once(tmp_path: Path) -> None:
    async def test(predictor: Predictor) -> None:
        found = await asyncio.gather(*(predictor.model("a") for _ in range(20)))
        assert len(set(map(id, found))) == 1
        assert predictor.loaded.loads == 1

    run(tmp_path, test)
