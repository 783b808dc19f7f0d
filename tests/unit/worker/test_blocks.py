"""Partial sums: wherever the tree is cut, the bits are those of the whole."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.blocks import Block, merge, merges
from worker.gradient import Gradient, Sums, tree_sum


def gradients(shards: int, seed: int) -> list[Gradient]:
    """Of very different sizes, so that another order of additions would show."""
    random = np.random.default_rng(seed)
    return [
        Gradient(
            (random.standard_normal(5) * 10.0 ** random.integers(-6, 6)).astype(np.float32),
            Sums(
                float(random.standard_normal() * 10.0 ** random.integers(-9, 9)),
                {"accuracy": np.array([shard, 1.0])},
                shard,
                shard,
            ),
        )
        for shard in range(shards)
    ]


def blocks_of(terms: list[Gradient], shards: list[int]) -> list[Block]:
    return [Block(shard, 1, Gradient(terms[shard].vector.copy(), terms[shard].sums)) for shard in shards]


@given(st.data())
def test_any_two_levels_of_cuts_give_the_bits_of_the_whole(data: st.DataObject) -> None:
    shards = data.draw(st.integers(1, 40))
    terms = gradients(shards, data.draw(st.integers(0, 100)))
    workers = data.draw(st.lists(st.integers(0, 5), min_size=shards, max_size=shards))
    nodes = data.draw(st.lists(st.integers(0, 2), min_size=6, max_size=6))
    sent: dict[int, list[Block]] = {node: [] for node in nodes}
    for worker, node in enumerate(nodes):
        sent[node] += merge(blocks_of(terms, [s for s in range(shards) if workers[s] == worker]), shards)
    received = [block for blocks in sent.values() for block in merge(blocks, shards)]

    (block,) = merge(received, shards)

    whole = tree_sum(terms)
    assert block.first == 0
    assert block.total.vector.tobytes() == whole.vector.tobytes()
    assert block.total.sums == whole.sums


@pytest.mark.parametrize(
    ("blocks", "shards", "additions", "remaining"),
    [
        ([(0, 1)], 1, [], [(0, 1)]),
        ([(0, 1), (1, 1)], 2, [(0, 1)], [(0, 2)]),
        ([(1, 1), (2, 1)], 4, [], [(1, 1), (2, 1)]),  # neighbours, but no siblings
        ([(2, 1), (3, 1)], 4, [(2, 3)], [(2, 2)]),
        ([(0, 2), (2, 1)], 3, [(0, 2)], [(0, 4)]),  # the last has no sibling: it is its own parent
        ([(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)], 5, [(0, 1), (2, 3), (0, 2), (0, 4)], [(0, 8)]),
        ([], 4, [], []),
    ],
)
def test_siblings_add_up(
    blocks: list[tuple[int, int]], shards: int, additions: list[tuple[int, int]], remaining: list[tuple[int, int]]
) -> None:
    assert merges(blocks, shards) == (additions, remaining)


def test_an_aligned_run_of_shards_is_one_vector() -> None:
    """Which is why neighbouring shards go to the same worker: it sends one vector."""
    terms = gradients(8, seed=1)
    assert [(block.first, block.width) for block in merge(blocks_of(terms, [4, 5, 6, 7]), 8)] == [(4, 4)]


def test_an_overflow_makes_no_warning() -> None:
    largest = np.full(3, np.finfo(np.float32).max, np.float32)
    (block,) = merge([Block(n, 1, Gradient(largest.copy(), Sums(1.0, {}, 1, 1))) for n in range(2)], 2)
    assert np.isinf(block.total.vector).all()
