"""How removals are told: to people on stderr, since there is no result, and to programs as a line each."""

from collections.abc import Callable, Iterable

from chainrule.cli.run import say
from chainrule.cli.text import print_json


def remove(names: Iterable[str], take_away: Callable[[str], object], as_json: bool) -> None:
    """Removes one after the other, and tells of each once it is gone. Raises what `take_away` raises."""
    for name in names:
        take_away(name)
        print_json({"removed": name}) if as_json else say(f"{name} removed")
