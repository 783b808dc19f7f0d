"""Learning to act: episodes instead of rows, and the gradient of the expected return.

A row of the job is an episode. Workers play those of their shard with the parameters of the step, and what follows from
an episode's number is all that is random in it, so that whoever plays it sees the same. The rule is REINFORCE with a
baseline (Williams 1992; Sutton and Barto 2018, section 13.4): what led to more than was expected becomes more likely.
"""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from worker.arrays import Array, Rows
from worker.environments import WORLDS, World, make, observed
from worker.errors import InvalidValue
from worker.gradient import Gradient, Sums
from worker.health import Look
from worker.layers import Draw
from worker.losses import Judged
from worker.network import Network
from worker.scores import Scores, counted, ratio
from worker.seeds import Purpose, generator
from worker.shards import Shards
from worker.tables import TableRoom
from worker.task import Data


@dataclass(frozen=True)
class Environment:
    """A task to act in, and how what it pays is weighed."""

    name: str
    episodes: int = 160
    """How many an epoch has."""
    validation_episodes: int = 20
    """How many are played after an epoch, always the same ones, each time with the action that seems best."""
    discount: float = 0.99
    """How much a reward counts that comes one step later."""
    entropy_weight: float = 0.0
    """How much it is worth to stay undecided, which keeps a policy from settling too early."""
    value_weight: float = 0.5
    """How much the error of the expected return counts."""

    def __post_init__(self) -> None:
        if self.name not in WORLDS:
            raise InvalidValue("name", f"is {self.name[:100]!r}; there are {', '.join(WORLDS)}")
        for name, least in (("episodes", 1), ("validation_episodes", 0)):
            if not least <= getattr(self, name) <= 100_000:
                raise InvalidValue(name, f"is {getattr(self, name)}; must be {least} to 100,000")
        if not 0 <= self.discount < 1:
            raise InvalidValue("discount", f"is {self.discount:g}; must be 0 up to, but not including, 1")
        for name in ("entropy_weight", "value_weight"):
            if not 0 <= getattr(self, name) <= 100:
                raise InvalidValue(name, f"is {getattr(self, name):g}; must be 0 to 100")

    @property
    def world(self) -> World:
        """What is known of the task."""
        return WORLDS[self.name]

    @property
    def rows(self) -> int:
        """How many episodes there are in all."""
        return self.episodes + self.validation_episodes

    @property
    def validation_fraction(self) -> float:
        """Which share of them is held out."""
        return self.validation_episodes / self.rows


SIDE_BY_SIDE = 256
"""How many episodes a worker plays at the same time, each in a simulation of its own."""


@dataclass
class Episode:
    """What happened in an episode, step by step."""

    observations: list[Any] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class MeanReturn:
    """The mean over episodes of the sum of an episode's rewards. Sums: of the returns, and of the episodes."""

    size = 2

    def sums(self, outputs: Array, targets: Array, weights: Array | None) -> Array:  # noqa: ARG002
        """Of the returns of some episodes, (episodes,): there is nothing to hold them against."""
        return np.array([outputs.sum(), len(outputs)], np.float64)

    def value(self, total: Array) -> float | None:
        """The mean return."""
        return ratio(total[0], total[1])


RETURN: Scores = MappingProxyType({"return": MeanReturn()})


@dataclass(frozen=True)
class PolicyTask:
    """What workers compute when a job learns to act.

    The network ends in one logit an action, and one number more: the return that it expects from here on.
    """

    network: Network
    environment: Environment
    shards: Shards

    @property
    def training_scores(self) -> Scores:
        """The scores that a gradient comes with."""
        return RETURN

    @property
    def scores(self) -> Scores:
        """The scores of the held-out episodes."""
        return RETURN

    def gradient(
        self,
        data: Data,  # noqa: ARG002 - there are no rows
        params: Array,
        step: int,
        shard: int,
        out: Array | None = None,
        *,
        look: bool = False,
    ) -> Gradient:
        """The gradient of one shard's episodes of one step, its vector written into `out` if that is given."""
        seed = self.shards.seed
        rows = self.shards.training(step, shard)
        episodes = self._played(params, rows, step, generator(seed, Purpose.EPISODE, step, shard))
        vector = np.empty(self.network.dense, params.dtype) if out is None else out
        observations = observed(self.environment.world, [o for e in episodes for o in e.observations], params.dtype)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            observations = observations.reshape(-1, *self.network.input_shape)
            seen = Look(self.network) if look else None
            draw = Draw(seed, step, shard)
            outputs, penalty, backward, _ = self.network.forward(params, observations, draw, observe=seen)
            judged = policy_loss(self.environment, outputs, episodes)
            turned = time.perf_counter()
            tables = backward(judged.gradient, vector)
        health = seen.sums if seen else None
        sums = Sums(judged.loss + penalty, _scores(episodes), len(episodes), judged.weight, health)
        return Gradient(vector, sums, tables, turned)

    def foresee(self, data: Data, dtype: np.dtype[np.floating], step: int, shards: Iterable[int]) -> None:
        """Nothing: episodes follow from the parameters."""

    def evaluate(self, data: Data, params: Array, shard: int) -> Sums:  # noqa: ARG002 - there are no rows
        """How one shard's held-out episodes go, each time with the action that seems best."""
        episodes = self._played(params, self.shards.validation(shard), None, None)
        # A policy is to be paid: less is better of the return's opposite, as of any loss.
        loss = -sum(sum(episode.rewards) for episode in episodes)
        return Sums(float(loss), _scores(episodes), len(episodes), len(episodes))

    @property
    def rooms(self) -> tuple[TableRoom, ...]:
        """How large the network's tables are, and what a shard's gradient can have of them."""
        return self.network.rooms(self.shards.most_rows * self.environment.world.most_steps)

    def __reduce__(self) -> tuple[type["PolicyTask"], tuple[Network, Environment, Shards]]:
        return PolicyTask, (self.network, self.environment, self.shards)  # without the environments that are at hand

    @cached_property
    def _worlds(self) -> list[Any]:
        return []

    def _played(self, params: Array, rows: Rows, step: int | None, rng: np.random.Generator | None) -> list[Episode]:
        """Plays episodes, some side by side and then the next; without `rng`, greedily."""
        parts = [rows[start : start + SIDE_BY_SIDE] for start in range(0, len(rows), SIDE_BY_SIDE)]
        return [episode for part in parts for episode in self._side_by_side(params, part, step, rng)]

    def _side_by_side(
        self, params: Array, rows: Rows, step: int | None, rng: np.random.Generator | None
    ) -> list[Episode]:
        """One forward pass for all that are under way."""
        world = self.environment.world
        while len(self._worlds) < len(rows):
            self._worlds.append(make(self.environment.name))
        episodes = [Episode() for _ in rows]
        at = []
        for each, row in zip(self._worlds, rows.tolist(), strict=False):
            key = (row,) if step is None else (row, step)
            start = int(generator(self.shards.seed, Purpose.EPISODE_START, *key).integers(2**31))
            at.append(each.reset(seed=start)[0])
        under_way = list(range(len(rows)))
        for _ in range(world.most_steps):
            if not under_way:
                break
            x = observed(world, [at[number] for number in under_way], params.dtype)
            outputs, *_ = self.network.forward(params, x)
            actions = _chosen(outputs[:, :-1], rng)
            still = []
            for number, action in zip(under_way, actions.tolist(), strict=True):
                episode = episodes[number]
                episode.observations.append(at[number])
                episode.actions.append(action)
                at[number], reward, ended, cut, _ = self._worlds[number].step(action)
                episode.rewards.append(float(reward))
                if not (ended or cut):
                    still.append(number)
            under_way = still
        return episodes


def policy_loss(environment: Environment, outputs: Array, episodes: list[Episode]) -> Judged:
    """-log p(action) A + w (v - G)^2 - h H(p), summed over the steps of all episodes; the mean is over steps.

    G is the discounted return from a step on, times 1 - discount so that rewards of about 1 give returns of about 1;
    v what the network expects; A = G - v taken as a constant; H the entropy of the policy.
    """
    actions = np.array([action for episode in episodes for action in episode.actions], np.intp)
    returns = np.array([g for e in episodes for g in discounted(e.rewards, environment.discount)], outputs.dtype)
    if not len(actions):
        return Judged(0.0, np.zeros_like(outputs), 0.0)
    logits, value = outputs[:, :-1], outputs[:, -1]
    logits = logits - logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    p = np.exp(log_p)
    every = np.arange(len(actions))
    advantage = returns - value
    entropy = -(p * log_p).sum(axis=1)
    error = value - returns
    loss = (
        -np.dot(log_p[every, actions], advantage)
        + environment.value_weight * np.dot(error, error)
        - environment.entropy_weight * entropy.sum()
    )
    gradient = np.empty_like(outputs)
    of_logits = gradient[:, :-1]
    np.multiply(p, advantage[:, np.newaxis], out=of_logits)
    of_logits[every, actions] -= advantage
    of_logits += environment.entropy_weight * p * (log_p + entropy[:, np.newaxis])
    np.multiply(error, 2 * environment.value_weight, out=gradient[:, -1])
    return Judged(float(loss), gradient, len(actions))


def discounted(rewards: list[float], discount: float) -> list[float]:
    """(1 - discount) times the sum of discount^k reward_(t + k), for every step t."""
    total = 0.0
    returns = []
    for reward in reversed(rewards):
        total = reward + discount * total
        returns.append((1 - discount) * total)
    return returns[::-1]


def _chosen(logits: Array, rng: np.random.Generator | None) -> Array:
    """An action for every row: drawn from softmax(logits), or the likeliest if there is nothing to draw with."""
    # The largest of logits with Gumbel noise is a draw from their softmax (Gumbel 1954).
    noise = 0 if rng is None else rng.gumbel(size=logits.shape)
    actions: Array = np.argmax(logits + noise, axis=1)
    return actions


def _scores(episodes: list[Episode]) -> Mapping[str, Array]:
    returns = np.array([sum(episode.rewards) for episode in episodes], np.float64)
    return counted(RETURN, returns, returns, None)
