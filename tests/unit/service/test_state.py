"""The step as a pure function: average, check, apply."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training.optimizers import Adam, Momentum, Optimizer, Sgd
from service.training.state import Diverged, TrainingState, apply, average, check_applied, check_finite, no_sums
from tests.unit.service.examples import DATA, ROWS, task
from worker.arrays import Array
from worker.gradient import Gradient, Sums, gradient

TASK = task()
NETWORK = TASK.network
PARAMS = NETWORK.initial(seed=3).astype(np.float64)


def of_rows(rows: Array) -> Gradient:
    x, y = DATA.take(rows, PARAMS.dtype)
    return gradient(NETWORK, TASK.loss, PARAMS, x, y)


def state_with(optimizer: Optimizer, params: Array) -> TrainingState:
    return TrainingState(0, params, optimizer.init(params), no_sums(TASK.loss.scores))


def gradient_of(vector: Array, loss: float = 1.0) -> Gradient:
    return Gradient(vector, Sums(loss, {"accuracy": 0.0}, 1))


@given(st.lists(st.integers(0, ROWS), max_size=8), st.permutations(range(ROWS)))
def test_any_split_averages_to_the_whole_batch(cuts: list[int], order: list[int]) -> None:
    """Shards of any sizes, also empty ones."""
    shards = np.split(np.array(order), sorted(cuts))
    mean, whole = average([of_rows(shard) for shard in shards]), of_rows(np.array(order))
    np.testing.assert_allclose(mean.vector, whole.vector / ROWS, rtol=1e-12, atol=1e-15)
    assert (mean.sums.count, mean.sums.scores) == (ROWS, whole.sums.scores)
    assert mean.sums.loss == pytest.approx(whole.sums.loss, rel=1e-12)


def test_a_row_weighs_the_same_in_a_small_shard() -> None:
    one = Gradient(np.array([3.0]), Sums(3.0, {}, 1))
    three = Gradient(np.array([5.0]), Sums(5.0, {}, 3))
    assert average([one, three]).vector == 2.0


def test_average_keeps_the_type_and_its_terms() -> None:
    terms = [Gradient(np.full(3, value, np.float32), Sums(1.0, {}, 2)) for value in (1, 2, 3)]
    for term in terms:
        term.vector.flags.writeable = False
    assert average(terms).vector.dtype == np.float32
    np.testing.assert_array_equal(average(terms).vector, 1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("layer", "name"), [(0, "layers.0.weight"), (1, "layers.0.bias"), (3, "layers.2.bias")])
def test_a_broken_gradient_names_its_layer(value: float, layer: int, name: str) -> None:
    vector = np.zeros(NETWORK.size, np.float32)
    vector[NETWORK.slots[layer].offset :] = value
    with pytest.raises(Diverged, match=rf"the gradient of {name} is NaN or infinite in step 5 .*not applied"):
        check_finite(gradient_of(vector), NETWORK, step=4)


def test_a_broken_loss_is_named_too() -> None:
    with pytest.raises(Diverged, match=r"the loss is NaN or infinite in step 1 \(the mean loss there: inf\)"):
        check_finite(gradient_of(np.zeros(NETWORK.size), np.inf), NETWORK, step=0)


def test_what_is_finite_passes() -> None:
    check_finite(gradient_of(np.full(NETWORK.size, 3e38, np.float32), 1e300), NETWORK, step=0)
    check_applied(state_with(Adam(), np.full(NETWORK.size, 3e38, np.float32)), NETWORK)


@pytest.mark.parametrize("optimizer", [Sgd(), Momentum(), Adam()], ids=str)
def test_apply_writes_to_nothing_it_was_given(optimizer: Optimizer) -> None:
    before = state_with(optimizer, np.ones(4, np.float32))
    mean = replace(gradient_of(np.arange(4, dtype=np.float32)), sums=Sums(6.0, {"accuracy": 2.0}, 3))
    for array in (before.params, mean.vector, *before.optimizer.values()):
        array.flags.writeable = False
    after = apply(before, mean, optimizer, 0.5)
    assert (before.step, after.step) == (0, 1)
    np.testing.assert_array_equal(before.params, 1)
    assert (after.params.dtype.name, after.epoch) == ("float32", mean.sums)
    direction, carried = optimizer.direction(mean.vector, before.optimizer, 0)
    np.testing.assert_array_equal(after.params, 1 - np.float32(0.5) * direction)
    assert {name: array.tobytes() for name, array in after.optimizer.items()} == {
        name: array.tobytes() for name, array in carried.items()
    }


@pytest.mark.parametrize(
    ("optimizer", "value", "rate"),
    [(Sgd(), 1e30, 1e30), (Sgd(), 1.0, 1e300), (Momentum(), 3e38, 1.0), (Adam(), 1e25, 0.001), (Adam(), 1.0, 1e300)],
    ids=str,
)
def test_a_step_that_overflows_makes_no_warning_and_is_refused(optimizer: Optimizer, value: float, rate: float) -> None:
    """Adam's square overflows where the gradient doesn't: from then on it would never move again."""
    state = state_with(optimizer, np.zeros(NETWORK.size, np.float32))
    mean = gradient_of(np.full(NETWORK.size, value, np.float32))
    with pytest.raises(Diverged, match=r"step \d+ would make layers\.0\.weight infinite; it was not applied"):  # noqa: PT012
        for _ in range(3):
            state = apply(state, mean, optimizer, rate)
            check_applied(state, NETWORK)
