"""Arrays that lie where a processor reads them fastest."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.arrays import CACHE_LINE, aligned


@given(st.lists(st.integers(0, 9), max_size=4), st.sampled_from(["float32", "float64"]))
def test_it_begins_with_a_line_of_the_cache(shape: list[int], dtype: str) -> None:
    array = aligned(tuple(shape), dtype)
    assert array.shape == tuple(shape)
    assert array.dtype == np.dtype(dtype)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.size == 0 or array.ctypes.data % CACHE_LINE == 0
    array[...] = 1
    assert array.sum() == array.size
