"""Whether a column holds what networks look up, and sequences that are more than padding."""

from typing import Any

import numpy as np
import pytest

from service.data.columns import describe
from service.data.datasets import Dataset
from service.errors import InvalidArgument
from service.jobs.spec import JobSpec
from service.training.optimizers import Adam
from service.training.tables import check_lengths
from service.training.task import make_task, memory_bytes
from service.wire.spec import parse_spec, spec_message
from tests.unit.service.examples import NOON, spec
from worker.arrays import Array
from worker.initializers import Initializer
from worker.layers import Concatenate, Dense, Embedding, Layer, ReLU, Residual, Stack

ROWS = 30
TOKENS = np.arange(ROWS) % 10
TARGETS = np.arange(ROWS) % 3


def dataset(x: Array) -> Dataset:
    return Dataset("words", len(x), (describe("x", x), describe("y", TARGETS)), 1, "", NOON)


def words(*layers: Layer, **changes: Any) -> JobSpec:
    return spec(dataset="words", layers=(*layers, Dense(3)), **changes)


NESTED = Residual((Concatenate((Stack((Embedding(10, 4),)), Stack((Embedding(9, 4),)))),), (Embedding(10, 8),))

MISFITS: list[tuple[JobSpec, Array, str, str]] = [
    (
        words(Embedding(9, 4)),
        TOKENS,
        "[0].embedding.vocabulary",
        "is 9, but 'x' has integers from 0 to 9; must be at least 10",
    ),
    (
        words(Embedding(9, 4)),
        TOKENS - 1,
        "[0].embedding.vocabulary",
        "is 9, for integers from 0 on, but 'x' has integers from -1 to 8",
    ),
    (words(Embedding(10, 4)), TOKENS * 1.0, "[0].embedding", "looks up integers, but 'x' is a column of float64"),
    (words(Embedding(10, 4)), TOKENS > 5, "[0].embedding", "looks up integers, but 'x' is a column of bool"),
    (words(ReLU(), Embedding(10, 4)), TOKENS, "[1].embedding", "looks up integers, but what other layers make"),
    (
        words(NESTED),
        TOKENS,
        "[0].residual.layers[0].concatenate.branches[1].layers[0].embedding.vocabulary",
        "is 9, but 'x' has",
    ),
    (
        words(Residual((ReLU(), Embedding(10, 4)), (Embedding(10, 4),))),
        TOKENS,
        "[0].residual.layers[1].embedding",
        "looks up integers, but what other layers make of them reaches it; put it first",
    ),
    (words(Embedding(10, 4)), TOKENS.reshape(-1, 1, 1), "[0].embedding", "embedding takes rows of shape (time,) or ()"),
    (words(Embedding(10, 4)), np.zeros((ROWS, 0), int), "[0].embedding", "embedding takes rows of at least one place"),
]


@pytest.mark.parametrize(("of", "x", "field", "told"), MISFITS, ids=[told for *_, told in MISFITS])
def test_what_cannot_be_looked_up_is_named(of: JobSpec, x: Array, field: str, told: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        make_task(of, dataset(x), "spec")
    first = refused.value.violations[0]
    assert first.field == f"spec.network.layers{field}"
    assert first.description.startswith(told)


@pytest.mark.parametrize("x", [TOKENS, TOKENS.astype(np.uint8), TOKENS.astype(np.int16)], ids=lambda x: str(x.dtype))
def test_what_fits(x: Array) -> None:
    both = Concatenate((Stack((Embedding(10, 4),)), Stack((Embedding(11, 4),))))
    for layers in ((Embedding(10, 4),), (both,), (Residual((Embedding(10, 4),), (Embedding(12, 4),)), ReLU())):
        assert make_task(words(*layers), dataset(x), "spec").network.size > 0


def test_a_shard_needs_memory_for_what_it_looks_up_and_not_for_the_table() -> None:
    """Up to 1,024 shards of a network that would be refused if each had a gradient of the whole table."""
    of = words(Embedding(1_000_000, 64), batch_size=24, shards=24, optimizer=Adam())
    task = make_task(of, dataset(TOKENS), "spec")
    table = 4 * 64_000_000
    assert 4 * table <= memory_bytes(task, of) <= 4 * table + 100_000


def test_a_specification_comes_back() -> None:
    of = words(Embedding(10, 4), Embedding(3, 2, Initializer.GLOROT_NORMAL))
    assert parse_spec(spec_message(of), "spec") == of
    message = spec_message(of)
    message.network.layers[0].embedding.ClearField("initializer")
    assert parse_spec(message, "spec") == of


@pytest.mark.parametrize("row", [0, 7, 8, 29])
@pytest.mark.parametrize("features", [(), (2,)], ids=["tokens", "vectors"])
def test_a_row_that_is_all_padding_is_named(row: int, features: tuple[int, ...]) -> None:
    """In whichever of the blocks it is that the column is read in."""
    x = np.full((ROWS, 5, *features), 3)
    x[:, 2:] = 7
    check_lengths(x, 7.0, "x", "field", at_once=40)
    x[row] = 7
    with pytest.raises(InvalidArgument) as refused:
        check_lengths(x, 7.0, "x", "field", at_once=40)
    told = refused.value.violations[0]
    assert told.field == "field"
    assert told.description == f"'x' has nothing but padding (7) in row {row}, counted from 0; leave such rows out"


def test_rows_without_time_have_no_length() -> None:
    check_lengths(np.zeros(ROWS), 0.0, "x", "field")


def test_padding_is_compared_as_networks_see_it() -> None:
    """In single precision, where 0.1 is another number."""
    with pytest.raises(InvalidArgument):
        check_lengths(np.full((3, 2), 0.1), 0.1, "x", "field")


def test_the_default_is_within_glorots_bounds() -> None:
    """A word comes in as one number of many, so that fan-in is 1: uniform within the root of 6 / (1 + size)."""
    made = make_task(words(Embedding(2_000, 16)), dataset(TOKENS), "spec").network
    table = made.tables[0].slot.view(made.initial(seed=0))
    bound = (6 / (1 + 16)) ** 0.5
    assert np.abs(table).max() == pytest.approx(bound, rel=0.01)
    assert table.std() == pytest.approx(bound / 3**0.5, rel=0.02)
