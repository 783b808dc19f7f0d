"""scikit-learn's MLPClassifier, left to its own loop.

python -m benchmarks.peers.sklearn_mlp CASE
"""

import sys
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from benchmarks.cases import CASES
from benchmarks.peers.turns import take_turns


def main(name: str) -> None:
    """Trains whenever asked to."""
    case = CASES[name]
    rng = np.random.default_rng(0)
    x = rng.random((case.rows, case.units[0]), np.float32)
    y = rng.integers(case.units[-1], size=case.rows)
    warnings.simplefilter("ignore", ConvergenceWarning)

    def train(samples: int) -> int:
        epochs = max(1, samples // case.rows)
        model = MLPClassifier(
            case.units[1:-1],
            solver=case.optimizer,
            alpha=0.0,
            batch_size=case.batch,
            learning_rate_init=case.learning_rate,
            max_iter=epochs,
            tol=0.0,
            n_iter_no_change=epochs + 1,
        )
        model.fit(x, y)
        return epochs * case.rows

    take_turns(train)


if __name__ == "__main__":
    main(sys.argv[1])
