"""Attention: every place of a sequence looks at every other."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import InvalidValue
from worker.initializers import Initializer
from worker.layers.layer import Backward, Context, Parameter, Params
from worker.layers.pieces import in_pieces
from worker.layers.recurrent import sequence

MOST_HEADS, LARGEST_KEY, LONGEST = 64, 1_024, 4_096
MOST_WEIGHTS = 16_777_216
IN_CACHE = 65_536
"""Attention weights in one tile of rows: what comes of a tile stays in the cache until it is done with."""
AT_ONCE, MOST_KEPT = 1 << 22, 1 << 26
"""How many numbers to compute at once where they are not kept, and how many to keep for the backward."""


@dataclass(frozen=True)
class MultiHeadAttention:
    """Self-attention (Vaswani et al. 2017, section 3.2). For x (rows, time, features), and each head on its own:

        [Q, K, V] = x W + b,    P = softmax(Q K^T / sqrt(key_size)),    y = [the heads' P V, side by side] W' + b'

    W is `weight` (features, 3 heads key_size), with the blocks Q, K, V of which each holds head after head; b `bias`;
    W' `output_weight` (heads key_size, features); b' `output_bias`. y has the shape of x.

    No place looks at padded ones; with `causal`, none at later ones either. A place that may look at nothing gets b'.
    """

    heads: int
    key_size: int = 0
    """Numbers in a query, a key and a value; 0 for features / heads."""
    causal: bool = False
    initializer: Initializer = Initializer.GLOROT_UNIFORM

    def __post_init__(self) -> None:
        if not 1 <= self.heads <= MOST_HEADS:
            raise InvalidValue("heads", f"is {self.heads}; must be 1 to {MOST_HEADS}")
        if not 0 <= self.key_size <= LARGEST_KEY:
            raise InvalidValue(
                "key_size", f"is {self.key_size}; must be 1 to {LARGEST_KEY:,}, or 0 for features / heads"
            )

    def output_shape(self, input_shape: Shape) -> Shape:
        time, features = sequence(input_shape, "attention", LONGEST)
        if not self.key_size and features % self.heads:
            raise InvalidValue(
                "heads",
                f"is {self.heads}, among which the {features} features of rows of shape {input_shape} can't be shared; "
                "give a key_size, or a number of heads that divides them",
            )
        if self.heads * time * time > MOST_WEIGHTS:
            raise ValueError(
                f"attention of {self.heads} heads over {time:,} places has {self.heads * time * time:,} weights a row; "
                f"must be at most {MOST_WEIGHTS:,}: use fewer heads or shorter sequences"
            )
        return input_shape

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        features = input_shape[1]
        width = self.heads * self._size(features)
        return {
            "weight": Parameter((features, 3 * width), self.initializer, fan_in=features, fan_out=width),
            "bias": Parameter((3 * width,), Initializer.ZEROS),
            "output_weight": Parameter((width, features), self.initializer, fan_in=width, fan_out=features),
            "output_bias": Parameter((features,), Initializer.ZEROS),
        }

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        rows, time, features = x.shape
        of_row = self.heads * time * (time + 4 * self._size(features))
        if context.draw is not None and rows * of_row <= MOST_KEPT:
            return self._keeping(params, x, context.given(x), input_gradient=context.input_gradient)
        return in_pieces(self._keeping, params, x, context, max(1, AT_ONCE // of_row))

    def _keeping(self, params: Params, x: Array, mask: Array | None, *, input_gradient: bool) -> tuple[Array, Backward]:
        """y, and a backward over all that was computed on the way."""
        rows, time, features = x.shape
        size = self._size(features)
        width = self.heads * size
        scale = 1 / math.sqrt(size)
        flat_x = x.reshape(rows * time, features)
        projected = flat_x @ params["weight"]
        projected += params["bias"]
        projected[:, :width] *= scale
        q, k, v = self._by_head(projected.reshape(rows, time, 3 * width), 3)
        hidden = hidden_keys(time, mask, causal=self.causal)
        attended = np.empty((rows, time, width), x.dtype)
        (seen,) = self._by_head(attended, 1)
        tiles = self._tiles(rows, time)
        weights = []
        for tile in tiles:
            p = np.matmul(q[tile], k[tile].swapaxes(2, 3))
            if hidden is not None:
                np.copyto(p, -np.inf, where=hidden[tile] if len(hidden) == rows else hidden)
            softmax(p)
            np.matmul(p, v[tile], out=seen[tile])
            weights.append(p)
        y = attended.reshape(rows * time, width) @ params["output_weight"]
        y += params["output_bias"]

        def backward(dy: Array, grads: Params) -> Array:
            """With D = dy W'^T by head: dV = P^T D, dS = P (D V^T - the sum over keys of P (D V^T)), dQ = dS K and
            dK = dS^T Q. The sum equals that of D times what was attended (Dao et al. 2022, appendix B.2).
            """
            flat_dy = dy.reshape(rows * time, features)
            np.matmul(attended.reshape(rows * time, width).T, flat_dy, out=grads["output_weight"])
            np.add.reduce(flat_dy, axis=0, out=grads["output_bias"])
            d = (flat_dy @ params["output_weight"].T).reshape(rows, time, width)
            (by_head,) = self._by_head(d, 1)
            d_projected = np.empty((rows, time, 3 * width), x.dtype)
            dq, dk, dv = self._by_head(d_projected, 3)
            for tile, p in zip(tiles, weights, strict=True):
                np.matmul(p.swapaxes(2, 3), by_head[tile], out=dv[tile])
                ds = np.matmul(by_head[tile], v[tile].swapaxes(2, 3))
                ds -= np.add.reduce(by_head[tile] * seen[tile], axis=3, keepdims=True)
                ds *= p
                np.matmul(ds, k[tile], out=dq[tile])
                np.matmul(ds.swapaxes(2, 3), q[tile], out=dk[tile])
            flat = d_projected.reshape(rows * time, 3 * width)
            flat[:, :width] *= scale
            np.matmul(flat_x.T, flat, out=grads["weight"])
            np.add.reduce(flat, axis=0, out=grads["bias"])
            return (flat @ params["weight"].T).reshape(x.shape) if input_gradient else dy

        return y.reshape(x.shape), backward

    def _size(self, features: int) -> int:
        return self.key_size or features // self.heads

    def _by_head(self, array: Array, blocks: int) -> Array:
        """Views (blocks, rows, heads, time, size) of an array (rows, time, blocks heads size)."""
        rows, time, width = array.shape
        return array.reshape(rows, time, blocks, self.heads, width // blocks // self.heads).transpose(2, 0, 3, 1, 4)

    def _tiles(self, rows: int, time: int) -> list[slice]:
        """Some rows after the other."""
        height = max(1, IN_CACHE // (self.heads * time * time))
        return [slice(start, start + height) for start in range(0, rows, height)]


def hidden_keys(time: int, mask: Array | None, *, causal: bool) -> Array | None:
    """What no place may look at, (rows or 1, 1, time or 1, time) for places along the third axis. None if all may."""
    later = np.triu(np.ones((time, time), np.bool_), 1)[np.newaxis, np.newaxis] if causal else None
    if mask is None:
        return later
    padded: Array = ~mask[:, np.newaxis, np.newaxis, :]
    return padded if later is None else padded | later


def softmax(scores: Array) -> None:
    """exp(s) / the sum of it, along the last axis and in place. Where everything is -inf it is 0."""
    largest = np.maximum.reduce(scores, axis=-1, keepdims=True)
    largest[largest == -np.inf] = 0
    scores -= largest
    np.exp(scores, out=scores)
    sums = np.add.reduce(scores, axis=-1, keepdims=True)
    sums[sums == 0] = 1
    scores /= sums
