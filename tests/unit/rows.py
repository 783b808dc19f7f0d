"""Names for the rows of tables of tests."""

from typing import Any


def row_name(value: Any) -> str | None:
    """What a value says of itself; nothing of a function, whose text is where it lies in this very process."""
    return None if callable(value) and not hasattr(value, "__dataclass_fields__") else str(value)
