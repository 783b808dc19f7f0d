"""How layers fare: sums that are the same for any cut, and figures that are those of the outputs themselves."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.worker.test_policy import CARTPOLE, NOTHING
from tests.unit.worker.test_policy import task as policy_task
from worker import health
from worker.arrays import Array
from worker.gradient import Batch, gradient, tree_sum
from worker.health import Look
from worker.layers import Concatenate, Dense, Draw, GlobalPool, Layer, ReLU, Residual, Sigmoid, Stack, Tanh
from worker.losses import MeanSquaredError
from worker.network import Network, Traits
from worker.outlook import ALIVE, UNITS

BLOCKS: tuple[Layer, ...] = (
    Dense(6),
    Residual((Dense(6), ReLU()), (Dense(6),)),
    Concatenate((Stack((Dense(3), Tanh())), Stack((Residual((Sigmoid(),)),)))),
    ReLU(),
)
NETWORK = Network(BLOCKS, (5,))
ROWS = 40
X = np.random.default_rng(1).standard_normal((ROWS, 5)) * 3
Y = np.zeros((ROWS, 9))
PARAMS = NETWORK.initial(3, np.float64)


def looked_at(network: Network, x: Array, params: Array | None = None) -> list[health.Outputs | None]:
    look = Look(network)
    network.forward(network.initial(3, x.dtype) if params is None else params, x, observe=look)
    return health.outputs(network, look.sums)


def test_layers_in_blocks_are_looked_at_in_their_place() -> None:
    assert [outlook.leaf.name for outlook in NETWORK.outlooks.values()] == [
        "layers.0",
        "layers.1.layers.0",
        "layers.1.layers.1",
        "layers.1.projection.0",
        "layers.2.branches.0.layers.0",
        "layers.2.branches.0.layers.1",
        "layers.2.branches.1.layers.0.layers.0",
        "layers.3",
    ]
    named = {(slot.layer, slot.key) for slot in NETWORK.slots}
    parameters = [parameter for outlook in NETWORK.outlooks.values() for parameter in outlook.leaf.parameters]
    assert len(parameters) == len(named)
    assert set(parameters) == named


def test_figures_are_those_of_the_outputs() -> None:
    """Reckoned by hand: what each layer lets out, put together from the parameters themselves."""
    own = {slot.name: slot.view(PARAMS) for slot in NETWORK.slots}

    def dense(name: str, x: Array) -> Array:
        return np.asarray(x @ own[f"{name}.weight"] + own[f"{name}.bias"])

    first = dense("layers.0", X)
    inner = dense("layers.1.layers.0", first)
    rectified, projected = np.maximum(inner, 0), dense("layers.1.projection.0", first)
    between = rectified + projected
    branch = dense("layers.2.0.0", between)
    bent, squashed = np.tanh(branch), 1 / (1 + np.exp(-between))
    last = np.maximum(np.concatenate([bent, between + squashed], axis=1), 0)
    outputs = [first, inner, rectified, projected, branch, bent, squashed, last]
    for seen, y in zip(looked_at(NETWORK, X, PARAMS), outputs, strict=True):
        assert seen is not None
        assert [seen.mean, seen.deviation] == pytest.approx([y.mean(), y.std()])
    of = [seen for seen in looked_at(NETWORK, X, PARAMS) if seen is not None]
    dead = [np.mean((y <= 0).all(axis=0)) for y in (rectified, last)]
    flat = [np.mean(1 - bent**2 < 0.05), np.mean(squashed * (1 - squashed) < 0.0125)]
    assert 0 < flat[0] < 1
    assert [seen.dead_ratio for seen in of] == [None, None, dead[0], None, None, None, None, dead[1]]
    assert [seen.saturated_ratio for seen in of] == [None, None, None, None, None, *flat, None]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, ROWS), max_size=7))
def test_any_cut_sees_the_same(cuts: list[int]) -> None:
    ends = sorted({0, *cuts, ROWS})
    pieces = [slice(start, stop) for start, stop in zip([0, *ends], [*ends, ROWS], strict=True)]  # some are empty
    loss = MeanSquaredError()
    whole = gradient(NETWORK, loss, PARAMS, Batch(X, Y), look=True).sums.health
    parts = [gradient(NETWORK, loss, PARAMS, Batch(X[part], Y[part]), look=True) for part in pieces]
    summed = tree_sum(parts).sums.health
    assert whole is not None
    assert summed is not None
    np.testing.assert_allclose(summed, whole, rtol=1e-12)
    for outlook in NETWORK.outlooks.values():  # what is counted is exact
        counted = slice(outlook.start + ALIVE - 1, outlook.stop)
        assert summed[counted].tolist() == whole[counted].tolist()


def test_a_look_changes_nothing_else() -> None:
    loss, batch, draw = MeanSquaredError(), Batch(X, Y), Draw(1, 2, 0)
    without, seen = (gradient(NETWORK, loss, PARAMS, batch, draw, look=look) for look in (False, True))
    assert without.vector.tobytes() == seen.vector.tobytes()
    assert without.sums == replace(seen.sums, health=None)
    assert without.sums.health is None
    assert (without.sums + seen.sums).health is None


def test_a_unit_is_dead_if_no_row_of_any_shard_wakes_it() -> None:
    network = Network((ReLU(),), (4,))
    x = np.full((12, 4), -1.0, np.float32)
    x[7, 1] = 1e-30  # a single row wakes unit 1
    x[:, 2] = 0
    x[:, 3] = 1
    looks = [Look(network) for _ in range(4)]
    for shard, look in enumerate(looks):
        network.forward(np.empty(0, np.float32), x[shard * 3 : shard * 3 + 3], observe=look)
    (seen,) = health.outputs(network, sum((look.sums for look in looks), np.zeros(health.size(network))))
    assert seen is not None
    assert seen.dead_ratio == 0.5


def test_of_more_units_than_there_is_room_for_some_are_watched() -> None:
    wide = Network((ReLU(), ReLU(), Tanh()), (3 * UNITS,))
    x = np.full((2, 3 * UNITS), -1.0, np.float32)
    x[0, : UNITS * 3 // 2] = 1
    first, second, _ = looked_at(wide, x)
    assert health.size(wide) <= UNITS + 3 * ALIVE
    assert first is not None
    assert second == first
    assert first.dead_ratio == 0.5


def test_padded_places_are_left_out() -> None:
    network = Network((Dense(3), Sigmoid(), GlobalPool()), (6, 2), padding=0.0)
    x = np.random.default_rng(2).standard_normal((4, 6, 2)).astype(np.float32)
    x[1, 2:] = x[2, 5:] = 0
    seen = looked_at(network, x)
    own = {slot.key: slot.view(network.initial(3)) for slot in network.slots}
    y = x[np.any(x != 0, axis=2)] @ own["weight"] + own["bias"]
    assert seen[0] is not None
    assert [seen[0].mean, seen[0].deviation] == pytest.approx([y.mean(), y.std()], rel=1e-5)
    assert seen[2] is not None  # without places in time there is nothing to leave out


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_the_deviation_around_a_distant_mean(offset: float) -> None:
    network = Network((Tanh(),), (7,))
    x = (np.random.default_rng(4).standard_normal((1000, 7)) + offset).astype(np.float32)
    look = Look(network)
    look((0,), x, None)
    (seen,) = health.outputs(network, look.sums)
    assert seen is not None
    assert seen.mean == pytest.approx(x.mean(dtype=np.float64), rel=1e-12, abs=1e-12)
    assert seen.deviation == pytest.approx(x.std(dtype=np.float64), rel=1e-4)


def test_without_rows_there_are_no_figures() -> None:
    assert looked_at(NETWORK, X[:0], PARAMS) == [None] * len(NETWORK.outlooks)


def test_frozen_layers_are_looked_at_too() -> None:
    frozen = replace(NETWORK, traits=(Traits(frozen=True),) * 2 + (Traits(),) * 2)
    assert looked_at(frozen, X, PARAMS) == looked_at(NETWORK, X, PARAMS)


def test_every_step_of_every_episode_is_looked_at() -> None:
    task = policy_task(CARTPOLE)
    params = task.network.initial(1)
    total = tree_sum([task.gradient(NOTHING, params, 0, shard, look=True) for shard in range(3)])
    assert total.sums.health is not None
    units = [outlook.leaf.shape[0] for outlook in task.network.outlooks.values()]
    counts = [total.sums.health[outlook.start] for outlook in task.network.outlooks.values()]
    assert counts == [total.sums.weight * unit for unit in units]  # the weight of a policy's loss is its steps
    assert task.gradient(NOTHING, params, 0, 0).sums.health is None
