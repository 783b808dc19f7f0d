"""Gradients of tables as arrays as large as the tables, to be held against what is dense."""

from collections.abc import Collection, Mapping
from typing import cast

import numpy as np

from worker.arrays import Array, Shape
from worker.gradient import Gradient
from worker.network import Network
from worker.tables import Collector, TableGradient


def whole_table(gradient: TableGradient, shape: Shape) -> Array:
    """A table's gradient, with zeros in the rows that were not looked up."""
    assert (np.diff(gradient.rows) > 0).all()
    assert gradient.values.shape == (len(gradient.rows), *shape[1:])
    table = np.zeros(shape, gradient.values.dtype)
    table[gradient.rows] = gradient.values
    return table


def whole_vector(network: Network, gradient: Gradient) -> Array:
    """A network's gradient as long as its parameters."""
    tables = zip(network.tables, gradient.tables, strict=True)
    return np.concatenate(
        [gradient.vector, *(whole_table(its, table.slot.parameter.shape).reshape(-1) for table, its in tables)]
    )


def unfilled(params: Mapping[str, Array], tables: Collection[str] = ()) -> dict[str, Array]:
    """Room for the gradients. NaN, so that adding to it instead of filling it shows."""
    return {
        key: cast("Array", Collector()) if key in tables else np.full_like(value, np.nan)
        for key, value in params.items()
    }


def filled(grads: Mapping[str, object], params: Mapping[str, Array]) -> dict[str, Array]:
    """What was put there, as arrays."""
    return {
        key: whole_table(value.get(), params[key].shape) if isinstance(value, Collector) else cast("Array", value)
        for key, value in grads.items()
    }
