"""Contenders take turns, and their rates are held against each other turn by turn."""

from collections.abc import Mapping
from statistics import median

from benchmarks.contenders import Contender


class Comparison:
    """Samples a second of every contender in every round."""

    def __init__(self, contenders: Mapping[str, Contender], seconds: float, rounds: int) -> None:
        """Has them train: the first, the second, ..., the first again. What else runs meets all of them alike."""
        self.rates: dict[str, list[float]] = {name: [] for name in contenders}
        for contender in contenders.values():
            contender.rate(min(1.0, seconds))  # caches, clocks and pages are warm for all
        for _ in range(rounds):
            for name, contender in contenders.items():
                self.rates[name].append(contender.rate(seconds))

    def rate(self, name: str) -> float:
        """The median of a contender's rates."""
        return median(self.rates[name])

    def ratio(self, ours: str, other: str) -> float:
        """The median over rounds of one rate over the other in the same round."""
        return median(a / b for a, b in zip(self.rates[ours], self.rates[other], strict=True))
