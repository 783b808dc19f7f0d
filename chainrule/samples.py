"""Sample datasets: small, real and known to everyone, so that a first job needs no data of one's own.

They come with scikit-learn, without a network. Every one has the columns ``x``, float32 of shape (rows, features), and
``y``: class numbers, int64 of shape (rows,), or for a regression float32 of shape (rows, 1).
"""

import io
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.errors import SampleError


def make_sample(name: str) -> bytes:
    """The npz file of the sample called `name`, the same bytes every time.

    Raises SampleError if there is none of that name, or scikit-learn is not installed.
    """
    if name not in SAMPLES:
        raise SampleError(f'there is no sample dataset "{name}"; there are {", ".join(sorted(SAMPLES))}')
    try:
        from sklearn import datasets
    except ImportError as error:
        raise SampleError(
            f"the sample dataset {name} comes with scikit-learn: pip install 'chainrule[demo]'"
        ) from error
    x, y = SAMPLES[name](datasets)
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, x=x, y=y)
    return file.getvalue()


Columns = tuple[NDArray[np.float32], NDArray[np.float32] | NDArray[np.int64]]


def _digits(datasets: Any) -> Columns:
    """1,797 images of handwritten digits, 8 x 8 pixels from 0 to 1; 10 classes (Alpaydin and Kaynak 1998)."""
    x, y = datasets.load_digits(return_X_y=True)
    return (x / 16).astype(np.float32), y.astype(np.int64)


def _breast_cancer(datasets: Any) -> Columns:
    """569 tumours by 30 measurements, standardised; 2 classes (Street, Wolberg and Mangasarian 1993)."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    return _standardised(x), y.astype(np.int64)


def _wine(datasets: Any) -> Columns:
    """178 wines by 13 chemical measurements, standardised; 3 classes (Aeberhard, Coomans and de Vel 1992)."""
    x, y = datasets.load_wine(return_X_y=True)
    return _standardised(x), y.astype(np.int64)


def _diabetes(datasets: Any) -> Columns:
    """442 patients by 10 measurements and the disease's progress, all standardised (Efron et al. 2004)."""
    x, y = datasets.load_diabetes(return_X_y=True)
    return _standardised(x), _standardised(y[:, np.newaxis])


def _standardised(columns: NDArray[np.float64]) -> NDArray[np.float32]:
    """Every column with mean 0 and standard deviation 1."""
    scaled: NDArray[np.float64] = (columns - columns.mean(axis=0)) / columns.std(axis=0)
    return scaled.astype(np.float32)


SAMPLES: MappingProxyType[str, Callable[[Any], Columns]] = MappingProxyType(
    {"digits": _digits, "breast-cancer": _breast_cancer, "wine": _wine, "diabetes": _diabetes}
)
