"""Feedback alignment, direct and not: what comes back instead of the gradient, and that it teaches all the same."""

import pickle

import numpy as np
import pytest
from sklearn.datasets import load_digits

from worker.arrays import Array
from worker.blocks import Block, merge
from worker.errors import ShapeMismatch
from worker.feedback import CreditAssignment
from worker.gradient import Batch, gradient, tree_sum
from worker.initializers import Initializer
from worker.layers import (
    BatchNorm,
    Concatenate,
    Dense,
    Draw,
    Dropout,
    GaussianNoise,
    GroupNorm,
    Layer,
    LayerNorm,
    Quantum,
    ReLU,
    Residual,
    Softmax,
    Stack,
    Tanh,
)
from worker.losses import MeanSquaredError, SoftmaxCrossEntropy
from worker.network import Network
from worker.scores import values
from worker.shards import Shards
from worker.task import Data, Task

ALTERNATIVES = [CreditAssignment.FEEDBACK_ALIGNMENT, CreditAssignment.DIRECT_FEEDBACK_ALIGNMENT]
DRAW = Draw(seed=3, step=1, shard=0)
RNG = np.random.default_rng(4)
X, Y = RNG.standard_normal((6, 4)), RNG.standard_normal((6, 3))

alternatives = pytest.mark.parametrize("credit", ALTERNATIVES, ids=lambda credit: credit.value)


def network(credit: CreditAssignment) -> Network:
    return Network((Dense(7), Tanh(), Dense(5), Tanh(), Dense(3)), (4,), credit_assignment=credit)


def update(of: Network, params: Array, draw: Draw | None = DRAW) -> Array:
    return gradient(of, MeanSquaredError(), params, Batch(X, Y), draw).vector


@alternatives
def test_the_formulas(credit: CreditAssignment) -> None:
    """Of three dense layers, each dx replaced by what the paper says."""
    of = network(credit)
    params = RNG.standard_normal(of.size)
    w = [views["weight"] for views in of.views(params)[::2]]
    b = [views["bias"] for views in of.views(params)[::2]]
    h1 = np.tanh(X @ w[0] + b[0])
    h2 = np.tanh(h1 @ w[1] + b[1])
    e = 2 / 3 * (h2 @ w[2] + b[2] - Y)
    found = of.views(update(of, params))
    np.testing.assert_allclose(found[4]["weight"], h2.T @ e)
    matrices = of._feedback(DRAW.seed, params.dtype)
    shapes = {2: (5, 7), 4: (3, 5)} if credit is CreditAssignment.FEEDBACK_ALIGNMENT else {2: (3, 7), 4: (3, 5)}
    assert {index: matrix.shape for index, matrix in matrices.items()} == shapes
    d2 = e @ matrices[4] * (1 - h2**2)
    np.testing.assert_allclose(found[2]["weight"], h1.T @ d2)
    d1 = (d2 if credit is CreditAssignment.FEEDBACK_ALIGNMENT else e) @ matrices[2] * (1 - h1**2)
    np.testing.assert_allclose(found[0]["weight"], X.T @ d1)
    np.testing.assert_allclose(found[0]["bias"], d1.sum(axis=0))


@alternatives
def test_only_the_last_layer_learns_as_by_backpropagation(credit: CreditAssignment) -> None:
    of, usual = network(credit), network(CreditAssignment.BACKPROPAGATION)
    params = RNG.standard_normal(of.size)
    for index, (found, expected) in enumerate(
        zip(of.views(update(of, params)), usual.views(update(usual, params)), strict=True)
    ):
        for key in found:
            assert (found[key] == expected[key]).all() == (index == 4)


@alternatives
def test_matrices_follow_from_the_seed_alone(credit: CreditAssignment) -> None:
    """So that every worker has the same, at every step; another job has others."""
    of = network(credit)
    params = RNG.standard_normal(of.size)
    elsewhere: Network = pickle.loads(pickle.dumps(of))  # noqa: S301
    np.testing.assert_array_equal(update(of, params), update(elsewhere, params))
    np.testing.assert_array_equal(update(of, params, Draw(3, 8, 5)), update(of, params))
    assert (update(of, params, Draw(4, 1, 0)) != update(of, params)).any()


@alternatives
def test_a_sent_network_takes_no_matrices_along(credit: CreditAssignment) -> None:
    of = Network((Dense(500), Dense(500)), (4,), credit_assignment=credit)
    gradient(of, MeanSquaredError(), of.initial(0), Batch(X, np.zeros((6, 500))), DRAW)
    assert len(pickle.dumps(of)) < 2_000


@alternatives
def test_shards_add_up_to_the_whole(credit: CreditAssignment) -> None:
    of = network(credit)
    params = RNG.standard_normal(of.size)
    parts = [Batch(X[part], Y[part]) for part in (slice(0, 1), slice(1, 1), slice(1, 6))]
    total = tree_sum([gradient(of, MeanSquaredError(), params, part, DRAW) for part in parts])
    np.testing.assert_allclose(total.vector, update(of, params), rtol=1e-12, atol=1e-14)


@alternatives
@pytest.mark.parametrize(
    "between",
    [(), (ReLU(),), (BatchNorm(), Tanh(), Dropout()), (LayerNorm(),), (GroupNorm(5),), (GaussianNoise(), Softmax())],
    ids=str,
)
def test_what_may_stand_between(credit: CreditAssignment, between: tuple[Layer, ...]) -> None:
    of = Network((*between, Dense(5), *between, Dense(3)), (5,), credit_assignment=credit)
    x = RNG.standard_normal((6, 5))
    at = gradient(of, MeanSquaredError(), of.initial(1, np.float64), Batch(x, Y), DRAW)
    assert np.isfinite(at.vector).all()


@alternatives
@pytest.mark.parametrize(
    "refused",
    [Residual((Dense(5),)), Concatenate((Stack((Dense(3),)), Stack())), Quantum(5)],
    ids=["residual", "concatenate", "quantum"],
)
def test_where_it_makes_no_sense_it_is_refused(credit: CreditAssignment, refused: Layer) -> None:
    of = Network((Dense(5), Tanh(), refused, Dense(3)), (4,), credit_assignment=credit)
    with pytest.raises(ShapeMismatch, match=rf"layers\[2\]: can't be trained by {credit.value}") as told:
        _ = of.feedback_shapes
    assert told.value.path == (("layers", 2),)


@alternatives
def test_digits_are_learned_with_the_same_bits_by_any_number_of_workers(credit: CreditAssignment) -> None:
    images, classes = load_digits(return_X_y=True)
    data = Data((images / 16).astype(np.float32), classes)
    layers = (Dense(64, Initializer.HE_UNIFORM), Tanh(), Dense(32), Tanh(), Dense(10))
    shards = Shards(len(images), 0.2, batch_size=64, shards=3, seed=13)

    def trained(owners: list[int], epochs: int) -> tuple[Array, float]:
        """Each worker has a task of its own, as sent, and adds up what it can of its shards."""
        task = Task(Network(layers, (64,), credit_assignment=credit), SoftmaxCrossEntropy(), shards)
        workers: list[Task] = [pickle.loads(pickle.dumps(task)) for _ in set(owners)]  # noqa: S301
        params = task.network.initial(seed=13)
        for step in range(epochs * shards.steps_per_epoch):
            blocks: list[Block] = []
            for number, worker in enumerate(workers):
                own = [shard for shard, owner in enumerate(owners) if owner == number]
                blocks += merge([Block(s, 1, worker.gradient(data, params, step, s)) for s in own], 3)
            (whole,) = merge(blocks, 3)
            params -= np.float32(0.2) / whole.total.sums.count * whole.total.vector
        held_out = tree_sum([task.evaluate(data, params, shard) for shard in range(3)])
        return params, values(task.scores, held_out.scores)["accuracy"]

    _, accuracy = trained([0, 0, 0], epochs=6)
    assert accuracy > 0.9
    one, two, three = (trained(owners, epochs=1)[0] for owners in ([0, 0, 0], [0, 1, 0], [2, 0, 1]))
    assert one.tobytes() == two.tobytes() == three.tobytes()
