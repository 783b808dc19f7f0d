"""Padding is no part of a row: whatever is appended to sequences of different lengths, nothing comes of it.

The law is that of each sequence alone, cut to its own length, which knows nothing of padding.
"""

from dataclasses import dataclass

import numpy as np
import pytest

from tests.unit.worker.central_differences import assert_is_gradient
from worker.arrays import Array, Shape
from worker.gradient import Batch, evaluate, gradient
from worker.layers import (
    ELU,
    GELU,
    LAYERS,
    BatchNorm,
    Concatenate,
    Context,
    Conv1d,
    Conv1dTranspose,
    Conv2d,
    Conv2dTranspose,
    Dense,
    Draw,
    Dropout,
    Embedding,
    Flatten,
    GaussianLatent,
    GaussianNoise,
    GlobalPool,
    GroupNorm,
    Gru,
    Layer,
    LayerNorm,
    LeakyReLU,
    Lstm,
    MultiHeadAttention,
    Padding,
    Params,
    Pool1d,
    Pool2d,
    Pooling,
    PositionalEncoding,
    Quantum,
    ReLU,
    Rescale,
    Reshape,
    Residual,
    Sigmoid,
    SiLU,
    SimpleRnn,
    Softmax,
    Softplus,
    Stack,
    Tanh,
)
from worker.losses import (
    LOSSES,
    BinaryCrossEntropy,
    Hinge,
    Huber,
    Loss,
    MeanAbsoluteError,
    MeanSquaredError,
    SoftmaxCrossEntropy,
)
from worker.network import Network
from worker.scores import values

SAME, MAX, AVERAGE = Padding.SAME, Pooling.MAX, Pooling.AVERAGE
TIME, LENGTHS = 9, np.array([9, 5, 3, 7])
"""All odd: with padding SAME and a stride of 2 windows lie where they lie in a sequence alone only then."""
MASK = np.arange(TIME) < LENGTHS[:, np.newaxis]
TRAINING = Draw(seed=1, step=2, shard=0)


@dataclass(frozen=True)
class Case:
    name: str
    layer: Layer
    inner: Shape = (4,)
    """Of a place."""


CASES = [
    Case("dense", Dense(3)),
    *(Case(type(layer).__name__, layer) for layer in (ReLU(), LeakyReLU(), ELU(), GELU(), SiLU(), Softplus())),
    *(Case(type(layer).__name__, layer) for layer in (Tanh(), Sigmoid(), Softmax(), Rescale((2.0,), (0.5,)))),
    Case("simple rnn", SimpleRnn(3)),
    *(Case(cell.__name__, cell(3, return_sequences=True)) for cell in (SimpleRnn, Lstm, Gru)),
    Case("lstm, the last state of both ways", Lstm(2, bidirectional=True)),
    Case("gru, all states both ways", Gru(2, bidirectional=True, return_sequences=True)),
    Case("attention", MultiHeadAttention(2)),
    Case("causal attention", MultiHeadAttention(2, causal=True)),
    Case("positional encoding", PositionalEncoding()),
    Case("layer_norm", LayerNorm()),
    Case("group_norm", GroupNorm(2)),
    Case("group_norm of lines", GroupNorm(2), (3, 4)),
    Case("global mean", GlobalPool()),
    Case("global maximum", GlobalPool(MAX)),
    Case("global mean of lines", GlobalPool(), (3, 2)),
    Case("gaussian_latent", GaussianLatent(0.3)),
    Case("reshape", Reshape((TIME, 2, 2))),
    Case("conv1d", Conv1d(3, (3,))),
    Case("conv1d, same", Conv1d(3, (4,), padding=SAME)),
    Case("conv1d in steps", Conv1d(3, (3,), (2,))),
    Case("conv1d, dilated, with a margin", Conv1d(2, (3,), dilation=(2,), padding_size=(2,))),
    Case("conv1d with more margin than it shrinks", Conv1d(2, (2,), padding_size=(1,))),
    Case("conv1d in steps, same", Conv1d(3, (3,), (2,), SAME)),
    Case("conv2d over time", Conv2d(3, (2, 2), (1, 2)), (4, 2)),
    *(Case(f"conv1d_transpose, {size} in steps of 2", Conv1dTranspose(3, (size,), (2,))) for size in (1, 2, 3)),
    *(Case(f"conv1d_transpose, same, {size}", Conv1dTranspose(2, (size,), (3,), SAME)) for size in (2, 3, 4)),
    Case("conv1d_transpose, a margin", Conv1dTranspose(2, (4,), (2,), padding_size=(1,))),
    Case("conv2d_transpose", Conv2dTranspose(2, (2, 2), (2, 1)), (2, 3)),
    *(Case(f"pool1d, {function.value}", Pool1d(function)) for function in Pooling),
    *(Case(f"pool1d, {function.value}, same", Pool1d(function, (3,), (1,), SAME)) for function in Pooling),
    *(
        Case(f"pool1d, {function.value}, a margin", Pool1d(function, (3,), (2,), padding_size=(1,)))
        for function in Pooling
    ),
    Case("pool2d over time", Pool2d(AVERAGE, (2, 2), (1, 2)), (4, 2)),
    Case("residual", Residual((Conv1d(3, (3,)), GroupNorm(1)), (Conv1d(3, (3,)),))),
    Case("concatenate", Concatenate((Stack((Pool1d(MAX, (3,), (1,)),)), Stack((Conv1d(2, (3,)), Tanh()))))),
    Case("concatenate at the end", Concatenate((Stack((GlobalPool(),)), Stack((Conv1d(2, (2,)), GlobalPool(MAX)))))),
    Case("a stack", Stack((Conv1d(4, (2,)), GroupNorm(2), Pool1d(), Lstm(3, return_sequences=True), Dense(2)))),
]

OTHERWISE = {
    BatchNorm: "below: of all rows at once",
    Embedding: "below: it takes integers",
    Dropout: "draws by place",
    GaussianNoise: "draws by place",
    Flatten: "leaves no places",
    Quantum: "takes no sequences",
}

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def parameters(layer: Layer, shape: Shape) -> dict[str, Array]:
    rng = np.random.default_rng(7)
    return {key: rng.standard_normal(each.shape) for key, each in layer.parameters(shape).items()}


def padded(shape: Shape, seed: int = 0) -> Array:
    """Rows with numbers at padded places that would be noticed."""
    x = np.random.default_rng(seed).standard_normal((len(LENGTHS), *shape))
    x[~MASK] *= 1e3
    return x


def passed(layer: Layer, params: Params, x: Array, mask: Array | None, dy: Array | None = None) -> tuple[Array, ...]:
    """Outputs, the mask that is left, the penalty, dx, and gradients behind one another."""
    context = Context(mask=mask)
    y, back = layer.forward(params, x, context)
    grads = {key: np.empty_like(value) for key, value in params.items()}
    dx = back(np.ones_like(y) if dy is None else dy.copy(), grads)
    left = np.ones(y.shape[:2], bool) if context.mask is None else context.mask
    flat = np.concatenate([np.zeros(0), *(value.reshape(-1) for value in grads.values())])
    return y, left, np.array(sum(context.penalties)), dx, flat


def test_every_layer_is_in_a_table() -> None:
    names = {type(case.layer) for case in CASES}
    assert names - {Stack} | OTHERWISE.keys() == set(LAYERS.values())


@every_case
def test_a_padded_sequence_gives_what_it_gives_alone(case: Case) -> None:
    shape = (TIME, *case.inner)
    params, x = parameters(case.layer, shape), padded(shape)
    y, left, penalty, *_ = passed(case.layer, params, x, MASK)
    dy = np.random.default_rng(3).standard_normal(y.shape)
    has_places = y.ndim > 2
    if has_places:
        dy[~left] = 0
    *_, dx, grads = passed(case.layer, params, x, MASK, dy)
    penalties, of_all = [], np.zeros_like(grads)
    for row, length in enumerate(LENGTHS):
        layer = Reshape((length, 2, 2)) if isinstance(case.layer, Reshape) else case.layer
        own = dy[row][left[row]] if has_places else dy[row]
        alone, _, its_penalty, its_dx, its_grads = passed(
            layer, params, x[row : row + 1, :length], None, own[np.newaxis]
        )
        np.testing.assert_allclose(y[row][left[row]] if has_places else y[row], alone[0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(dx[row, :length], its_dx[0], rtol=0, atol=1e-12)
        np.testing.assert_array_equal(dx[row, length:], 0)
        penalties.append(its_penalty)
        of_all += its_grads
    np.testing.assert_allclose(penalty, sum(penalties), rtol=1e-12)
    np.testing.assert_allclose(grads, of_all, rtol=0, atol=1e-11)


@every_case
@pytest.mark.parametrize("mask", [MASK, MASK[:, ::-1], np.zeros_like(MASK)], ids=["behind", "before", "everywhere"])
def test_gradients_with_padding(case: Case, mask: Array) -> None:
    """Central differences, where errors come back from padded places too; and the mask that is left fits."""
    shape = (TIME, *case.inner)
    params = parameters(case.layer, shape)
    x = np.random.default_rng(2).standard_normal((len(LENGTHS), *shape))
    context = Context(mask=mask)
    y, _ = case.layer.forward(params, x, context)
    assert context.mask is None if y.ndim == 2 else context.mask is not None and context.mask.shape == y.shape[:2]
    dy = np.random.default_rng(3).standard_normal(y.shape)
    *_, dx, grads = passed(case.layer, params, x, mask, dy)

    def loss(x: Array, params: Params) -> float:
        y, _, penalty, *_ = passed(case.layer, params, x, mask)
        return float(np.sum(y * dy) + penalty)

    if dx.any():
        assert_is_gradient(dx, lambda x: loss(x, params), x)
    ends = np.cumsum([value.size for value in params.values()])[:-1]
    at = np.concatenate([np.zeros(0), *(value.reshape(-1) for value in params.values())])

    def split(vector: Array) -> Params:
        parts = np.split(vector, ends)
        return {key: part.reshape(params[key].shape) for key, part in zip(params, parts, strict=True)}

    if grads.any():
        assert_is_gradient(grads, lambda vector: loss(x, split(vector)), at)


@pytest.mark.parametrize("draw", [None, TRAINING], ids=["predicting", "training"])
@pytest.mark.parametrize("inner", [(4,), (2, 4)], ids=["vectors", "lines"])
def test_batch_norm_counts_the_places_of_the_rows_alone(draw: Draw | None, inner: Shape) -> None:
    """As if they lay behind one another in a single row."""
    layer, shape = BatchNorm(), (TIME, *inner)
    params = {**parameters(layer, shape), "variance": np.arange(1.0, 5.0)}
    x, dy = padded(shape), padded(shape, seed=1)
    found = []
    for rows, errors, mask in ((x, dy, MASK), (x[MASK][np.newaxis], dy[MASK][np.newaxis], None)):
        y, back = layer.forward(params, rows, Context(draw=draw, mask=mask))
        grads = {key: np.empty_like(value) for key, value in params.items()}
        found.append((y, back(errors.copy(), grads), grads))
    (y, dx, grads), (alone, its_dx, its_grads) = found
    np.testing.assert_allclose(y[MASK], alone[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(dx[MASK], its_dx[0], rtol=0, atol=1e-12)
    assert not y[~MASK].any()
    assert not dx[~MASK].any()
    for key in ("scale", "shift"):
        np.testing.assert_allclose(grads[key], its_grads[key], rtol=1e-12)
    for key in ("mean", "variance"):  # which count by rows, of which there are four and one
        np.testing.assert_allclose(grads[key], len(x) * its_grads[key], rtol=1e-12)


def test_a_batch_of_nothing_but_padding_teaches_batch_norm_nothing() -> None:
    layer, shape = BatchNorm(), (TIME, 4)
    params = parameters(layer, shape)
    _, back = layer.forward(params, padded(shape), Context(draw=TRAINING, mask=np.zeros_like(MASK)))
    grads = {key: np.full_like(value, np.nan) for key, value in params.items()}
    assert not back(padded(shape), grads).any()
    assert not any(value.any() for value in grads.values())


def targets_of(loss: Loss, shape: Shape) -> Array:
    rng = np.random.default_rng(5)
    if isinstance(loss, SoftmaxCrossEntropy):
        return rng.integers(0, shape[-1], (len(LENGTHS), *shape[:-1]))
    return rng.integers(0, 2, (len(LENGTHS), *shape)).astype(float)


OF_SEQUENCES = [
    SoftmaxCrossEntropy(),
    SoftmaxCrossEntropy((1.0, 2.0, 0.5), 0.1),
    BinaryCrossEntropy(2.0, 0.1),
    MeanSquaredError(),
    MeanAbsoluteError(),
    Huber(0.7),
]


def test_every_loss_of_sequences_is_in_the_table() -> None:
    assert {type(loss) for loss in OF_SEQUENCES} | {Hinge} == set(LOSSES.values())


@pytest.mark.parametrize("weights", [None, np.array([1.0, 0.5, 2.0, 0.0])], ids=["alike", "weighted"])
@pytest.mark.parametrize("loss", OF_SEQUENCES, ids=repr)
def test_a_padded_batch_is_judged_as_its_rows_alone(loss: Loss, weights: Array | None) -> None:
    """Loss, weight, gradient and scores; those of R2 are of single places, and have a test of their own."""
    inner: tuple[Layer, ...] = (Conv1d(4, (2,)), GroupNorm(2), Lstm(4, return_sequences=True), Dense(3))
    network = Network(inner, (TIME, 2), padding=-9.0)
    params = network.initial(seed=0, dtype=np.float64)
    x = np.where(MASK[..., np.newaxis], padded((TIME, 2)), -9.0)
    targets = targets_of(loss, network.output_shape)
    together = gradient(network, loss, params, Batch(x, targets, weights))
    judged = evaluate(network, loss, params, Batch(x, targets, weights))
    alone, judged_alone = [], []
    for row, length in enumerate(LENGTHS):
        own = Network(inner, (int(length), 2))
        places = own.output_shape[0]
        batch = Batch(
            x[row : row + 1, :length],
            targets[row : row + 1, :places],
            None if weights is None else weights[row : row + 1],
        )
        alone.append(gradient(own, loss, params, batch))
        judged_alone.append(evaluate(own, loss, params, batch))
    np.testing.assert_allclose(together.vector, sum(each.vector for each in alone), rtol=0, atol=1e-12)
    for whole, parts in ((together.sums, [each.sums for each in alone]), (judged, judged_alone)):
        np.testing.assert_allclose(whole.loss, sum(each.loss for each in parts), rtol=1e-12)
        np.testing.assert_allclose(whole.weight, sum(each.weight for each in parts), rtol=1e-12)
        for name in whole.scores.keys() - {"r2"}:
            sums = np.zeros(len(whole.scores[name]))
            for each in parts:
                own_sums = each.scores[name]
                if isinstance(loss, BinaryCrossEntropy) and name == "f1":  # for each place its own three
                    room = np.zeros((3, len(sums) // 3))
                    room[:, : len(own_sums) // 3] = own_sums.reshape(3, -1)
                    own_sums = room.reshape(-1)
                sums += own_sums
            np.testing.assert_allclose(whole.scores[name], sums, rtol=1e-12, err_msg=name)


def test_r2_is_of_the_rows_that_have_a_place() -> None:
    """With outputs that are 1 off at every place, and targets of which all but the first vary."""
    network = Network((Dense(1),), (3, 1), padding=0.0)
    params = np.array([1.0, 0.0])
    targets = np.array([[1.0, 2.0, 5.0], [1.0, 4.0, 8.0], [1.0, 5.0, 8.0], [1.0, 7.0, 8.0]])
    x = targets + 1
    x[1:, 2] = 0  # all but one row are padded there, so that nothing varies
    x[3, 1] = 0
    loss = MeanSquaredError()
    sums = evaluate(network, loss, params, Batch(x[..., np.newaxis], targets))
    seen = np.array([2.0, 4.0, 5.0])
    expected = 1 - 3 / np.square(seen - seen.mean()).sum()
    assert values(loss.scores((3, 1)), sums.scores)["r2"] == pytest.approx(expected, rel=1e-12)


def test_an_embedding_learns_nothing_from_padding() -> None:
    layers: tuple[Layer, ...] = (Embedding(5, 3), Conv1d(2, (2,)), GlobalPool(), Dense(1))
    x = np.array([[1.0, 2.0, 3.0, 0.0, 0.0]])
    params = Network(layers, (5,)).initial(seed=0, dtype=np.float64)
    targets = np.array([[1.0]])
    together = gradient(Network(layers, (5,), 0.0), MeanSquaredError(), params, Batch(x, targets))
    alone = gradient(Network(layers, (3,)), MeanSquaredError(), params, Batch(x[:, :3], targets))
    np.testing.assert_allclose(together.vector, alone.vector, rtol=0, atol=1e-15)
    ((table,), (its_table,)) = together.tables, alone.tables
    np.testing.assert_array_equal(table.rows, its_table.rows)
    np.testing.assert_allclose(table.values, its_table.values, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    "layers",
    [(Dense(TIME),), (Flatten(), Dense(2 * TIME), Reshape((TIME, 2))), (GlobalPool(), Dense(TIME)), (Lstm(TIME),)],
    ids=repr,
)
def test_what_has_as_many_numbers_as_there_were_places_is_no_sequence(layers: tuple[Layer, ...]) -> None:
    """All of it counts, whatever of the inputs was padded."""
    shape: Shape = (TIME,) if isinstance(layers[0], Dense) else (TIME, 2)
    network = Network(layers, shape, padding=-9.0)
    x = np.full((2, *shape), -9.0)
    x[:, :2] = 1.0
    done = network.forward(network.initial(seed=0, dtype=np.float64), x)
    assert done.weights is None
