"""A clock that can't be right is found out."""

import os
from pathlib import Path

import pytest

from service.clock import clock_trouble

DAY = 24 * 3600.0
INSTALLED = 20_000 * DAY  # 2024-10-04


@pytest.mark.parametrize(
    ("days", "is_wrong"), [(-10_000, True), (-2, True), (-0.5, False), (0, False), (10_000, False)]
)
def test_a_clock_before_the_program_was_installed_is_wrong(days: float, is_wrong: bool, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.touch()
    os.utime(program, (INSTALLED, INSTALLED))
    trouble = clock_trouble(program, INSTALLED + days * DAY)
    assert bool(trouble) == is_wrong
    if is_wrong:
        assert "installed here on 2024-10-04" in trouble
        assert "timedatectl" in trouble
