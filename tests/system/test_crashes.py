"""A coordinator that is killed at random moments. `make chaos` does the same for longer, with other seeds."""

from pathlib import Path

import pytest

from tests.chaos.crashes import Crashes

pytestmark = pytest.mark.system
KILLS = 6


def test_what_was_acknowledged_holds_and_the_rest_can_be_asked_for_again(tmp_path: Path) -> None:
    crashes = Crashes(tmp_path, seed=5)
    crashes.run(KILLS)
    assert crashes.acknowledged > KILLS
