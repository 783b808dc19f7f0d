"""A column in blocks gives what the array would, and holds no more than it may."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from worker.arrays import Array
from worker.columns import BLOCK_BYTES, WHOLE_BYTES, BlockedColumn, block_rows


class Store:
    """Blocks of an array, and which were fetched."""

    def __init__(self, array: Array, rows_a_block: int) -> None:
        self.array = array
        self.rows = rows_a_block
        self.fetched: list[int] = []

    def fetch(self, number: int) -> Array:
        self.fetched.append(number)
        return self.array[number * self.rows : (number + 1) * self.rows]


@given(st.lists(st.integers(0, 99)), st.integers(1, 120), st.integers(0, 2000))
def test_rows_are_those_of_the_array(rows: list[int], rows_a_block: int, held_bytes: int) -> None:
    array = np.arange(300, dtype=np.float32).reshape(100, 3)
    column = BlockedColumn(Store(array, rows_a_block).fetch, rows_a_block, held_bytes)
    wanted = np.array(rows, np.intp)
    assert np.array_equal(column[wanted], array[wanted])


def test_what_is_held_is_not_fetched_again_and_the_oldest_goes() -> None:
    store = Store(np.arange(40, dtype=np.float64), rows_a_block=10)
    column = BlockedColumn(store.fetch, 10, held_bytes=160)  # two blocks of 80 bytes
    for row in (0, 10, 5, 20, 0, 10):
        column[np.array([row])]
    assert store.fetched == [0, 1, 2, 1]  # when 2 comes, 1 has been unused the longest


def test_one_block_is_held_however_large() -> None:
    store = Store(np.arange(20), rows_a_block=10)
    column = BlockedColumn(store.fetch, 10, held_bytes=1)
    assert column[np.array([3, 13, 4])].tolist() == [3, 13, 4]


def test_what_it_gives_is_a_copy() -> None:
    array = np.zeros(10)
    column = BlockedColumn(Store(array, 10).fetch, 10, 1000)
    column[np.array([1, 2])][:] = 1
    assert not array.any()


def test_blocks_have_a_size() -> None:
    plenty = 1 << 40
    assert block_rows(4, 1000, plenty) == 1000  # a small column is one block
    assert block_rows(4, WHOLE_BYTES, plenty) == BLOCK_BYTES // 4
    assert block_rows(4, 1_000_000, 1 << 20) == (1 << 18) // 4  # four at a time, of what may be held
    assert block_rows(10 * BLOCK_BYTES, 1000, plenty) == 1
