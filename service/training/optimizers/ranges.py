"""What hyper-parameters may be.

Parameters are in single precision unless a job asks for more, so a number that acts on them must not vanish or overflow
there.
"""

from worker.errors import InvalidValue

SINGLE = "between 1e-37 and 1e38, since parameters are in single precision"
"""What is to be said of a value that `is_positive_single` refuses."""

LARGEST = 1e38


def is_positive_single(value: float) -> bool:
    """Whether a number is above 0 and stays a number above 0 in single precision, with digits to spare."""
    return 1e-37 <= value <= LARGEST


def require_positive(field: str, value: float) -> None:
    """Raises InvalidValue unless a number is above 0 in single precision."""
    if not is_positive_single(value):
        raise InvalidValue(field, f"is {value:g}; must be above 0, and {SINGLE}")


def require_zero_or_positive(field: str, value: float) -> None:
    """Raises InvalidValue unless a number is 0, or above 0 in single precision."""
    if value != 0 and not is_positive_single(value):
        raise InvalidValue(field, f"is {value:g}; must be 0, or {SINGLE}")


def require_share(field: str, value: float) -> None:
    """Raises InvalidValue unless a number is 0 to 1, both included."""
    if not 0 <= value <= 1:
        raise InvalidValue(field, f"is {value:g}; must be 0 to 1")


def require_decay(field: str, value: float) -> None:
    """Raises InvalidValue unless a number says how much of something is kept from step to step."""
    if not 0 <= value < 1:
        raise InvalidValue(field, f"is {value:g}; must be 0 up to, but not including, 1")


def require_count(field: str, value: int, largest: int = 1_000_000) -> None:
    """Raises InvalidValue unless a number is 1 to `largest`."""
    if not 1 <= value <= largest:
        raise InvalidValue(field, f"is {value}; must be 1 to {largest:,}")
