"""Snippets of movie reviews with the mean of twenty people's ratings (Hutto and Gilbert 2014)."""

import re
from collections import Counter
from pathlib import Path

import numpy as np

from examples.data.archives import Archive, from_tar
from examples.data.columns import Array

VADER = Archive(
    "vaderSentiment",
    "3.3.2",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    is_source=True,
)

WORDS, VOCABULARY = 40, 4_000
PADDING, UNKNOWN = 0, 1


def snippets(store: Path) -> dict[str, Array]:
    """10,605 snippets: x (40), their first words as numbers, then 0; y, 1 where the mean rating is above 0."""
    archive = from_tar(VADER.fetched(store), "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
    table = from_tar(archive, "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt").decode("utf-8", "replace")
    rows = [line.split("\t") for line in table.splitlines() if line]
    y = np.array([float(rating) > 0 for _, rating, _ in rows], np.int64)
    return {"x": numbered([words(snippet) for _, _, snippet in rows], WORDS, VOCABULARY), "y": y}


def words(text: str) -> list[str]:
    """Words in lower case, with their apostrophes, and marks one by one."""
    return re.findall(r"[a-z0-9]+(?:'[a-z]+)?|[!?.,;:]", text.lower())


def numbered(texts: list[list[str]], longest: int, vocabulary: int) -> Array:
    """(texts, longest): the most frequent word is 2, the next 3 and so on, all rare ones 1; behind the text 0."""
    counts = Counter(word for text in texts for word in text)
    numbers = {word: number for number, (word, _) in enumerate(counts.most_common(vocabulary - 2), start=2)}
    table = np.full((len(texts), longest), PADDING, np.int32)
    for row, text in zip(table, texts, strict=True):
        known = [numbers.get(word, UNKNOWN) for word in text[:longest]]
        row[: len(known)] = known
    return table
