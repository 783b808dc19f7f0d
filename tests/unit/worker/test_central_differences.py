"""The check itself: it accepts a gradient and finds a slightly wrong one."""

import numpy as np
import pytest

from tests.unit.worker.central_differences import assert_is_gradient

AT = np.array([[0.3, -1.2], [2.0, 0.7]])


def test_accepts_the_gradient() -> None:
    assert_is_gradient(np.cos(AT), lambda x: float(np.sin(x).sum()), AT)


def test_finds_a_gradient_that_is_off_by_a_hundred_thousandth() -> None:
    with pytest.raises(AssertionError, match="by differences"):
        assert_is_gradient(np.cos(AT) * 1.00001, lambda x: float(np.sin(x).sum()), AT)


def test_finds_one_wrong_element() -> None:
    wrong = np.cos(AT)
    wrong[1, 0] *= -1
    with pytest.raises(AssertionError, match="by differences"):
        assert_is_gradient(wrong, lambda x: float(np.sin(x).sum()), AT)
