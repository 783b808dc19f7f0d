"""What the numerics refuse.

    InvalidValue    a hyper-parameter outside its range; names the field
    ShapeMismatch   a layer that cannot take what reaches it; names the layer
    TargetMismatch  a target column that the loss cannot be held against

They carry the place as data, so that whoever knows the path from the request down to it can put it in front.
"""


class InvalidValue(ValueError):
    """A hyper-parameter outside its range."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class ShapeMismatch(ValueError):
    """A layer that cannot take the shape that reaches it."""

    def __init__(self, layer: int, problem: str) -> None:
        super().__init__(f"layers[{layer}]: {problem}")
        self.layer = layer
        self.problem = problem


class TargetMismatch(ValueError):
    """A target column that the loss cannot be held against."""
