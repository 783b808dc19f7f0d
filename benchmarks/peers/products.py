"""The matrix products of a case and nothing else: one of two processes with a thread each, half a batch in each.

    python -m benchmarks.peers.products CASE

What is left out is everything that isn't a product: activations, loss, data, exchange, average and optimizer.
"""

import sys
from itertools import pairwise

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.cases import CASES
from benchmarks.peers.turns import take_turns

PROCESSES = 2


def main(name: str) -> None:
    """Multiplies whenever asked to: forward, weight gradient and, but for the first layer, input gradient."""
    case = CASES[name]
    threadpool_limits(1)
    rng = np.random.default_rng(0)
    rows = case.batch // PROCESSES
    layers = []
    for inputs, outputs in pairwise(case.units):
        x, w, dy = (rng.random(shape, np.float32) for shape in ((rows, inputs), (inputs, outputs), (rows, outputs)))
        layers.append((x, w, dy, np.empty_like(dy), np.empty_like(w), np.empty_like(x)))

    def train(samples: int) -> int:
        steps = max(1, samples // case.batch)
        for _ in range(steps):
            for x, w, _, y, _, _ in layers:
                np.matmul(x, w, out=y)
            for number, (x, w, dy, _, dw, dx) in reversed(list(enumerate(layers))):
                np.matmul(x.T, dy, out=dw)
                if number:
                    np.matmul(dy, w.T, out=dx)
        return steps * case.batch

    take_turns(train)


if __name__ == "__main__":
    main(sys.argv[1])
