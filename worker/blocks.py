"""Partial sums: the shards' tree, cut where the work is cut.

The sum over shards is a fixed tree. A worker that has some of the shards adds those that are siblings in it and sends
what is left; whoever receives goes on in the same way. Wherever the tree is cut, the same numbers are added in the same
order, so the bits are those of `tree_sum` over all shards.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from worker.gradient import Gradient


@dataclass(frozen=True)
class Block:
    """The sum over shards `first` to `first + width - 1`, as far as there are so many: a node of the tree.

    `width` is a power of two and `first` a multiple of it.
    """

    first: int
    width: int
    total: Gradient


def merges(
    blocks: Iterable[tuple[int, int]], shards: int
) -> tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]]:
    """How far some blocks, given as (first, width), add up among themselves.

    Returns the additions in order, each as (first of the left, first of the right), with the sum taking the left one's
    place; and the blocks that remain.
    """
    return _merges(tuple(blocks), shards)


@lru_cache(maxsize=1024)
def _merges(
    blocks: tuple[tuple[int, int], ...], shards: int
) -> tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]]:
    """Cached, since every step asks for the same."""
    present = dict(blocks)
    additions: list[tuple[int, int]] = []
    width = 1
    while width < shards:
        for left in [first for first, has in present.items() if has == width and first % (2 * width) == 0]:
            right = left + width
            if right >= shards:  # nothing to the right: the node above is the same sum
                present[left] = 2 * width
            elif present.get(right) == width:
                additions.append((left, right))
                del present[right]
                present[left] = 2 * width
        width *= 2
    return additions, sorted(present.items())


def merge(blocks: Sequence[Block], shards: int) -> list[Block]:
    """Adds what are siblings among some blocks. The vectors on the left are overwritten by the sums."""
    totals = {block.first: block.total for block in blocks}
    additions, remaining = merges(((block.first, block.width) for block in blocks), shards)
    for left, right in additions:
        totals[left] = totals[left].plus(totals[right], out=totals[left].vector)
    return [Block(first, width, totals[first]) for first, width in remaining]
