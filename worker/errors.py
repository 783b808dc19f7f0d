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
    several and the number of the one.
    """

    def __init__(self, path: tuple[tuple[str, int], ...], problem: str) -> None:
        super().__init__(f"{'.'.join(f'{field}[{index}]' for field, index in path)}: {problem}")
        self.path = path
        self.problem = problem

    def within(self, field: str, index: int) -> "ShapeMismatch":
        """The same, seen from one level further out."""
        return ShapeMismatch(((field, index), *self.path), self.problem)


class TargetMismatch(ValueError):
    """A target column that the loss cannot be held against."""
