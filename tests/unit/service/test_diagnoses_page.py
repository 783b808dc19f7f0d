"""docs/diagnoses.md has a section for every trouble, under the anchor that others link to, and the bounds that hold."""

import re
from pathlib import Path

from service.jobs.health import Trouble
from service.training.diagnostics import epochs, layers

PAGE = (Path(__file__).parents[3] / "docs" / "diagnoses.md").read_text(encoding="utf-8")


def test_every_trouble_has_a_section() -> None:
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert sorted(section.split("\n")[0] for section in sections) == sorted(
        trouble.lower().replace("_", "-") for trouble in Trouble
    )
    for section in sections:
        assert "\n*Recognised by*: " in section
        assert "\n*What to do*: " in section


def test_bounds_are_those_of_the_code() -> None:
    told = {name: float(value) for name, value in re.findall(r"`([A-Z][A-Z0-9_]+)`\s([0-9.]*[0-9](?:e-?\d+)?)", PAGE)}
    assert told == {
        name: float(value)
        for module in (epochs, layers)
        for name, value in vars(module).items()
        if re.fullmatch("[A-Z][A-Z0-9_]+", name)
        and isinstance(value, int | float)
        and name not in ("MOST_EPOCHS", "MOST_LOOKS", "LARGEST")
    }
