"""What a layer may know beyond its input: numbers of its own, padding, and that it is training."""

import itertools

import numpy as np
import pytest

from worker.arrays import Array, Shape
from worker.gradient import Batch, evaluate, gradient
from worker.initializers import Initializer
from worker.layers import Backward, Concatenate, Context, Dense, Draw, Dropout, Parameter, Params, ReLU, Residual, Stack
from worker.losses import MeanSquaredError
from worker.network import Network

X = np.ones((3, 40))
DRAW = Draw(seed=1, step=2, shard=3)


def dropped(network: Network, draw: Draw | None) -> Array:
    return network.forward(network.initial(seed=0), X, draw)[0]


def test_the_same_part_of_a_job_draws_the_same() -> None:
    network = Network((Dropout(),), (40,))
    np.testing.assert_array_equal(dropped(network, DRAW), dropped(network, DRAW))


def test_every_part_of_a_job_draws_its_own() -> None:
    """Another seed, step or shard; and another place in the network, however deep."""
    network = Network((Dropout(),), (40,))
    deeper = Network((Concatenate((Stack((Dropout(),)), Stack((Dropout(),)), Stack((ReLU(), Dropout())))),), (40,))
    draws = [DRAW, Draw(2, 2, 3), Draw(1, 3, 3), Draw(1, 2, 4)]
    masks = [
        *(dropped(network, draw) != 0 for draw in draws),
        *np.split(dropped(deeper, DRAW) != 0, 3, axis=1),
    ]
    assert all((one != other).any() for one, other in itertools.combinations(masks, 2))


def test_nothing_is_dropped_while_predicting_and_the_mean_stays() -> None:
    network = Network((Dropout(0.25),), (40,))
    np.testing.assert_array_equal(dropped(network, None), X)
    many = Network((Dropout(0.25),), (100_000,))
    y, *_ = many.forward(many.initial(seed=0), np.ones((1, 100_000)), DRAW)
    assert set(np.unique(y)) == {0.0, 1 / 0.75}
    # Four standard errors of the share of 100,000 draws.
    assert np.mean(y == 0) == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 100_000))


class Counting:
    """Learns an offset, keeps a mean of what it saw, and adds the square of its input to the loss."""

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        return {
            "mean": Parameter(input_shape, Initializer.ONES, kept=True),
            "offset": Parameter(input_shape, Initializer.ZEROS),
        }

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        context.penalties.append(float(np.sum(x**2)))

        def backward(dy: Array, grads: Params) -> Array:
            grads["offset"][...] = dy.sum(axis=0)
            grads["mean"][...] = x.sum(axis=0) - len(x) * params["mean"]
            dx: Array = dy + 2 * x
            return dx

        y: Array = x + params["offset"]
        return y, backward


def test_what_is_kept_lies_behind_all_that_is_learned() -> None:
    network = Network((Counting(), Dense(2), Residual((Counting(),))), (3,))
    names = [slot.name for slot in network.slots]
    assert names == [
        "layers.0.offset",
        "layers.1.weight",
        "layers.1.bias",
        "layers.2.layers.0.offset",
        "layers.0.mean",
        "layers.2.layers.0.mean",
    ]
    assert (network.learned, network.size) == (3 + 6 + 2 + 2, 3 + 6 + 2 + 2 + 3 + 2)
    offsets = [slot.offset for slot in network.slots]
    assert offsets == [sum(slot.size for slot in network.slots[:number]) for number in range(6)]


def test_what_layers_add_to_the_loss_is_part_of_it() -> None:
    network = Network((Counting(),), (3,))
    params = network.initial(seed=0, dtype=np.float64)
    batch = Batch(np.full((2, 3), 3.0), np.full((2, 3), 1.0))
    at = gradient(network, MeanSquaredError(), params, batch, DRAW)
    assert at.sums.loss == 2 * 4 + 6 * 9
    assert evaluate(network, MeanSquaredError(), params, batch).loss == at.sums.loss
    np.testing.assert_array_equal(at.vector[3:], np.full(3, 2 * 3.0 - 2 * 1.0))


class Seen:
    """Lets a test see the mask that reaches it."""

    def __init__(self) -> None:
        self.masks: list[Array | None] = []

    def output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:  # noqa: ARG002
        return {}

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:  # noqa: ARG002
        self.masks.append(context.mask)
        return x, lambda dy, _grads: dy


@pytest.mark.parametrize(
    ("x", "mask"),
    [
        ([[5, 0, 0], [1, 2, 3]], [[True, False, False], [True, True, True]]),
        ([[[5, 0], [0, 0]], [[0, 0], [0, 1]]], [[True, False], [False, True]]),
    ],
    ids=["tokens", "vectors"],
)
def test_padding_is_seen_by_layers_within_layers(x: list[object], mask: list[list[bool]]) -> None:
    rows: Array = np.array(x, float)
    seen = Seen()
    for padding, expected in ((0.0, mask), (None, None)):
        network = Network((Residual((seen,)),), rows.shape[1:], padding)
        network.forward(network.initial(seed=0), rows)
        last = seen.masks[-1]
        assert (last.tolist() if last is not None else None) == expected
