"""Learning to act: the rule against its formula, and episodes that follow from their numbers alone."""

import pickle

import gymnasium
import numpy as np
import pytest

from tests.unit.worker.central_differences import assert_is_gradient
from worker.arrays import Array
from worker.environments import WORLDS, observed
from worker.errors import InvalidValue
from worker.gradient import tree_sum
from worker.layers import Dense, Tanh
from worker.network import Network
from worker.policy import SIDE_BY_SIDE, Environment, Episode, PolicyTask, discounted, policy_loss
from worker.shards import Shards
from worker.task import Data

NOTHING = Data(np.empty(0), np.empty(0))


def task(environment: Environment, batch_size: int = 6, shards: int = 3, seed: int = 4) -> PolicyTask:
    world = environment.world
    network = Network((Dense(8), Tanh(), Dense(world.actions + 1)), world.input_shape)
    return PolicyTask(
        network,
        environment,
        Shards(environment.rows, environment.validation_fraction, batch_size, shards, seed),
    )


CARTPOLE = Environment("CartPole-v1", episodes=12, validation_episodes=6, entropy_weight=0.1)


@pytest.mark.parametrize("name", WORLDS)
def test_worlds_are_what_they_are_said_to_be(name: str) -> None:
    real, world = gymnasium.make(name), WORLDS[name]
    assert isinstance(real.action_space, gymnasium.spaces.Discrete)
    assert real.action_space.n == world.actions
    if isinstance(world.observation, int):
        assert isinstance(real.observation_space, gymnasium.spaces.Discrete)
        assert real.observation_space.n == world.observation
        assert observed(world, [2], np.dtype(np.float32)).tolist() == [[0, 0, 1] + [0] * (world.observation - 3)]
    else:
        assert real.observation_space.shape == world.observation


def test_returns_by_hand() -> None:
    assert discounted([1.0, 0.0, 2.0], 0.5) == [0.5 * (1 + 0.25 * 2), 0.5 * (0.5 * 2), 0.5 * 2]
    assert discounted([], 0.9) == []


def test_the_gradient_is_that_of_the_formula() -> None:
    """With the advantage held fast, as the rule has it."""
    rng = np.random.default_rng(1)
    environment = Environment("CartPole-v1", discount=0.9, entropy_weight=0.3, value_weight=0.7)
    episodes = [
        Episode(list(range(n)), rng.integers(0, 2, n).tolist(), rng.standard_normal(n).tolist()) for n in (3, 4)
    ]
    outputs = rng.standard_normal((7, 3))
    returns = np.array([g for e in episodes for g in discounted(e.rewards, 0.9)])
    actions = [action for e in episodes for action in e.actions]
    advantage = returns - outputs[:, 2]

    def loss(outputs: Array) -> float:
        p = np.exp(outputs[:, :2]) / np.exp(outputs[:, :2]).sum(axis=1, keepdims=True)
        entropy = -np.sum(p * np.log(p), axis=1)
        chosen = -np.log(p[np.arange(7), actions]) * advantage
        return float(np.sum(chosen + 0.7 * (outputs[:, 2] - returns) ** 2 - 0.3 * entropy))

    judged = policy_loss(environment, outputs, episodes)
    assert judged.loss == pytest.approx(loss(outputs), rel=1e-12)
    assert judged.weight == 7
    assert_is_gradient(judged.gradient, loss, outputs)


@pytest.mark.parametrize("name", ["CartPole-v1", "FrozenLake-v1"])
def test_whoever_plays_it_sees_the_same(name: str) -> None:
    """In another process, in another order, again."""
    one = task(Environment(name, episodes=12, validation_episodes=6))
    other: PolicyTask = pickle.loads(pickle.dumps(one))  # noqa: S301 - our own
    params = one.network.initial(seed=4)
    for shard in (2, 0, 1):
        other.evaluate(NOTHING, params, shard)
        other.gradient(NOTHING, params, 1, shard)
    for shard in range(3):
        a, b = (each.gradient(NOTHING, params, 1, shard) for each in (one, other))
        assert a.vector.tobytes() == b.vector.tobytes()
        assert a.sums == b.sums
        assert one.evaluate(NOTHING, params, shard) == other.evaluate(NOTHING, params, shard)


def test_steps_and_seeds_play_different_episodes() -> None:
    params = task(CARTPOLE).network.initial(seed=4)
    seen = [task(CARTPOLE, seed=s).gradient(NOTHING, params, step, 0).vector for s, step in ((4, 0), (4, 2), (5, 0))]
    assert len({vector.tobytes() for vector in seen}) == 3


def test_every_episode_counts_once() -> None:
    few = task(CARTPOLE, batch_size=5)
    params = few.network.initial(seed=4)
    counts = [sum(few.gradient(NOTHING, params, step, shard).sums.count for shard in range(3)) for step in range(3)]
    assert counts == [5, 5, 2]
    held_out = tree_sum([few.evaluate(NOTHING, params, shard) for shard in range(3)])
    assert held_out.count == 6
    assert held_out.loss == -held_out.scores["return"][0]


def test_more_episodes_than_are_played_side_by_side() -> None:
    many = task(Environment("FrozenLake-v1", episodes=1, validation_episodes=SIDE_BY_SIDE + 44), shards=1)
    held_out = many.evaluate(NOTHING, many.network.initial(seed=4), 0)
    assert held_out.count == SIDE_BY_SIDE + 44


def test_a_shard_without_episodes_is_nothing() -> None:
    few = task(CARTPOLE, batch_size=2)
    nothing = few.gradient(NOTHING, few.network.initial(seed=4), 0, 0)
    assert nothing.sums.count == 0
    assert not nothing.vector.any()


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": "os:system"}, "name"),
        ({"episodes": 0}, "episodes"),
        ({"validation_episodes": -1}, "validation_episodes"),
        ({"discount": 1.0}, "discount"),
        ({"entropy_weight": -0.1}, "entropy_weight"),
        ({"value_weight": float("nan")}, "value_weight"),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_named(values: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidValue) as refused:
        Environment(**{"name": "CartPole-v1", **values})  # type: ignore[arg-type]
    assert refused.value.field == field
