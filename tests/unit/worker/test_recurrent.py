"""What layers for sequences promise beyond what every layer does: padding, direction, positions."""

import re

import numpy as np
import pytest

from tests.unit.worker.cases_recurrent import CELLS
from tests.unit.worker.central_differences import assert_is_gradient
from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.gradient import Batch, gradient
from worker.layers import (
    Context,
    Dense,
    Draw,
    Gru,
    Layer,
    Lstm,
    MultiHeadAttention,
    PositionalEncoding,
    RecurrentActivation,
    ReLU,
    Residual,
    SimpleRnn,
    Stack,
)
from worker.losses import SoftmaxCrossEntropy
from worker.network import Network
from worker.scores import ACCURACY, values

TIME, FEATURES = 4, 4

MASKS = {
    "padded at the end": [[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]],
    "padded at the start": [[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]],
    "padded in between": [[1, 0, 1, 1], [0, 1, 0, 1], [1, 0, 0, 1]],
}

OF_EVERY_PLACE: dict[str, Layer] = {
    **{name: cell(3, return_sequences=True) for name, cell in CELLS.items()},
    **{f"{name}, reversed": cell(3, return_sequences=True, reverse=True) for name, cell in CELLS.items()},
    **{f"{name}, both ways": cell(3, return_sequences=True, bidirectional=True) for name, cell in CELLS.items()},
    "attention": MultiHeadAttention(2),
    "causal attention": MultiHeadAttention(2, causal=True),
    "a transformer's block": Stack(
        (Residual((MultiHeadAttention(2),)), Residual((Dense(6), ReLU(), Dense(FEATURES)))),
    ),
}
OF_THE_LAST: dict[str, Layer] = {
    **{name: cell(3) for name, cell in CELLS.items()},
    **{f"{name}, reversed": cell(3, reverse=True) for name, cell in CELLS.items()},
    **{f"{name}, both ways": cell(3, bidirectional=True) for name, cell in CELLS.items()},
    "stacked": Stack((Lstm(3, return_sequences=True, bidirectional=True), Gru(2))),
}
EVERY = {**OF_EVERY_PLACE, **{f"last of {name}": layer for name, layer in OF_THE_LAST.items()}}


def drawn(layer: Layer, rows: int, shape: Shape = (TIME, FEATURES)) -> tuple[dict[str, Array], Array, Array]:
    """Parameters, x and dy."""
    rng = np.random.default_rng(2)
    params: dict[str, Array] = {key: rng.standard_normal(of.shape) for key, of in layer.parameters(shape).items()}
    return params, rng.standard_normal((rows, *shape)), rng.standard_normal((rows, *layer.output_shape(shape)))


def run(layer: Layer, params: dict[str, Array], x: Array, dy: Array, mask: Array | None) -> tuple[Array, Array, Array]:
    """y, dx and all gradients of parameters in one vector, while training."""
    y, backward = layer.forward(params, x, Context(mask=mask, draw=Draw(seed=1, step=1, shard=0)))
    grads = {key: np.full_like(value, np.nan) for key, value in params.items()}
    dx = backward(dy, grads)
    return y, dx, np.concatenate([grads[key].ravel() for key in params])


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("masked", MASKS)
def test_padding_is_as_if_it_were_not_there(name: str, masked: str) -> None:
    """Whatever stands at padded places: each row gives what its other places alone would give."""
    layer, mask = EVERY[name], np.array(MASKS[masked], np.bool_)
    params, x, dy = drawn(layer, len(mask))
    if name in OF_EVERY_PLACE:
        dy[~mask] = 0
    y, dx, grads = run(layer, params, x, dy, mask)
    total = np.zeros_like(grads)
    for row, real in enumerate(mask):
        of_y = real if name in OF_EVERY_PLACE else slice(None)
        alone = run(layer, params, x[[row]][:, real], dy[[row]][:, of_y], None)
        np.testing.assert_allclose(y[row, of_y], alone[0][0], atol=1e-12)
        np.testing.assert_allclose(dx[row, real], alone[1][0], atol=1e-12)
        total += alone[2]
    np.testing.assert_allclose(grads, total, atol=1e-11)
    assert not dx[~mask].any()


@pytest.mark.parametrize("name", EVERY)
def test_gradients_with_padding(name: str) -> None:
    """What is handed on at padded places has a gradient too: that of the state which was carried there."""
    layer, mask = EVERY[name], np.array([*MASKS["padded in between"], [0] * TIME], np.bool_)
    params, x, dy = drawn(layer, len(mask))
    _, dx, _ = run(layer, params, x, dy, mask)
    assert_is_gradient(dx, lambda at: float(np.sum(dy * layer.forward(params, at, Context(mask=mask))[0])), x)


@pytest.mark.parametrize("name", EVERY)
def test_a_row_that_is_all_padding_is_harmless(name: str) -> None:
    layer, mask = EVERY[name], np.zeros((2, TIME), np.bool_)
    params, x, dy = drawn(layer, len(mask))
    y, dx, grads = run(layer, params, x, dy, mask)
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert np.isfinite(grads).all()
    if isinstance(layer, SimpleRnn | Lstm | Gru):
        assert not y.any()
        assert not dx.any()
        assert not grads.any()
    if isinstance(layer, MultiHeadAttention):
        assert (y == params["output_bias"]).all()


LARGE: dict[str, tuple[Layer, int, Shape]] = {
    "of many rows": (Lstm(10), 26_000, (2, 1)),
    "padded": (Gru(10, return_sequences=True, bidirectional=True), 26_000, (2, 1)),
    "attention": (MultiHeadAttention(2), 60, (200, 2)),
}


@pytest.mark.parametrize("name", LARGE)
def test_predicting_is_as_training(name: str) -> None:
    """Though it keeps less, and goes through many rows piece by piece."""
    layer, rows, shape = LARGE[name]
    params, x, dy = drawn(layer, rows, shape)
    mask = np.arange(shape[0]) < np.arange(rows)[:, np.newaxis] % 3 if name == "padded" else None
    training = Context(mask=mask, draw=Draw(seed=1, step=1, shard=0))
    results = []
    for context in (training, Context(mask=mask)):
        y, backward = layer.forward({key: value * 0.1 for key, value in params.items()}, x, context)
        grads = {key: np.full_like(value, np.nan) for key, value in params.items()}
        results.append({"y": y, "dx": backward(dy, grads), **grads})
    for key, value in results[0].items():
        np.testing.assert_allclose(results[1][key], value, 1e-9, 1e-12, err_msg=key)


@pytest.mark.parametrize("cell", CELLS.values())
def test_padded_places_repeat_the_state_before_them(cell: type[Lstm]) -> None:
    layer, mask = cell(3, return_sequences=True), np.array([[0, 1, 0, 1, 0, 0]], np.bool_)
    params, x, _ = drawn(layer, 1, (6, FEATURES))
    (y,), _ = layer.forward(params, x, Context(mask=mask))
    assert not y[0].any()
    np.testing.assert_array_equal(y[2], y[1])
    np.testing.assert_array_equal(y[4:], y[[3, 3]])
    assert (y[1] != y[3]).all()


@pytest.mark.parametrize("cell", CELLS.values())
def test_reverse_reads_what_is_turned_round(cell: type[Lstm]) -> None:
    params, x, _ = drawn(cell(3), 2)
    expected, _ = cell(3, return_sequences=True).forward(params, x[:, ::-1], Context())
    states, _ = cell(3, return_sequences=True, reverse=True).forward(params, x, Context())
    last, _ = cell(3, reverse=True).forward(params, x, Context())
    np.testing.assert_allclose(states, expected[:, ::-1], atol=1e-14)
    np.testing.assert_allclose(last, expected[:, -1], atol=1e-14)


@pytest.mark.parametrize("cell", CELLS.values())
def test_both_ways_are_both_side_by_side(cell: type[Lstm]) -> None:
    params, x, _ = drawn(cell(3, bidirectional=True), 2)
    ways = [(name, cell(3, reverse=name == "backward")) for name in ("forward", "backward")]
    expected = [
        each.forward({key: params[f"{name}.{key}"] for key in each.parameters((TIME, FEATURES))}, x, Context())[0]
        for name, each in ways
    ]
    y, _ = cell(3, bidirectional=True).forward(params, x, Context())
    np.testing.assert_allclose(y, np.concatenate(expected, axis=1), atol=1e-14)


@pytest.mark.parametrize("cell", CELLS.values())
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_far_out_gates_are_shut_or_open(cell: type[Lstm], dtype: type) -> None:
    layer = cell(3, return_sequences=True)
    params, x, _ = drawn(layer, 2)
    y, _ = layer.forward(
        {key: value.astype(dtype) for key, value in params.items()}, (1e5 * x).astype(dtype), Context()
    )
    assert (np.abs(y) <= 1).all()


@pytest.mark.parametrize("cell", CELLS.values())
def test_how_parameters_start(cell: type[Lstm]) -> None:
    network = Network((cell(5),), (TIME, FEATURES))
    (views,) = network.views(network.initial(3))
    for key, value in views.items():
        if key.endswith("bias"):
            assert (value == (key == "forget_bias")).all()
    recurrent = views["recurrent_weight"]
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(5), atol=1e-6)


def test_causal_attention_sees_nothing_later() -> None:
    layer = MultiHeadAttention(2, causal=True)
    params, x, _ = drawn(layer, 2)
    y, _ = layer.forward(params, x, Context())
    changed = x.copy()
    changed[:, 2:] += 1
    other, _ = layer.forward(params, changed, Context())
    np.testing.assert_array_equal(other[:, :2], y[:, :2])
    assert (other[:, 2:] != y[:, 2:]).all()


def test_attention_does_not_know_the_order() -> None:
    layer, order = MultiHeadAttention(2), [2, 0, 3, 1]
    params, x, _ = drawn(layer, 2)
    y, _ = layer.forward(params, x, Context())
    other, _ = layer.forward(params, x[:, order], Context())
    np.testing.assert_allclose(other, y[:, order], atol=1e-13)


@pytest.mark.parametrize("masked", [False, True])
def test_many_rows_of_long_sequences_are_as_each_alone(*, masked: bool) -> None:
    """Attention goes through rows tile by tile."""
    layer, rows, time = MultiHeadAttention(2, causal=True), 7, 100
    params, x, dy = drawn(layer, rows, (time, 2))
    mask = np.arange(time) < np.arange(30, 30 + rows)[:, np.newaxis] if masked else None
    y, dx, grads = run(layer, params, x, dy, mask)
    total = np.zeros_like(grads)
    for row in range(rows):
        one = slice(row, row + 1)
        alone = run(layer, params, x[one], dy[one], None if mask is None else mask[one])
        np.testing.assert_allclose(y[row], alone[0][0], atol=1e-12)
        np.testing.assert_allclose(dx[row], alone[1][0], atol=1e-12)
        total += alone[2]
    np.testing.assert_allclose(grads, total, atol=1e-10)


def test_waves_by_hand() -> None:
    y, _ = PositionalEncoding().forward({}, np.ones((1, 3, 3)), Context())
    slow = np.arange(3) / 10_000 ** (2 / 3)
    expected = [np.sin([0, 1, 2]), np.cos([0, 1, 2]), np.sin(slow)]
    np.testing.assert_allclose(y[0] - 1, np.transpose(expected), atol=1e-15)


def test_likeness_of_positions_depends_on_their_distance() -> None:
    (y,), _ = PositionalEncoding().forward({}, np.zeros((1, 20, 8)), Context())
    likeness = y @ y.T
    for distance in range(20):
        along = np.diagonal(likeness, distance)
        np.testing.assert_allclose(along, along[0], atol=1e-12)


def test_a_network_leaves_padding_out() -> None:
    """From the number that stands for it: with longer padding the gradient is the same."""
    layers = (Lstm(4, return_sequences=True), MultiHeadAttention(2), Gru(3, bidirectional=True), Dense(2))
    rng = np.random.default_rng(4)
    short = rng.standard_normal((6, 5, 3))
    for row, length in enumerate([5, 4, 3, 2, 1, 5]):
        short[row, length:] = -9
    long = np.concatenate([short, np.full((6, 3, 3), -9.0)], axis=1)
    classes = rng.integers(2, size=6)
    networks = [Network(layers, x.shape[1:], padding=-9) for x in (short, long)]
    params = networks[0].initial(1, np.float64)
    of_short, of_long = (
        gradient(network, SoftmaxCrossEntropy(), params, Batch(x, classes))
        for network, x in zip(networks, (short, long), strict=True)
    )
    np.testing.assert_allclose(of_long.vector, of_short.vector, atol=1e-12)
    assert of_long.sums.loss == pytest.approx(of_short.sums.loss)


def test_an_lstm_learns_to_remember() -> None:
    """Whether the first of ten numbers was above zero, when all were seen.

    Steps are bounded and become smaller, without which the last bits of a sum decide how well the last of them does.
    """
    network = Network((Lstm(8), Dense(2)), (10, 1))
    rng = np.random.default_rng(5)
    x = rng.standard_normal((64, 10, 1)).astype(np.float32)
    classes = (x[:, 0, 0] > 0).astype(int)
    params = network.initial(1)
    velocity = np.zeros_like(params)
    for step in range(200):
        found = gradient(network, SoftmaxCrossEntropy(), params, Batch(x, classes))
        mean = found.vector / np.float32(len(x))
        velocity = 0.9 * velocity + mean / np.float32(max(1.0, float(np.linalg.norm(mean)) / 0.2))
        params -= np.float32(0.3 * (1 - step / 200)) * velocity
    assert values(ACCURACY, found.sums.scores)["accuracy"] > 0.95


@pytest.mark.parametrize(
    ("make", "field", "problem"),
    [
        *(
            (lambda cell=cell, n=n: cell(n), "units", f"is {n}; must be 1")
            for cell in CELLS.values()
            for n in (0, 2049)
        ),
        (lambda: Lstm(2, reverse=True, bidirectional=True), "reverse", "set one of them"),
        (lambda: MultiHeadAttention(0), "heads", "is 0; must be 1 to 64"),
        (lambda: MultiHeadAttention(65), "heads", "is 65; must be 1 to 64"),
        (lambda: MultiHeadAttention(1, key_size=-1), "key_size", "is -1; must be 1 to 1,024, or 0"),
        (lambda: MultiHeadAttention(1, key_size=1025), "key_size", "is 1025; must be"),
    ],
)
def test_what_is_out_of_range(make: object, field: str, problem: str) -> None:
    assert callable(make)
    with pytest.raises(InvalidValue, match=re.escape(problem)) as refused:
        make()
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("layer", "input_shape", "told"),
    [
        (Lstm(3), (4,), "takes rows of shape (time, features), both at least 1, but rows of shape (4,) reach it"),
        (Gru(3), (0, 2), "(0, 2) reach it"),
        (SimpleRnn(3, activation=RecurrentActivation.RELU), (2, 0), "(2, 0) reach it"),
        (Lstm(3), (2, 2, 2), "(2, 2, 2) reach it"),
        (Lstm(1), (10_001, 1), "at most 10,000 places, but 10,001 reach it"),
        (Lstm(1001), (1000, 1), "makes 1,001,000 numbers of a row of shape (1000, 1); must be at most 1,000,000"),
        (Gru(501, bidirectional=True), (1000, 1), "of 1,002 units makes 1,002,000 numbers"),
        (MultiHeadAttention(2), (4,), "(time, features)"),
        (MultiHeadAttention(3), (2, 4), "is 3, among which the 4 features of rows of shape (2, 4) can't be shared"),
        (MultiHeadAttention(2), (4097, 2), "at most 4,096 places, but 4,097 reach it"),
        (MultiHeadAttention(2), (3000, 2), "18,000,000 weights a row; must be at most 16,777,216"),
        (PositionalEncoding(), (4,), "(time, features)"),
    ],
)
def test_shapes_that_do_not_fit(layer: Layer, input_shape: Shape, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        layer.output_shape(input_shape)
