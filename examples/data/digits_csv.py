"""Writes the digits as a table, for clients in languages that know nothing of NumPy's files.

python -m examples.data.digits_csv digits.csv
"""

import sys
from pathlib import Path

import numpy as np

from examples.data.digits import all_digits


def table() -> str:
    """The columns pixel_0 to pixel_63, from 0 to 1, and digit."""
    columns = all_digits(Path())
    rows = np.column_stack([columns["x"].astype(float), columns["y"]])
    header = [*(f"pixel_{number}" for number in range(rows.shape[1] - 1)), "digit"]
    return "\n".join([",".join(header), *(",".join(f"{value:g}" for value in row) for row in rows), ""])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m examples.data.digits_csv FILE")
    Path(sys.argv[1]).write_text(table())
