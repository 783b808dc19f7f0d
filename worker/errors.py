"""What the numerics refuse.

    InvalidValue    a hyper-parameter outside its range; names the field
    ShapeMismatch   a layer that cannot take what reaches it; says where the layer is
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
    """A layer that cannot take the shape that reaches it.

    `path` leads to it from the network: (("layers", 3), ("branches", 1), ("layers", 0)), each step a field that holds
    several and the number of the one. `field` is that of the layer's own that doesn't fit the shape, if it is one's
    fault.
    """

    def __init__(self, path: tuple[tuple[str, int], ...], problem: str, field: str = "") -> None:
        where = [f"{name}[{index}]" for name, index in path] + ([field] if field else [])
        super().__init__(f"{'.'.join(where)}: {problem}")
        self.path = path
        self.problem = problem
        self.field = field

    def within(self, field: str, index: int) -> "ShapeMismatch":
        """The same, seen from one level further out."""
        return ShapeMismatch(((field, index), *self.path), self.problem, self.field)


class TargetMismatch(ValueError):
    """A target column that the loss cannot be held against."""
