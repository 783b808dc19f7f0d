"""The networks that are measured, and what is to be reached on each.

Imported by every process that takes part, whatever is installed there: standard library alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Case:
    """A network of dense layers with ReLU between them, trained on synthetic rows.

    With `filters`, rows are square images of one channel, and before the dense layers come convolutions of 3x3, each
    with ReLU and a maximum over 2x2 behind it. With `length`, rows are words, which meet an embedding and an LSTM.
    """

    name: str
    units: tuple[int, ...]
    """Features of a row, then units of each layer. For words: their number, size of embedding, of the LSTM, classes."""
    batch: int
    optimizer: str
    """ "sgd" or "adam", with their usual learning rates."""
    rows: int
    targets: Mapping[str, float] = field(default_factory=dict)
    """Contender by contender, how many times its samples a second ours must reach."""
    filters: tuple[int, ...] = ()
    """Of each convolution."""
    with_sklearn: bool = False
    with_plain_ray: bool = False
    length: int = 0
    """How many words a row has; 0 for rows of features."""

    @property
    def title(self) -> str:
        """As in the tables."""
        if self.length:
            _, size, units, classes = self.units
            words = f"embedding {size} - LSTM {units} - {classes}"
            return f"{words}, length {self.length}, batch {self.batch}, {self.optimizer}"
        convolutions = [f"conv{filters}-pool" for filters in self.filters]
        layers = [str(self.units[0]), *convolutions, *map(str, self.units[1:])]
        return f"{'-'.join(layers)}, batch {self.batch}, {self.optimizer}"

    @property
    def side(self) -> int:
        """Height and width of an image."""
        return math.isqrt(self.units[0])

    @property
    def learning_rate(self) -> float:
        """Small, so that no run of any length diverges."""
        return 0.01 if self.optimizer == "sgd" else 0.001


DDP = "torch DDP, 2 processes"
TORCH = "torch, 1 process, 2 threads"
SKLEARN = "scikit-learn"
PLAIN_RAY = "plain Ray calls, 2 actors"
PRODUCTS = "matrix products alone, 2 processes"
OURS = "chainrule, 2 workers"

SMALL_ROWS = 64_000
"""Rows of 64 features: 16 MB."""

IMAGE_ROWS = 15_360
"""Rows of 784 features: 48 MB, and a whole number of batches."""

TEXT_ROWS = 6_400
"""Rows of 50 words, of which a worker gets through some thousands a second."""

CASES: Mapping[str, Case] = MappingProxyType(
    {
        case.name: case
        for case in (
            Case("small-adam", (64, 32, 10), 64, "adam", SMALL_ROWS, {DDP: 5.0, TORCH: 1.0}, with_sklearn=True),
            Case(
                "image-sgd",
                (784, 256, 128, 10),
                256,
                "sgd",
                IMAGE_ROWS,
                {DDP: 2.5, TORCH: 1.0, PLAIN_RAY: 2.0},
                with_plain_ray=True,
            ),
            Case(
                "image-adam",
                (784, 256, 128, 10),
                256,
                "adam",
                IMAGE_ROWS,
                {DDP: 2.5, TORCH: 1.0, PLAIN_RAY: 2.0},
                with_sklearn=True,
                with_plain_ray=True,
            ),
            Case("image-sgd-1024", (784, 256, 128, 10), 1024, "sgd", IMAGE_ROWS, {DDP: 1.5, TORCH: 1.0}),
            Case("wide-adam-1024", (784, 1024, 1024, 10), 1024, "adam", IMAGE_ROWS, {DDP: 1.5, TORCH: 1.0}),
            Case("lstm-adam", (5000, 64, 128, 2), 128, "adam", TEXT_ROWS, {DDP: 1.2, TORCH: 1.0}, length=50),
            Case("cnn-adam", (784, 128, 10), 256, "adam", IMAGE_ROWS, {DDP: 1.3, TORCH: 1.0}, filters=(16, 32)),
        )
    }
)
