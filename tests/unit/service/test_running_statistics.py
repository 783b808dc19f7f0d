"""What batch normalisation keeps, step after step: neither the optimizer nor the number of workers has a say in it."""

from collections.abc import Iterator

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from service.training.optimizers import Adam, Momentum, Optimizer, Sgd
from service.training.update import Update
from tests.unit.service.examples import CLASSES, DATA, INPUTS, SPEC, spec, task
from worker.arrays import Array
from worker.blocks import Block, merge
from worker.layers import BatchNorm, Dense, ReLU

OF = spec(layers=(Dense(5), BatchNorm(momentum=0.6), ReLU(), Dense(CLASSES)))
TASK = task(OF)
NETWORK = TASK.network
STEPS = 9


def trained(owners: list[int], optimizer: Optimizer) -> tuple[Array, dict[str, Array]]:
    """Parameters after some steps, and what the optimizer carries, each worker adding up what it can of its shards."""
    params = NETWORK.initial(SPEC.seed)
    carried = {name: np.zeros_like(params) for name in optimizer.carries}
    update = Update(NETWORK.size, params.dtype, NETWORK.learned)
    for step in range(STEPS):
        blocks: list[Block] = []
        for owner in set(owners):
            own = [shard for shard, by in enumerate(owners) if by == owner]
            blocks += merge([Block(s, 1, TASK.gradient(DATA, params, step, s)) for s in own], OF.shards)
        update.apply(optimizer, params, update.average(blocks, OF.shards), carried, 0.05, step)
    return params, carried


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    with threadpool_limits(1):
        yield


@pytest.mark.parametrize("optimizer", [Sgd(), Momentum(), Adam()], ids=str)
def test_any_number_of_workers_keeps_the_same(optimizer: Optimizer) -> None:
    runs = [trained(owners, optimizer)[0].tobytes() for owners in ([0, 0, 0], [0, 1, 1], [2, 0, 1])]
    assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("optimizer", [Momentum(), Adam()], ids=str)
def test_an_optimizer_carries_nothing_of_it(optimizer: Optimizer) -> None:
    _, carried = trained([0, 0, 0], optimizer)
    for vector in carried.values():
        assert (vector[NETWORK.learned :] == 0).all()
        assert (vector[: NETWORK.learned] != 0).any()


def test_it_is_the_fold_of_what_each_step_saw() -> None:
    """With a first layer that stands still, so that what is seen can be told without training."""
    params = NETWORK.initial(SPEC.seed)
    update = Update(NETWORK.size, params.dtype, NETWORK.learned)
    weights = {key: value.astype(np.float64) for key, value in NETWORK.views(params)[0].items()}
    mean, variance = np.zeros(5), np.ones(5)
    for step in range(STEPS):
        blocks = [Block(shard, 1, TASK.gradient(DATA, params, step, shard)) for shard in range(OF.shards)]
        update.apply(Sgd(), params, update.average(blocks, OF.shards), {}, 0.0, step)
        hidden = [INPUTS[TASK.shards.training(step, s)] @ weights["weight"] + weights["bias"] for s in range(OF.shards)]
        rows = sum(map(len, hidden))
        mean = 0.6 * mean + 0.4 * sum(len(h) * h.mean(axis=0) for h in hidden if len(h)) / rows
        seen = [len(h) * (h.var(axis=0, ddof=1) if len(h) > 1 else variance) for h in hidden]
        variance = 0.6 * variance + 0.4 * sum(seen) / rows
    kept = NETWORK.views(params)[1]
    np.testing.assert_allclose(kept["mean"], mean, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kept["variance"], variance, rtol=1e-4)


def test_a_model_predicts_with_it() -> None:
    params, _ = trained([0, 0, 0], Momentum())
    first, norm, last = (NETWORK.views(params)[index] for index in (0, 1, 3))
    hidden = INPUTS @ first["weight"] + first["bias"]
    n = (hidden - norm["mean"]) / np.sqrt(norm["variance"] + 1e-5)
    expected = np.maximum(n * norm["scale"] + norm["shift"], 0) @ last["weight"] + last["bias"]
    y, *_ = NETWORK.forward(params, INPUTS)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    # One row alone gets what it gets among others: no statistics of a batch have a part in it.
    for row in range(3):
        np.testing.assert_allclose(NETWORK.forward(params, INPUTS[row : row + 1])[0][0], y[row], rtol=1e-4, atol=1e-5)
