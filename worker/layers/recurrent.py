"""Reading a sequence place by place: what the recurrent layers share.

Which way they read, what they hand on, and what they do at padded places. A layer adds how the state changes from one
place to the next. Inside, time is the first axis, so that what one place needs lies together.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from worker.arrays import Array, Rows, Shape, aligned
from worker.errors import InvalidValue
from worker.initializers import Initializer
from worker.layers.layer import Backward, Context, Parameter, Params
from worker.layers.pieces import in_pieces
from worker.layers.stack import part

LARGEST = 2_048
LONGEST = 10_000
MOST_STATES = 1_000_000
AT_ONCE, MOST_KEPT = 500_000, 8_000_000
"""How many numbers in states to compute at once where they are not kept, and how many to keep for the backward: for
each, an LSTM has a dozen."""

StatesBackward: TypeAlias = Callable[[Array, Params], Array | None]
"""`backward(dh, grads) -> dx` for dh (last places, rows, units): of as many of the last states as it is long. Fills
`grads`. Returns dx (time, rows, features), or None if nobody asked for it."""


@dataclass(frozen=True)
class Recurrent(ABC):
    """h_t = f(x_t, h_{t-1}) for x (rows, time, features), from h_0 = 0.

    y is the last state (rows, units), or with `return_sequences` all of them, (rows, time, units). `reverse` reads from
    the last place to the first, so that the last state is that of the first place; states stay where their places are.
    `bidirectional` reads both ways with parameters of their own, "forward.*" and "backward.*", and puts the states side
    by side (Schuster and Paliwal 1997): (rows, [time,] 2 units).

    At a padded place the state is carried on as it is. So the last state is that of the last place that is not padded,
    all states at padded places repeat the one before them, and a row that is all padding has zeros.
    """

    units: int
    return_sequences: bool = False
    reverse: bool = False
    bidirectional: bool = False
    initializer: Initializer = Initializer.GLOROT_UNIFORM
    """Of what is multiplied with x."""
    recurrent_initializer: Initializer = Initializer.ORTHOGONAL
    """Of what is multiplied with the state, all gates side by side as one matrix: orthonormal rows keep its length."""

    def __post_init__(self) -> None:
        if not 1 <= self.units <= LARGEST:
            raise InvalidValue("units", f"is {self.units}; must be 1 to {LARGEST:,}")
        if self.reverse and self.bidirectional:
            raise InvalidValue("reverse", "is set beside bidirectional, which reads both ways; set one of them")

    def output_shape(self, input_shape: Shape) -> Shape:
        time, _ = sequence(input_shape, "a recurrent layer", LONGEST)
        width = self.units * len(self._ways)
        if time * width > MOST_STATES:
            raise ValueError(
                f"a recurrent layer of {width:,} units makes {time * width:,} numbers of a row of shape {input_shape}; "
                f"must be at most {MOST_STATES:,}: use fewer units or shorter sequences"
            )
        return (time, width) if self.return_sequences else (width,)

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        own = self._parameters(input_shape[1])
        return {f"{way}.{key}" if way else key: value for way in self._ways for key, value in own.items()}

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        rows, time, _ = x.shape
        if context.draw is not None and rows * time * self.units <= MOST_KEPT:
            read = self._keeping(params, x, context.given(x), input_gradient=context.input_gradient)
        else:
            read = in_pieces(self._keeping, params, x, context, max(1, AT_ONCE // (time * self.units)))
        if not self.return_sequences:
            context.mask = None
        return read

    def _keeping(self, params: Params, x: Array, mask: Array | None, *, input_gradient: bool) -> tuple[Array, Backward]:
        """y, and a backward over all that was computed on the way."""
        places = x.swapaxes(0, 1)
        outputs, backwards = [], []
        for way, turn in self._ways.items():
            still = padded_rows(mask, len(places))[::turn]
            own = part(params, way) if way else params
            states, back = self._read(own, places[::turn], still, input_gradient=input_gradient)
            outputs.append(states[::turn].swapaxes(0, 1) if self.return_sequences else states[-1])
            backwards.append(back)

        def backward(dy: Array, grads: Params) -> Array:
            dh = dy.swapaxes(0, 1) if self.return_sequences else dy[np.newaxis]
            dx = np.zeros((), dy.dtype)
            for index, (way, turn) in enumerate(self._ways.items()):
                own = dh[::turn, :, index * self.units : (index + 1) * self.units]
                of_way = backwards[index](own, part(grads, way) if way else grads)
                if of_way is not None:
                    dx = dx + of_way[::turn] if dx.ndim else of_way[::turn]
            return np.ascontiguousarray(dx.swapaxes(0, 1)) if dx.ndim else dy

        return np.concatenate(outputs, axis=-1), backward

    @property
    def _ways(self) -> Mapping[str, int]:
        """The step through time of each pass, by what its parameters' names begin with."""
        return {"forward": 1, "backward": -1} if self.bidirectional else {"": -1 if self.reverse else 1}

    @abstractmethod
    def _parameters(self, features: int) -> Mapping[str, Parameter]:
        """What one pass learns."""

    @abstractmethod
    def _read(
        self, params: Params, x: Array, still: Sequence[Rows], *, input_gradient: bool
    ) -> tuple[Array, StatesBackward]:
        """Reads x (time, rows, features) from its first place to its last.

        `still` are the rows that are padded, place by place. Returns the states (time, rows, units).
        """

    def _matrices(self, features: int, gates: int) -> Mapping[str, Parameter]:
        """W (features, gates units) and U (units, gates units)."""
        units = self.units
        return {
            "weight": Parameter((features, gates * units), self.initializer, fan_in=features, fan_out=units),
            "recurrent_weight": Parameter(
                (units, gates * units), self.recurrent_initializer, fan_in=units, fan_out=units
            ),
        }


def sequence(input_shape: Shape, what: str, longest: int) -> tuple[int, int]:
    """(time, features) of rows that are sequences. Raises ValueError for any other, and for those too long."""
    if len(input_shape) != 2 or 0 in input_shape:
        raise ValueError(
            f"{what} takes rows of shape (time, features), both at least 1, but rows of shape {input_shape} reach it"
        )
    time, features = input_shape
    if time > longest:
        raise ValueError(f"{what} takes sequences of at most {longest:,} places, but {time:,} reach it; cut them up")
    return time, features


def padded_rows(mask: Array | None, time: int) -> list[Rows]:
    """The rows that are padded, for each place in time."""
    return [np.flatnonzero(~of_place) for of_place in mask.T] if mask is not None else [np.empty(0, np.intp)] * time


def joined(x: Array, units: int) -> tuple[Array, Array]:
    """Room for [x_t, h_{t-1}, 1], (time + 1, rows, features + units + 1), and the h in it, of which the first is 0.

    One product with [W; U; b] then does the work of two and a sum; and all gradients are one product at the end.
    """
    time, rows, features = x.shape
    both = aligned((time + 1, rows, features + units + 1), x.dtype)
    both[:-1, :, :features] = x
    both[:, :, -1] = 1
    h = both[:, :, features:-1]
    h[0] = 0
    return both, h


def sigmoid(x: Array, out: Array) -> None:
    """1 / (1 + exp(-x)) = (1 + tanh(x / 2)) / 2 into `out`, which may be x. NumPy's tanh takes half the time of exp."""
    np.multiply(x, 0.5, out=out)
    np.tanh(out, out=out)
    out *= 0.5
    out += 0.5
