"""Unpacks gzip without trusting it: any format may come packed in it, once."""

import gzip
import zlib
from pathlib import Path

from service.data.reading import refuse, spool

MAGIC = b"\x1f\x8b"


def is_gzip(path: Path) -> bool:
    """Whether a file begins as gzip does."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def unpack(path: Path, target: Path, most_bytes: int) -> Path:
    """Writes the content of a gzip file to `target`. Raises InvalidArgument if it is none, or unpacks to too much."""
    try:
        with gzip.open(path) as file:
            spool(file, target, most_bytes)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise refuse("is a gzip file that is cut off or damaged; pack it again") from error
    if is_gzip(target):
        raise refuse("is gzip inside gzip; pack it once")
    return target
