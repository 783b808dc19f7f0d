"""Is this the gradient of that function? Asked of numbers, not of algebra.

(f(x + h d) - f(x - h d)) / 2h is the slope of f along d with an error of h^2. One random direction meets every
element of the gradient at once, so a few of them are as good as a difference for each.
"""

from collections.abc import Callable

import numpy as np

from worker.arrays import Array

STEP = 1e-5
TOLERANCE = 1e-6
DIRECTIONS = 4


def assert_is_gradient(gradient: Array, function: Callable[[Array], float], at: Array) -> None:
    """Holds `gradient` against the differences of `function` around `at`, in float64."""
    assert at.dtype == gradient.dtype == np.float64
    assert gradient.shape == at.shape
    rng = np.random.default_rng(0)
    for _ in range(DIRECTIONS):
        direction = rng.standard_normal(at.shape)
        direction /= np.linalg.norm(direction)
        numeric = (function(at + STEP * direction) - function(at - STEP * direction)) / (2 * STEP)
        analytic = float(np.sum(gradient * direction))
        error = abs(numeric - analytic) / max(abs(numeric), abs(analytic))
        assert error <= TOLERANCE, f"along {direction}: {numeric} by differences, {analytic} by the gradient"
