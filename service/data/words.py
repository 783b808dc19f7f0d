"""Texts as integers: words by a plain rule, numbered by how frequent they are in the training rows."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from service.data.columns import Column
from service.data.features import Blocks, NotPreparable
from worker.arrays import Array
from worker.errors import InvalidValue

PADDING, UNKNOWN, FIRST = 0, 1, 2
LARGEST_VOCABULARY = 1_000_000
LONGEST_ROW = 10_000
MOST_DISTINCT = 2_000_000
"""More different words than this are not counted: about 300 MB."""

_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


@dataclass(frozen=True)
class Tokenise:
    """The words of a text as `length` integers below `vocabulary`."""

    vocabulary: int = 10_000
    length: int = 100

    def __post_init__(self) -> None:
        if not FIRST < self.vocabulary <= LARGEST_VOCABULARY:
            raise InvalidValue("vocabulary", f"is {self.vocabulary}; must be 3 to {LARGEST_VOCABULARY:,}")
        if not 1 <= self.length <= LONGEST_ROW:
            raise InvalidValue("length", f"is {self.length}; must be 1 to {LONGEST_ROW:,}")


@dataclass(frozen=True)
class FittedWords:
    """A vocabulary: the word at index i has the id i + 2."""

    column: str
    words: tuple[str, ...]
    length: int
    integral = takes_text = True

    @property
    def width(self) -> int:
        """How many ids a row gives."""
        return self.length

    @cached_property
    def ids(self) -> dict[str, int]:
        """Each word's id."""
        return {word: number for number, word in enumerate(self.words, start=FIRST)}

    def apply(self, values: Array) -> Array:
        """Texts (rows,) to ids (rows, length). Raises NotPreparable."""
        if values.dtype.kind != "U" or values.ndim != 1:
            raise NotPreparable(f"{self.column!r} must hold one text a row")
        rows = np.full((len(values), self.length), PADDING, np.int32)
        for row, text in zip(rows, values.tolist(), strict=True):
            found = [self.ids.get(word, UNKNOWN) for word in words(text)[: self.length]]
            row[: len(found)] = found
        return rows


def words(text: str) -> list[str]:
    """The words of a text, in lower case."""
    return _WORD.findall(text.lower())


def fit_words(kind: Tokenise, column: Column, blocks: Blocks) -> FittedWords:
    """The most frequent words, those that are equally frequent in alphabetical order. Raises NotPreparable."""
    if not column.is_text or column.row_shape:
        raise NotPreparable(f"{column.name!r} is a column of {column.dtype}; tokenise takes one text a row")
    counts: Counter[str] = Counter()
    for block in blocks:
        for text in block.tolist():
            counts.update(words(text))
        if len(counts) > MOST_DISTINCT:
            raise NotPreparable(f"{column.name!r} has more than {MOST_DISTINCT:,} different words, which is the most")
    if not counts:
        raise NotPreparable(f"{column.name!r} has no word in any training row, so that the vocabulary would be empty")
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return FittedWords(column.name, tuple(ranked[: kind.vocabulary - FIRST]), kind.length)
