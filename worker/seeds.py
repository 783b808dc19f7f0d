"""Random generators as pure functions of the job's seed and of what they are for.

A generator that is kept and advanced gives numbers that depend on who drew before. Here every use has a stream of its
own, made when it is needed and thrown away after, so that a restart or another worker draws the same.
"""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of every result: add, never renumber."""

    PARAMETERS = 0
    SPLIT = 1
    ORDER = 2
    LAYER = 3
    FEEDBACK = 4
    EPISODE = 5
    EPISODE_START = 6


def generator(seed: int, purpose: Purpose, *key: int) -> np.random.Generator:
    """The stream for one use: the same arguments give the same numbers, others give independent ones.

    `key` tells apart the uses of one purpose (an epoch, a layer). Streams are independent by NumPy's SeedSequence
    (O'Neill 2015, "Developing a seed_seq alternative").
    """
    # As a spawn key, not as more entropy: there trailing zeros are lost, and a seed past 32 bits runs into the purpose.
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose, *key)))
