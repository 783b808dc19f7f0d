"""Some rows after the other, for layers that compute far more than they return: states, or attention's weights.

Nothing of a piece is kept but its output. Should the gradient be asked for, each piece is computed again and gone back
through before the next (Chen et al. 2016, "Training deep nets with sublinear memory cost"). So the memory that a layer
takes is bounded, however many rows there are.
"""

from typing import Protocol

import numpy as np

from worker.arrays import Array
from worker.layers.layer import Backward, Context, Params


class Run(Protocol):
    """A forward pass over some rows that keeps what its backward needs."""

    def __call__(
        self, params: Params, x: Array, mask: Array | None, *, input_gradient: bool
    ) -> tuple[Array, Backward]: ...


def in_pieces(run: Run, params: Params, x: Array, context: Context, rows: int) -> tuple[Array, Backward]:
    """Runs over `rows` rows at a time, at least 1."""
    mask = context.given(x)
    pieces = [slice(start, start + rows) for start in range(0, max(len(x), 1), rows)]

    def go(piece: slice, *, input_gradient: bool) -> tuple[Array, Backward]:
        return run(params, x[piece], None if mask is None else mask[piece], input_gradient=input_gradient)

    def backward(dy: Array, grads: Params) -> Array:
        dx = []
        for index, piece in enumerate(pieces):
            own = {key: np.empty_like(value) for key, value in grads.items()} if index else grads
            dx.append(go(piece, input_gradient=context.input_gradient)[1](dy[piece], own))
            if index:
                for key, value in own.items():
                    grads[key][...] += value
        return np.concatenate(dx)

    return np.concatenate([go(piece, input_gradient=False)[0] for piece in pieces]), backward
