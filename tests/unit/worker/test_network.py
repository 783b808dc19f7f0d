"""A network: layers over one flat vector, and the gradient of the whole."""

import hashlib
import re

import numpy as np
import pytest

from tests.unit.worker.central_differences import assert_is_gradient
from worker.arrays import Array, Shape
from worker.errors import ShapeMismatch
from worker.gradient import Batch, gradient
from worker.initializers import Initializer
from worker.layers import Context, Dense, Layer, ReLU, Sigmoid, Tanh
from worker.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy
from worker.network import Network

CLASSIFIER = Network((Dense(5), Tanh(), Dense(4), Sigmoid(), Dense(3)), (6,))
CLASSES = np.array([0, 2, 1, 1, 0, 2, 2])

WHOLE: list[tuple[str, Network, Loss, Array]] = [
    ("classifier", CLASSIFIER, SoftmaxCrossEntropy(), CLASSES),
    ("regression", Network((Dense(8), ReLU(), Dense(1)), (3,)), MeanSquaredError(), np.linspace(-2, 2, 7)),
    ("activation first", Network((Sigmoid(), Dense(3), Tanh()), (2,)), MeanSquaredError(), np.ones((7, 3))),
    ("one layer", Network((Dense(3),), (2,)), SoftmaxCrossEntropy(), CLASSES),
    ("the same layer twice", Network((Dense(3), Tanh(), Dense(3), Tanh()), (3,)), MeanSquaredError(), np.ones((7, 3))),
]


def inputs(network: Network) -> Array:
    return np.random.default_rng(4).standard_normal((len(CLASSES), *network.input_shape))


@pytest.mark.parametrize(("network", "loss", "y"), [row[1:] for row in WHOLE], ids=[row[0] for row in WHOLE])
def test_whole_gradient(network: Network, loss: Loss, y: Array) -> None:
    params = np.random.default_rng(5).standard_normal(network.size)
    x = inputs(network)
    at = gradient(network, loss, params, Batch(x, y))
    assert_is_gradient(at.vector, lambda params: gradient(network, loss, params, Batch(x, y)).sums.loss, params)


def test_parameters_lie_one_behind_the_other_under_their_names() -> None:
    network = Network((Dense(5), Tanh(), Dense(3)), (6,))
    assert [(slot.name, slot.offset, slot.size, slot.parameter.shape) for slot in network.slots] == [
        ("layers.0.weight", 0, 30, (6, 5)),
        ("layers.0.bias", 30, 5, (5,)),
        ("layers.2.weight", 35, 15, (5, 3)),
        ("layers.2.bias", 50, 3, (3,)),
    ]
    assert network.size == 53


def test_shapes_between_the_layers() -> None:
    assert Network((Tanh(), Dense(5), ReLU(), Dense(3)), (6,)).shapes == ((6,), (6,), (5,), (5,), (3,))
    assert CLASSIFIER.output_shape == (3,)


def test_views_share_the_vectors_memory() -> None:
    vector = np.zeros(CLASSIFIER.size)
    for number, slot in enumerate(CLASSIFIER.slots, start=1):
        CLASSIFIER.views(vector)[slot.layer][slot.key][...] = number
        assert np.shares_memory(slot.view(vector), vector)
    # Every element was written once, and none by two.
    assert vector.tolist() == [
        number for number, slot in enumerate(CLASSIFIER.slots, start=1) for _ in range(slot.size)
    ]


def test_a_network_may_have_nothing_to_learn() -> None:
    network = Network((Tanh(),), (2,))
    assert network.size == 0
    assert network.initial(seed=0).shape == (0,)
    at = gradient(network, MeanSquaredError(), network.initial(seed=0), Batch(np.zeros((3, 2)), np.ones((3, 2))))
    assert at.vector.shape == (0,)
    assert at.sums.loss == 3


def test_initial_is_a_function_of_the_seed() -> None:
    again = Network(CLASSIFIER.layers, CLASSIFIER.input_shape)
    np.testing.assert_array_equal(CLASSIFIER.initial(seed=1), again.initial(seed=1))
    assert not np.array_equal(CLASSIFIER.initial(seed=1), CLASSIFIER.initial(seed=2))


def test_initial_in_single_precision_is_the_rounded_double() -> None:
    assert CLASSIFIER.initial(seed=1).dtype == np.float32
    np.testing.assert_array_equal(CLASSIFIER.initial(1), CLASSIFIER.initial(1, np.float64).astype(np.float32))


def test_initial_starts_each_parameter_as_it_asks() -> None:
    """Two layers alike draw different numbers; biases are zero; a weight's variance is its initializer's."""
    network = Network((Dense(300, Initializer.HE_NORMAL), Dense(300, Initializer.GLOROT_UNIFORM)), (300,))
    first, second = network.views(network.initial(seed=6))
    assert not first["bias"].any()
    assert not second["bias"].any()
    assert first["weight"].var() == pytest.approx(2 / 300, rel=0.02)
    assert second["weight"].var() == pytest.approx(2 / 600, rel=0.02)
    alike = Network((Dense(4), Dense(4)), (4,))
    one, other = alike.views(alike.initial(seed=6))
    assert not np.array_equal(one["weight"], other["weight"])


def test_initial_is_pinned() -> None:
    """Uniform draws use no library that differs between machines, so a job may count on its first parameters."""
    vector = Network((Dense(64), ReLU(), Dense(10, Initializer.HE_UNIFORM)), (64,)).initial(seed=42)
    digest = hashlib.sha256(vector.astype("<f4").tobytes()).hexdigest()
    assert digest == "80cb8fc418895ef330a105de838916ed143585a78811e06daf67a66d5910743c"


@pytest.mark.parametrize("layer", [Dense(3), Tanh()], ids=str)
def test_leaving_out_the_unused_input_gradient_changes_nothing(layer: Layer) -> None:
    """The network against its layers run by hand, each asked for dx."""
    network = Network((layer, Dense(2)), (3,))
    params = network.initial(seed=7, dtype=np.float64)
    x, dy = inputs(network), np.ones((len(CLASSES), 2))
    _, _, backward, _ = network.forward(params, x)
    actual = np.full(network.size, np.nan)
    backward(dy, actual)

    expected = np.full(network.size, np.nan)
    backwards = []
    for each, its_params in zip(network.layers, network.views(params), strict=True):
        x, back = each.forward(its_params, x, Context(input_gradient=True))
        backwards.append(back)
    for back, grads in zip(backwards[::-1], network.views(expected)[::-1], strict=True):
        dy = back(dy, grads)
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    ("layers", "input_shape", "index", "message"),
    [
        ((Dense(3),), (), 0, "rows of shape () reach it; store them as (1,)"),
        ((ReLU(), Tanh(), Dense(3)), (28, 0), 2, "rows of shape (28, 0) reach it"),
        ((Dense(3),), (0,), 0, "at least one feature"),
    ],
)
def test_a_shape_that_does_not_fit_names_the_layer(
    layers: tuple[Layer, ...], input_shape: Shape, index: int, message: str
) -> None:
    with pytest.raises(ShapeMismatch, match=re.escape(message)) as refused:
        _ = Network(layers, input_shape).shapes
    assert refused.value.path == (("layers", index),)
    assert str(refused.value).startswith(f"layers[{index}]: ")
