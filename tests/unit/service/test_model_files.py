"""Model files from strangers: read as they are, or refused, whatever is in them."""

import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save

from service.errors import InvalidArgument
from service.models.files import MOST_HEADER_BYTES, ModelFile
from tests.unit.service.examples import task
from worker.arrays import Array

NETWORK = task().network
PARAMS = NETWORK.initial(seed=4)
WHOLE = save({slot.name: slot.view(PARAMS) for slot in NETWORK.slots}, {"format": "chainrule"})
HEADER = int.from_bytes(WHOLE[:8], "little")


def read(data: bytes) -> Array:
    with TemporaryDirectory(dir="/dev/shm") as directory:
        path = Path(directory) / "model"
        path.write_bytes(data)
        return ModelFile(path).parameters(NETWORK)


def with_header(header: Any, body: bytes = WHOLE[8 + HEADER :]) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_what_was_saved_comes_back() -> None:
    assert read(WHOLE).tobytes() == PARAMS.tobytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 8 + HEADER + 20), st.binary(max_size=3)), min_size=1, max_size=3))
def test_damage_is_refused_or_harmless(changes: list[tuple[int, bytes]]) -> None:
    data = bytearray(WHOLE)
    for place, written in changes:
        data[place : place + len(written)] = written
    with suppress(InvalidArgument):
        assert np.isfinite(read(bytes(data))).all()


ENTRIES = json.loads(WHOLE[8 : 8 + HEADER])
BIAS = "layers.2.bias"


@pytest.mark.parametrize(
    "header",
    [
        [],
        {},
        "text",
        b"",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"\xff" * 10,
        {**ENTRIES, BIAS: None},
        {**ENTRIES, BIAS: {}},
        {**ENTRIES, BIAS: {**ENTRIES[BIAS], "shape": [2**40, 2**40]}},
        {**ENTRIES, BIAS: {**ENTRIES[BIAS], "shape": [-3]}},
        {**ENTRIES, BIAS: {**ENTRIES[BIAS], "data_offsets": [0, 12]}},
        {**ENTRIES, BIAS: {**ENTRIES[BIAS], "data_offsets": [2**50, 2**50 + 12]}},
        {**ENTRIES, BIAS: {**ENTRIES[BIAS], "dtype": "F128"}},
        {**ENTRIES, "__metadata__": {"network": 5}},
        {**ENTRIES, "__metadata__": []},
        {**ENTRIES, **{str(number): ENTRIES[BIAS] for number in range(1000)}},
    ],
    ids=lambda header: str(header)[-60:],
)
def test_headers_that_lie_are_refused(header: Any) -> None:
    with pytest.raises(InvalidArgument):
        read(with_header(header))


@pytest.mark.parametrize("length", [0, 7, 8, 100, 8 + HEADER, len(WHOLE) - 1])
def test_a_file_that_ends_early_is_refused(length: int) -> None:
    with pytest.raises(InvalidArgument):
        read(WHOLE[:length])


@pytest.mark.parametrize("length", [MOST_HEADER_BYTES + 1, 2**62, 2**64 - 1])
def test_a_header_of_absurd_size_is_never_read(length: int) -> None:
    with pytest.raises(InvalidArgument, match="or has a header of more than"):
        read(length.to_bytes(8, "little") + bytes(100))
