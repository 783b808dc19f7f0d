"""What people read beside the loss.

A score is a sum over rows, like everything a shard returns; the sums of all shards are divided by their rows once, so
the score is exact for any split.
"""

import numpy as np

from worker.arrays import Array


def correct(outputs: Array, targets: Array) -> float:
    """How many rows have their largest output at the target's class: accuracy, before it is divided by the rows.

    `outputs` (rows, classes), `targets` (rows,) integers.
    """
    return float(np.count_nonzero(outputs.argmax(axis=1) == targets))
