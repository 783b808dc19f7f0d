"""Many calls to one method, by hypothesis, which finds the smallest that goes wrong."""

import random
from collections import Counter

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.calling import METHODS, call, problem, tidy
from tests.fuzz.mutations import mutated
from tests.fuzz.world import World


def attack(world: World, path: str, calls: int, seed: int) -> Counter[str]:
    """Makes calls to a method; gives how many came back with which code.

    Raises AssertionError with the messages of one that went wrong.
    """
    codes: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @settings(
        max_examples=calls,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(st.randoms(use_true_random=False))
    def one(choice: random.Random) -> None:
        messages = mutated(choice, world.seeds(METHODS[path]))
        outcome = call(world, path, messages)
        tidy(world, path, outcome)
        codes[outcome.code.name] += 1
        wrong = problem(path, messages, outcome, known=str(world.imports))  # from where they may import
        assert not wrong, f"{path}: {wrong}\nThe messages: {messages!r}"

    one()
    return codes
