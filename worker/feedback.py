"""Alternatives to backpropagation: errors that come back by fixed random ways instead of by the weights themselves.

Backpropagation sends errors back through the transpose of every weight, which no nerve cell could know. A layer that is
given a fixed random matrix instead learns weights that fit it, so that the errors come to point the right way. The
matrices follow from the job's seed, so that all workers have the same.
"""

import math
from collections.abc import Mapping, Sequence
from enum import Enum

import numpy as np

from worker.arrays import Array, Shape
from worker.errors import ShapeMismatch
from worker.initializers import Initializer, initialize
from worker.layers import BatchNorm, Dense, GroupNorm, Layer, LayerNorm
from worker.seeds import Purpose, generator


class CreditAssignment(Enum):
    """How the share that a dense layer's input has in the loss is found, named as in the contract.

    With W (features, units), e the gradient of the network's outputs, and B random.
    """

    BACKPROPAGATION = "BACKPROPAGATION"
    """dx = dy W^T (Rumelhart, Hinton and Williams 1986)."""
    FEEDBACK_ALIGNMENT = "FEEDBACK_ALIGNMENT"
    """dx = dy B, with B (units, features) (Lillicrap et al. 2016)."""
    DIRECT_FEEDBACK_ALIGNMENT = "DIRECT_FEEDBACK_ALIGNMENT"
    """dx = e B, with B (outputs, features) (Nokland 2016)."""


def feedback_shapes(credit: CreditAssignment, layers: Sequence[Layer], shapes: Sequence[Shape]) -> Mapping[int, Shape]:
    """The shape of B for every layer that needs one, by the layer's number; `shapes` are those between the layers.

    Raises ShapeMismatch where a layer learns in a way that these rules say nothing of.
    """
    if credit is CreditAssignment.BACKPROPAGATION:
        return {}
    found: dict[int, Shape] = {}
    is_asked = False  # whether a layer before learns
    for index, (layer, shape, after) in enumerate(zip(layers, shapes, shapes[1:], strict=False)):
        learns = bool(layer.parameters(shape))
        if isinstance(layer, Dense):
            direct = credit is CreditAssignment.DIRECT_FEEDBACK_ALIGNMENT
            if is_asked:
                found[index] = (math.prod(shapes[-1]), math.prod(shape)) if direct else (after[-1], shape[-1])
        elif learns and not isinstance(layer, BatchNorm | LayerNorm | GroupNorm):
            raise ShapeMismatch(
                (("layers", index),),
                f"can't be trained by {credit.value}, which is for dense layers and what may stand between them: "
                "activations, dropout, normalisation; use BACKPROPAGATION",
            )
        is_asked = is_asked or learns
    return found


def draw_feedback(shapes: Mapping[int, Shape], seed: int, dtype: np.dtype[np.floating]) -> Mapping[int, Array]:
    """B for each layer's number, of variance 1 / (numbers it sums), so that errors keep their size on the way."""
    return {
        index: initialize(Initializer.LECUN_UNIFORM, generator(seed, Purpose.FEEDBACK, index), shape, *shape).astype(
            dtype
        )
        for index, shape in shapes.items()
    }
