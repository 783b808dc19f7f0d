"""The formats of datasets' files, and how each is read."""

from enum import StrEnum
from functools import partial
from pathlib import Path

from service.data.apart import read_apart
from service.data.csv_file import read_csv
from service.data.gzip_file import is_gzip, unpack
from service.data.idx import TYPES, read_idx
from service.data.npz import read_npz
from service.data.reading import Columns, Reader, Reading


class Format(StrEnum):
    """How a file is laid out; named as in the contract."""

    NPZ = "npz"
    CSV = "csv"
    IDX = "idx"
    PARQUET = "parquet"
    ARROW = "arrow"


FORMATS: dict[Format, Reader] = {
    Format.NPZ: read_npz,
    Format.CSV: read_csv,
    Format.IDX: read_idx,
    Format.PARQUET: partial(read_apart, "parquet"),
    Format.ARROW: partial(read_apart, "arrow"),
}

MAGIC = {b"PK\x03\x04": Format.NPZ, b"PK\x05\x06": Format.NPZ, b"PAR1": Format.PARQUET, b"ARROW1": Format.ARROW}
"""How files of each format begin. IDX begins with zeros and a type; csv has nothing of the kind."""


def read(path: Path, format: Format | None, reading: Reading) -> tuple[Format, Columns]:  # noqa: A002
    """The format of a file, found out if it isn't said, and its columns. Raises InvalidArgument.

    Whatever the format, the file may be packed in gzip.
    """
    if is_gzip(path):
        path = unpack(path, reading.workspace / "unpacked", reading.most_bytes)
    found = format or sniff(path)
    return found, FORMATS[found](path, reading)


def sniff(path: Path) -> Format:
    """The format that a file's first bytes tell; csv if they tell none."""
    with path.open("rb") as file:
        start = file.read(8)
    for magic, known in MAGIC.items():
        if start.startswith(magic):
            return known
    if len(start) >= 4 and start[:2] == b"\0\0" and start[2] in TYPES:
        return Format.IDX
    return Format.CSV
