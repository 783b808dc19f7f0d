"""What a look into a job's past can find, and the words that figures are told in."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LARGEST = 1e300
"""Stands for all that is more: infinities can't be stored."""


@dataclass(frozen=True)
class Finding:
    """A trouble that shows."""

    measure: float
    """How much; the more, the worse."""
    evidence: str
    advice: str
    layer: str = ""


Findings = list[Finding] | None
"""All places in which a trouble shows; None where there is too little to tell."""


def shows(values: Sequence[float], enter: float, leave: float, *, held: bool) -> bool:
    """Whether a trouble shows in some values of which large ones are bad.

    To be found it must show in all of them. Once it is known, it stays until all are below a lower bound, so that a
    value near the bound doesn't have it come and go.
    """
    return any(value >= leave for value in values) if held else all(value >= enter for value in values)


def ratio(a: float, b: float) -> float:
    """a / b for numbers from 0 on; 1 where both are 0, and LARGEST where b alone is, or the result is beyond it."""
    if b == 0:
        return 1.0 if a == 0 else LARGEST
    return min(a / b, LARGEST)


def mean(values: Sequence[float]) -> float:
    """The mean; infinite where the sum is, while those of the standard library raise OverflowError."""
    return sum(values) / len(values)


def number(value: float) -> str:
    """Two digits that matter, as people write them: 0.05, 1.2e-6, 40,000."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if 1e-3 <= abs(value) < 1e6:
        digits = max(1 - math.floor(math.log10(abs(value))), 0)
        return f"{round(value, 1 - math.floor(math.log10(abs(value)))):,.{digits}f}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def loss(value: float) -> str:
    """A loss, in digits enough to see it change."""
    return f"{value:.4g}"


def percent(share: float) -> str:
    """A share from 0 on, in whole percent; in parts of one where it is less."""
    return f"{share:.0%}" if share >= 0.01 or share == 0 else f"{number(100 * share)}%"
