"""Makes losses.npz: what PyTorch computes. Needs torch; run as `python -m tests.references.make_losses`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - its usual name

ROWS, TIME, CLASSES = 6, 4, 4
WEIGHTS = torch.tensor([0.5, 2.0, 1.25, 3.0], dtype=torch.float64)


def main() -> None:
    """Writes the file beside this one."""
    random = np.random.default_rng(12)
    logits = random.standard_normal((ROWS, CLASSES)) * 2
    classes = np.array([0, 3, 1, 1, 2, 0])
    sequences = random.standard_normal((3, TIME, CLASSES)) * 2
    words = random.integers(CLASSES, size=(3, TIME))
    words[1, 3] = -1
    answers = random.integers(2, size=(ROWS, CLASSES))
    numbers = random.standard_normal((ROWS, CLASSES)) * 2

    def of_words(x: Any, y: Any, **options: Any) -> Any:
        return F.cross_entropy(x.reshape(-1, CLASSES), y.reshape(-1), ignore_index=-1, **options)

    def binary(x: Any, y: Any, **options: Any) -> Any:
        return F.binary_cross_entropy_with_logits(x, y.double(), **options)

    pos_weight = torch.full((CLASSES,), 2.5, dtype=torch.float64)
    cases: dict[str, tuple[Callable[..., Any], Any, Any, dict[str, Any]]] = {
        "cross_entropy": (F.cross_entropy, logits, classes, {}),
        "cross_entropy_weighted": (F.cross_entropy, logits, classes, {"weight": WEIGHTS}),
        "cross_entropy_smoothed": (F.cross_entropy, logits, classes, {"label_smoothing": 0.2}),
        "cross_entropy_both": (F.cross_entropy, logits, classes, {"weight": WEIGHTS, "label_smoothing": 0.2}),
        "sequences": (of_words, sequences, words, {}),
        "sequences_weighted": (of_words, sequences, words, {"weight": WEIGHTS, "label_smoothing": 0.2}),
        "binary": (binary, logits, answers, {}),
        "binary_weighted": (binary, logits, answers, {"pos_weight": pos_weight}),
        "squared": (F.mse_loss, logits, numbers, {}),
        "absolute": (F.l1_loss, logits, numbers, {}),
        "huber": (F.huber_loss, logits, numbers, {"delta": 0.8}),
        # PyTorch divides each row's sum by the number of classes.
        "hinge_all": (lambda x, y: F.multi_margin_loss(x, y) * CLASSES, logits, classes, {}),
    }
    made: dict[str, Any] = {}
    for name, (function, outputs, targets, options) in cases.items():
        x = torch.tensor(outputs, dtype=torch.float64, requires_grad=True)
        loss = function(x, torch.tensor(targets), **options)
        loss.backward()
        arrays = {"outputs": outputs, "targets": targets, "loss": loss.detach().numpy(), "gradient": x.grad.numpy()}
        made |= {f"{name}.{key}": array for key, array in arrays.items()}
    np.savez_compressed(Path(__file__).with_name("losses.npz"), **made)


if __name__ == "__main__":
    main()
