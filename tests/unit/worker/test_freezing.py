"""Frozen layers: a fixed function in front of, between or behind what learns."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pytest

from worker.arrays import Array, Shape
from worker.gradient import Batch, gradient
from worker.initializers import Initializer
from worker.layers import Backward, Context, Dense, Draw, Dropout, Layer, Parameter, Params, Residual, Tanh
from worker.losses import MeanSquaredError
from worker.network import Network, Segment, Traits

LAYERS = (Dense(5), Tanh(), Dense(4), Tanh(), Residual((Dense(4), Tanh())), Dense(2))
DRAW = Draw(seed=1, step=2, shard=0)
FROZEN, LEARNS = Traits(frozen=True), Traits()

_random = np.random.default_rng(3)
BATCH = Batch(_random.standard_normal((7, 3)), _random.standard_normal((7, 2)))


@dataclass(frozen=True)
class Counting(Tanh):
    """y = x + what it kept, the number of rows seen while training being what it keeps."""

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:  # noqa: ARG002
        return {"seen": Parameter((1,), Initializer.ZEROS, kept=True)}

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        training = context.draw is not None

        def backward(dy: Array, grads: Params) -> Array:
            grads["seen"][...] = len(x) if training else 0
            return dy

        return x + params["seen"], backward


@dataclass(frozen=True)
class OneWay(Tanh):
    """A layer that can't be gone through backwards."""

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        def backward(dy: Array, grads: Params) -> Array:  # noqa: ARG001
            raise AssertionError("its backward was asked for")

        return np.tanh(x), backward


def found(network: Network, params: Array) -> Array:
    """The gradient, every element of which must have been written."""
    vector = np.full(network.size, np.nan)
    gradient(network, MeanSquaredError(), params, BATCH, DRAW, vector)
    assert np.isfinite(vector).all()
    return vector


@pytest.mark.parametrize("frozen", [{0}, {0, 1, 2}, {2}, {5}, {4}, {0, 4}, {2, 4, 5}, {1, 3}, {0, 2, 4, 5}], ids=str)
def test_the_others_get_the_gradient_that_they_get_without_freezing(frozen: set[int]) -> None:
    whole = Network(LAYERS, (3,))
    network = Network(LAYERS, (3,), traits=tuple(Traits(frozen=index in frozen) for index in range(len(LAYERS))))
    params = whole.initial(4, np.float64)
    expected = found(whole, params)
    for slot in whole.slots:
        if slot.layer in frozen:
            slot.view(expected)[...] = 0
    np.testing.assert_array_equal(found(network, params), expected)
    assert network.learns == (not {0, 2, 4, 5} <= frozen)


def test_frozen_layers_in_front_cost_no_backward() -> None:
    layers = (OneWay(), Dense(3), OneWay(), Dense(2))
    network = Network(layers, (3,), traits=(LEARNS, FROZEN, LEARNS, LEARNS))
    assert found(network, network.initial(0, np.float64))[network.slots[-2].offset :].all()
    with pytest.raises(AssertionError):
        found(Network(layers, (3,)), network.initial(0, np.float64))


def test_a_frozen_layer_computes_as_in_prediction_while_others_train() -> None:
    layers: tuple[Layer, ...] = (Dense(3), Dropout(0.5), Counting(), Dense(2))
    frozen = Network(layers, (3,), traits=(LEARNS, FROZEN, FROZEN, LEARNS))
    params = frozen.initial(0, np.float64)
    trained, *_ = frozen.forward(params, BATCH.inputs, DRAW)
    predicted, *_ = frozen.forward(params, BATCH.inputs)
    np.testing.assert_array_equal(trained, predicted)
    assert found(frozen, params)[-1] == 0
    learning = Network(layers, (3,))
    assert not np.array_equal(learning.forward(params, BATCH.inputs, DRAW)[0], predicted)
    assert found(learning, params)[-1] == len(BATCH.inputs)


def test_segments_are_what_changes() -> None:
    layers = (Dense(2), Counting(), Dense(2), Counting(), Dense(2), Dense(2))
    weights = [Segment(start, start + 6) for start in (0, 6, 12, 18)]

    def segments(*traits: Traits) -> list[Segment]:
        return list(Network(layers, (2,), traits=traits).segments)

    assert segments() == [Segment(0, 24), Segment(24, 26, kept=True)]
    assert segments(FROZEN, FROZEN, *[LEARNS] * 4) == [Segment(6, 24), Segment(25, 26, kept=True)]
    fast = Traits(learning_rate_scale=3.0)
    assert segments(fast, fast, LEARNS, LEARNS, fast, fast) == [
        Segment(0, 6, 3.0),
        weights[1],
        Segment(12, 24, 3.0),
        Segment(24, 26, kept=True),
    ]
    assert segments(LEARNS, FROZEN, FROZEN, FROZEN, LEARNS, FROZEN) == [weights[0], weights[2]]
    assert segments(*[FROZEN] * 6) == []


def test_traits_go_with_the_network() -> None:
    network = Network(LAYERS, (3,), traits=(Traits("first", frozen=True), *[LEARNS] * 5))
    assert pickle.loads(pickle.dumps(network)) == network  # noqa: S301
    assert network.initial(1).tobytes() == Network(LAYERS, (3,)).initial(1).tobytes()
