"""Worlds to act in: the simulated tasks of gymnasium that ask for one of a few actions at a time.

gymnasium is an extra, imported when it is first needed. Only its own small tasks are offered: it would import any
module that stands in front of a colon in a name.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import numpy as np

from worker.arrays import Array, Shape


@dataclass(frozen=True)
class World:
    """What is known of a task without running it."""

    observation: Shape | int
    """The shape of an observation; or, where it is one of so many states, their number."""
    actions: int
    most_steps: int
    """An episode ends after so many steps at the latest."""

    @property
    def input_shape(self) -> Shape:
        """The shape of the rows that a policy gets: observations, states as a 1 among zeros."""
        return (self.observation,) if isinstance(self.observation, int) else self.observation


WORLDS: Mapping[str, World] = MappingProxyType(
    {
        "CartPole-v1": World((4,), 2, 500),
        "Acrobot-v1": World((6,), 3, 500),
        "MountainCar-v0": World((2,), 3, 200),
        "FrozenLake-v1": World(16, 4, 100),
        "CliffWalking-v1": World(48, 4, 200),
    }
)
"""Those on offer, by gymnasium's name. A test holds them against the real ones."""


class NoEnvironments(Exception):
    """gymnasium is not installed."""


def is_installed() -> bool:
    """Whether there is gymnasium to play in."""
    return find_spec("gymnasium") is not None


def make(name: str) -> Any:
    """A fresh environment of that name. Raises NoEnvironments."""
    try:
        import gymnasium
    except ImportError as error:
        raise NoEnvironments("environments need gymnasium: pip install 'chainrule[server,rl]'") from error
    return gymnasium.make(name, max_episode_steps=WORLDS[name].most_steps, disable_env_checker=True)


def observed(world: World, observations: list[Any], dtype: np.dtype[np.floating]) -> Array:
    """Observations as rows for a network, (observations, *input_shape)."""
    if isinstance(world.observation, int):
        return np.eye(world.observation, dtype=dtype)[observations]
    return np.array(observations, dtype)
