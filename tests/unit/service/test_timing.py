"""Where a step's time goes."""

import pytest

from service.training.timing import Anatomy


def test_the_phases_of_late_are_means_over_the_steps_between() -> None:
    anatomy = Anatomy()
    assert anatomy.at(10, {"forward": 1.0, "average": 0.5}) == {}
    assert anatomy.at(10, {"forward": 1.0, "average": 0.5}) == {}
    assert anatomy.at(14, {"forward": 1.2, "average": 0.5}) == pytest.approx({"forward": 0.05, "average": 0.0})
    assert anatomy.at(20, {"forward": 2.0, "average": 0.7}) == pytest.approx({"forward": 0.1, "average": 0.02})


def test_steps_that_are_taken_again_are_not_counted_twice() -> None:
    anatomy = Anatomy()
    anatomy.at(10, {"forward": 1.0})
    anatomy.at(20, {"forward": 2.0})
    assert anatomy.at(12, {"forward": 2.5}) == {}
    assert anatomy.at(14, {"forward": 3.5}) == pytest.approx({"forward": 0.5})


def test_what_it_is_given_may_go_on_changing() -> None:
    anatomy, seconds = Anatomy(), {"forward": 1.0}
    anatomy.at(1, seconds)
    seconds["forward"] = 2.0
    assert anatomy.at(2, seconds) == {"forward": 1.0}
