"""Reads Parquet and Arrow's file format, in a process of its own. The only file that knows pyarrow, an extra.

Columns of numbers, truth values, text, and fixed-size lists of numbers; batch of rows by batch of rows. What a file
declares about sizes is held against the limit first; pyarrow holds it against the file. There are broken files for
which pyarrow ends its process, so this is only for apart.py to call.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from service.data.layout import Field, Layout, lay_out
from service.data.reading import Reading, refuse
from service.errors import FailedPrecondition
from worker.arrays import Array, Shape

ROWS_AT_ONCE = 16_384
LONGEST_TEXT = 10_000
MOST_FIELDS = 50_000
MOST_AXES = 31

Batches = Callable[[], Iterator[Any]]
"""Reads a file's record batches from the beginning."""


def read_parquet(path: Path, reading: Reading) -> Layout:
    """Lays out the columns of a Parquet file. Raises InvalidArgument."""
    pyarrow = _pyarrow()
    with _Refusing(pyarrow, "Parquet"):
        file = pyarrow.parquet.ParquetFile(path, pre_buffer=False)
        metadata = file.metadata
        unpacked = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
        if unpacked > reading.most_bytes:
            raise refuse(f"says it unpacks to {unpacked:,} bytes; must be at most {reading.most_bytes:,}")
        schema, rows = file.schema_arrow, metadata.num_rows
        return _lay_out(pyarrow, schema, rows, lambda: file.iter_batches(ROWS_AT_ONCE, use_threads=False), reading)


def read_arrow(path: Path, reading: Reading) -> Layout:
    """Lays out the columns of an Arrow IPC file. Raises InvalidArgument."""
    pyarrow = _pyarrow()
    with _Refusing(pyarrow, "Arrow"), pyarrow.memory_map(str(path)) as source:
        file = pyarrow.ipc.open_file(source)

        def batches() -> Iterator[Any]:
            for number in range(file.num_record_batches):
                batch = file.get_batch(number)
                batch.validate(full=True)  # or lengths beyond the file would be believed
                yield batch

        rows = sum(batch.num_rows for batch in batches())
        return _lay_out(pyarrow, file.schema, rows, batches, reading)


def _lay_out(pyarrow: Any, schema: Any, rows: int, batches: Batches, reading: Reading) -> Layout:
    if len(schema) > MOST_FIELDS:
        raise refuse(f"has {len(schema):,} columns; must have at most {MOST_FIELDS:,}")
    if len(set(schema.names)) < len(schema):
        raise refuse("has two columns of the same name; give each a name of its own")
    if rows < 1:
        raise refuse("has no rows")
    fields = [_field(pyarrow, field) for field in schema]
    if any(field.dtype.kind == "U" for field in fields):
        fields = _with_lengths(pyarrow, fields, batches)

    def arrays() -> Iterator[list[Array]]:
        for batch in batches():
            if batch.num_rows:
                yield [_array(field, column) for field, column in zip(fields, batch.columns, strict=True)]

    return lay_out(fields, rows, arrays(), reading)


def _field(pyarrow: Any, field: Any) -> Field:
    """Name, type and shape of a column. Raises InvalidArgument for a type that can't be one."""
    kind = field.type
    shape: list[int] = []
    while pyarrow.types.is_fixed_size_list(kind) and len(shape) < MOST_AXES:
        shape.append(kind.list_size)
        kind = kind.value_type
    text = pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)
    number = pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_boolean(kind)
    if not (number or (text and not shape)) or min(shape, default=1) < 1:
        raise refuse(
            f"has the type {str(field.type)[:100]!r} in column {field.name[:100]!r}; "
            "must be numbers, truth values, text, or fixed-size lists of numbers that aren't empty"
        )
    dtype: np.dtype[np.generic] = np.dtype("<U1") if text else np.dtype(kind.to_pandas_dtype())
    return Field(field.name, dtype, tuple(shape))


def _with_lengths(pyarrow: Any, fields: list[Field], batches: Batches) -> list[Field]:
    """The fields, each text as wide as its longest."""
    longest = dict.fromkeys((number for number, field in enumerate(fields) if field.dtype.kind == "U"), 1)
    for batch in batches():
        for number in longest:
            found = pyarrow.compute.max(pyarrow.compute.utf8_length(batch.column(number))).as_py() or 0
            longest[number] = max(longest[number], found)
            if found > LONGEST_TEXT:
                raise refuse(
                    f"has a text of {found:,} characters in column {fields[number].name!r}; "
                    f"must have at most {LONGEST_TEXT:,}"
                )
    return [
        Field(field.name, np.dtype(f"<U{longest[number]}") if number in longest else field.dtype, field.row_shape)
        for number, field in enumerate(fields)
    ]


def _array(field: Field, column: Any) -> Array:
    """A column of a batch. Raises InvalidArgument for what is missing where nothing can stand for it."""
    values, shape = column, _rows_first(len(column), field.row_shape)
    for _ in field.row_shape:
        _check_nulls(field, values)
        values = values.flatten()
    if field.dtype.kind == "U":
        texts = [text or "" for text in values.to_pylist()]
        if any("\0" in text for text in texts):
            raise refuse(f"has a zero character in column {field.name!r}")
        return np.array(texts, field.dtype)
    if field.dtype.kind != "f":
        _check_nulls(field, values)
    # Where a float is missing, pyarrow gives NaN.
    array: Array = values.to_numpy(zero_copy_only=False)
    return array.astype(field.dtype, copy=False).reshape(shape)


def _rows_first(rows: int, row_shape: Shape) -> Shape:
    return (rows, *row_shape)


def _check_nulls(field: Field, values: Any) -> None:
    if values.null_count:
        raise refuse(
            f"has {values.null_count:,} missing values in column {field.name!r} of type {field.dtype.name}; "
            "only floats may be missing, as NaN: fill them in, or store floats"
        )


def check_installed() -> None:
    """Raises FailedPrecondition if pyarrow isn't there."""
    if find_spec("pyarrow") is None:
        raise FailedPrecondition(
            "this coordinator can't read Parquet and Arrow yet; there, pip install 'chainrule[server,arrow]'",
            reason="FORMAT_NOT_INSTALLED",
        )


def _pyarrow() -> Any:
    import pyarrow
    import pyarrow.compute
    import pyarrow.ipc
    import pyarrow.parquet

    return pyarrow


@dataclass(frozen=True)
class _Refusing:
    """Turns what pyarrow raises for a broken file into our own error."""

    pyarrow: Any
    format: str

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        # OSError is what it raises for a file cut off; UnicodeDecodeError, a ValueError, for text that is none.
        known = (self.pyarrow.ArrowException, ValueError, KeyError, TypeError, OverflowError, MemoryError)
        if isinstance(error, known) or (isinstance(error, OSError) and error.errno is None):
            raise refuse(f"is not a readable {self.format} file") from error
