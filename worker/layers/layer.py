"""What a layer is: hyper-parameters without arrays, and a forward that returns its own backward.

The backward is a closure over what the forward computed, so that nothing has to be stored on the layer and the same
layer can be used by any number of threads at once (the form is thinc's and autograd's).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from worker.arrays import Array, Shape
from worker.initializers import Initializer

Params: TypeAlias = Mapping[str, Array]
"""A layer's parameters, or their gradients, by name: views of the network's flat vector."""

Backward: TypeAlias = Callable[[Array, Params], Array]
"""`backward(dy, grads) -> dx`: fills every array of `grads` with dL/dparameter and returns dL/dx, where dy is dL/dy."""


@dataclass(frozen=True)
class Parameter:
    """One array that a layer learns."""

    shape: Shape
    initializer: Initializer
    fan_in: int = 1
    fan_out: int = 1


@dataclass(frozen=True)
class Context:
    """What a layer may know beyond its input."""

    input_gradient: bool = True
    """Whether anyone needs dx. The first layer's is never used, and for a dense layer it costs a third of the work."""


class Layer(Protocol):
    """A differentiable function of rows. Implementations are frozen dataclasses of hyper-parameters."""

    def output_shape(self, input_shape: Shape) -> Shape:
        """The shape of a row after the layer. Raises ValueError, saying what would fit, if it can't take the input."""

    def parameters(self, input_shape: Shape) -> Mapping[str, Parameter]:
        """What the layer learns, in the order in which it lies in the flat vector."""

    def forward(self, params: Params, x: Array, context: Context) -> tuple[Array, Backward]:
        """Computes y from x, both with a first axis of rows, and returns it with its backward."""
