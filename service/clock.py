"""Whether this machine's clock can be right: certificates, logs and the dates of jobs go by it."""

import time
from datetime import UTC, datetime
from pathlib import Path

SLACK_SECONDS = 24 * 3600.0
"""Time zones, and a clock that is set a little later, are nobody's trouble."""


def clock_trouble(installed: Path = Path(__file__), now: float | None = None) -> str:
    """What is wrong with the clock, and how to mend it; "" if nothing is known to be.

    It is certainly wrong if it is before the day on which this program was installed.
    """
    date, written = time.time() if now is None else now, installed.stat().st_mtime
    if date > written - SLACK_SECONDS:
        return ""
    return (
        f"this machine's clock says {date_of(date)}, and must be wrong: Chainrule was installed here on "
        f"{date_of(written)}; set it, such as by timedatectl set-ntp true"
    )


def date_of(seconds: float) -> str:
    """A time as people read it, given in seconds since 1970."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
