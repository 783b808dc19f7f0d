"""Snippets of movie reviews with the mean of twenty people's ratings (Hutto and Gilbert 2014)."""

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

MOODS = ("friendly", "unfriendly")


def snippets(store: Path) -> dict[str, Array]:
    """10,605 snippets: snippet, a text; mood, friendly where the mean rating is above 0, else unfriendly."""
    archive = from_tar(VADER.fetched(store), "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz")
    table = from_tar(archive, "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt").decode("utf-8", "replace")
    rows = [line.split("\t") for line in table.splitlines() if line]
    friendly, unfriendly = MOODS
    moods = [friendly if float(rating) > 0 else unfriendly for _, rating, _ in rows]
    return {"snippet": np.array([snippet for _, _, snippet in rows]), "mood": np.array(moods)}
