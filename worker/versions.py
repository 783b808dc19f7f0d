"""What the bits of a result depend on beside the job: the versions of what computes it, and the kind of processor."""

import platform
from functools import cache
from importlib.metadata import version

import numpy as np
from threadpoolctl import threadpool_info

SAME = "run the same image on both; where only processors differ, give both the same OPENBLAS_CORETYPE, such as Haswell"
"""How to mend it where they aren't the same."""


@cache
def kernels() -> frozenset[str]:
    """The processors, by OpenBLAS's names, for which it multiplies here; none where NumPy has another BLAS."""
    return frozenset(pool["architecture"] for pool in threadpool_info() if pool["internal_api"] == "openblas")


@cache
def versions() -> str:
    """Of Chainrule, Python, NumPy and its BLAS, which chooses sums by the processor. Where they differ, bits may."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    chosen = f" for {'/'.join(sorted(kernels()))}" if kernels() else ""
    python = ".".join(platform.python_version_tuple()[:2])
    ours = f"Chainrule {version('chainrule')}, Python {python}, NumPy {np.__version__}"
    return f"{ours}, {blas['name']} {blas['version']}{chosen}"
