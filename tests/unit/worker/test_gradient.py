"""Sums over rows: the law that makes any split of a batch exact."""

from dataclasses import dataclass, replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.arrays import Array
from worker.gradient import Batch, Gradient, Sums, evaluate, gradient, tree_sum
from worker.initializers import Initializer
from worker.layers import Dense, ReLU, Tanh
from worker.losses import Loss, MeanSquaredError, SoftmaxCrossEntropy
from worker.network import Network
from worker.scores import nothing

RNG = np.random.default_rng(8)
ROWS = 61
X = RNG.standard_normal((ROWS, 4))
CASES: list[tuple[Network, Loss, Array]] = [
    (Network((Dense(6), Tanh(), Dense(3)), (4,)), SoftmaxCrossEntropy(), RNG.integers(3, size=ROWS)),
    (Network((Dense(6), ReLU(), Dense(2)), (4,)), MeanSquaredError(), RNG.standard_normal((ROWS, 2))),
]

every_case = pytest.mark.parametrize(("network", "loss", "y"), CASES, ids=["classifier", "regression"])


@every_case
@settings(deadline=None, max_examples=50)
@given(cuts=st.lists(st.integers(0, ROWS), max_size=9).map(sorted))
def test_any_split_sums_to_the_whole(network: Network, loss: Loss, y: Array, cuts: list[int]) -> None:
    """Uneven shards and empty ones (a cut made twice, or at an end) too."""
    params = network.initial(seed=9, dtype=np.float64)
    whole = gradient(network, loss, params, Batch(X, y))
    shards = tree_sum(
        [
            gradient(network, loss, params, Batch(x_part, y_part))
            for x_part, y_part in zip(np.split(X, cuts), np.split(y, cuts), strict=True)
        ]
    )
    np.testing.assert_allclose(shards.vector, whole.vector, rtol=0, atol=1e-13 * np.abs(whole.vector).max())
    assert shards.sums.loss == pytest.approx(whole.sums.loss, rel=1e-13)
    assert shards.sums == replace(whole.sums, loss=shards.sums.loss)
    assert shards.sums.count == whole.sums.count == ROWS


def test_averaging_the_shards_means_would_be_wrong() -> None:
    """Why everything is a sum. The output starts at 0, so the gradient of the mean is -2 x the mean target:
    (23 x 10 - 38 x 6) / 61 = 2/61. The mean of the four shards' means is (10 + 10 + 10 - 6) / 4 = 6.
    """
    network = Network((Dense(1, Initializer.ZEROS),), (1,))
    params = network.initial(seed=0, dtype=np.float64)
    shards = [
        gradient(network, MeanSquaredError(), params, Batch(np.ones((rows, 1)), np.full(rows, target)))
        for rows, target in ((5, 10.0), (7, 10.0), (11, 10.0), (38, -6.0))
    ]
    total = tree_sum(shards)
    mean_of_means = np.mean([shard.vector / shard.sums.count for shard in shards], axis=0)
    np.testing.assert_allclose(total.vector / total.sums.count, [-4 / 61, -4 / 61], rtol=1e-13)
    np.testing.assert_allclose(mean_of_means, [-12, -12], rtol=1e-13)


@every_case
def test_no_rows_are_zeros(network: Network, loss: Loss, y: Array) -> None:
    empty = gradient(network, loss, network.initial(seed=9), Batch(X[:0], y[:0]))
    assert empty.vector.shape == (network.size,)
    assert not empty.vector.any()
    assert empty.sums == Sums(0.0, nothing(loss.training_scores(network.output_shape)), 0, 0)


@every_case
def test_a_weight_of_two_is_the_row_twice(network: Network, loss: Loss, y: Array) -> None:
    params = network.initial(seed=9, dtype=np.float64)
    weights = RNG.integers(0, 4, ROWS)
    repeated = gradient(network, loss, params, Batch(np.repeat(X, weights, axis=0), np.repeat(y, weights, axis=0)))
    weighted = gradient(network, loss, params, Batch(X, y, weights.astype(np.float64)))
    np.testing.assert_allclose(weighted.vector, repeated.vector, rtol=1e-11, atol=1e-13)
    assert weighted.sums.loss == pytest.approx(repeated.sums.loss, rel=1e-12)
    assert weighted.sums.weight == repeated.sums.weight == weights.sum()
    assert (weighted.sums.count, repeated.sums.count) == (ROWS, weights.sum())


@every_case
def test_weights_of_one_change_nothing(network: Network, loss: Loss, y: Array) -> None:
    params = network.initial(seed=9)
    weighted, plain = (
        gradient(network, loss, params, Batch(X.astype(np.float32), y, weights))
        for weights in (np.ones(ROWS, np.float32), None)
    )
    np.testing.assert_allclose(weighted.vector, plain.vector, rtol=1e-5, atol=1e-6)
    assert weighted.sums.weight == plain.sums.weight == ROWS


def test_the_mean_loss_of_nothing_is_zero() -> None:
    assert Sums(0.0, {}, 3, 0.0).mean_loss == 0.0
    assert Sums(3.0, {}, 5, 2.0).mean_loss == 1.5


@every_case
def test_evaluating_is_the_gradients_sums(network: Network, loss: Loss, y: Array) -> None:
    params = network.initial(seed=9)
    x = X.astype(np.float32)
    evaluated, sums = evaluate(network, loss, params, Batch(x, y)), gradient(network, loss, params, Batch(x, y)).sums
    assert replace(evaluated, scores={name: evaluated.scores[name] for name in sums.scores}) == sums


@every_case
def test_asking_twice_gives_the_same_bits(network: Network, loss: Loss, y: Array) -> None:
    params = network.initial(seed=9)
    once, twice = (gradient(network, loss, params, Batch(X.astype(np.float32), y)) for _ in range(2))
    assert once.vector.tobytes() == twice.vector.tobytes()
    assert once.sums == twice.sums


@dataclass(frozen=True)
class Written(Sums):
    """Sums that write down how they were added."""

    text: str = ""

    def __add__(self, other: Sums) -> "Written":
        assert isinstance(other, Written)
        return Written(0.0, {}, 0, 0, text=f"({self.text}+{other.text})")


@pytest.mark.parametrize(
    "tree",
    [
        "0",
        "(0+1)",
        "((0+1)+2)",
        "((0+1)+(2+3))",
        "(((0+1)+(2+3))+4)",
        "(((0+1)+(2+3))+(4+5))",
        "(((0+1)+(2+3))+((4+5)+6))",
        "(((0+1)+(2+3))+((4+5)+(6+7)))",
        "((((0+1)+(2+3))+((4+5)+(6+7)))+8)",
    ],
)
def test_the_tree_is_fixed(tree: str) -> None:
    terms = [Written(0.0, {}, 0, 0, text=digit) for digit in tree if digit.isdigit()]
    total = tree_sum(terms)
    assert isinstance(total, Written)
    assert total.text == tree


FLOATS = st.floats(-1e30, 1e30)


@settings(deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=40), st.sampled_from([1, 2, 4, 8]))
def test_aligned_blocks_may_be_added_first(losses: list[float], block: int) -> None:
    """What lets one node send one sum for 1, 2, 4, 8 ... neighbouring shards, with the same bits as a result."""
    terms = [Sums(loss, {}, 1, 1) for loss in losses]
    blocks = [tree_sum(terms[start : start + block]) for start in range(0, len(terms), block)]
    assert tree_sum(blocks) == tree_sum(terms)


@settings(deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(losses: list[float], random: Random) -> None:
    arrivals = list(enumerate(losses))
    random.shuffle(arrivals)
    arrived = {shard: Sums(loss, {}, 1, 1) for shard, loss in arrivals}
    in_order = tree_sum([Sums(loss, {}, 1, 1) for loss in losses])
    assert tree_sum([arrived[shard] for shard in range(len(losses))]) == in_order


def test_no_terms_have_no_sum() -> None:
    with pytest.raises(IndexError):
        tree_sum(list[Sums]())


@pytest.mark.parametrize("x", [1e30, np.inf, np.nan], ids=str)
@pytest.mark.parametrize(
    ("loss", "y"),
    [(SoftmaxCrossEntropy(), np.zeros(4, int)), (MeanSquaredError(), np.zeros((4, 2)))],
    ids=["softmax", "squared"],
)
def test_what_overflows_is_not_finite_and_makes_no_warning(loss: Loss, y: Array, x: float) -> None:
    network = Network((Dense(6), ReLU(), Dense(2)), (3,))
    params = np.full(network.size, 1e30, np.float32)
    inputs = np.full((4, 3), x, np.float32)
    at = gradient(network, loss, params, Batch(inputs, y))
    assert not np.isfinite(at.sums.loss)
    assert not np.isfinite(at.vector).all()
    assert not np.isfinite(evaluate(network, loss, params, Batch(inputs, y)).loss)


@pytest.mark.parametrize(("one", "other"), [(3e38, 3e38), (np.inf, -np.inf), (np.nan, 1.0)])
def test_a_sum_that_overflows_makes_no_warning(one: float, other: float) -> None:
    terms = [Gradient(np.array([value], np.float32), Sums(value, {}, 1, 1)) for value in (one, other)]
    assert not np.isfinite(tree_sum(terms).vector).any()
