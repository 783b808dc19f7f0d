"""What else the bits of a result depend on, beside the job: the versions of what computes it."""

from functools import cache
from importlib.metadata import version

import numpy as np


@cache
def versions() -> str:
    """Of Chainrule, NumPy and NumPy's BLAS. Only machines where they are the same compute the same bits."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"Chainrule {version('chainrule')}, NumPy {np.__version__}, {blas['name']} {blas['version']}"
