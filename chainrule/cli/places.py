"""Where the command keeps data of its own: below the user's data folder, by the XDG Base Directory Specification."""

import os
from datetime import datetime
from pathlib import Path


def data_home() -> Path:
    """``$XDG_DATA_HOME/chainrule``, by default ``~/.local/share/chainrule``."""
    home = os.environ.get("XDG_DATA_HOME", "")
    # The specification says to ignore a relative path.
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".local" / "share") / "chainrule"


def run_dir(stem: str, now: datetime) -> Path:
    """The folder of one run with an embedded coordinator.

    Every run has its own: two at a time do not get in each other's way, and a run that was killed does not come back to
    life, and take the workers, when the next one starts.
    """
    return data_home() / "runs" / f"{now:%Y%m%d-%H%M%S}-{os.getpid()}-{stem}"
