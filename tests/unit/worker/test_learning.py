"""Real data, from the first parameters to a useful network: what no wrong gradient would reach."""

import numpy as np
from sklearn.datasets import load_digits

from worker.gradient import tree_sum
from worker.initializers import Initializer
from worker.layers import Dense, ReLU
from worker.losses import SoftmaxCrossEntropy
from worker.network import Network
from worker.shards import Shards
from worker.task import Data, Task

EPOCHS = 30
LEARNING_RATE = 0.2


def test_digits_by_plain_gradient_descent() -> None:
    images, classes = load_digits(return_X_y=True)
    data = Data((images / 16).astype(np.float32), classes)
    network = Network((Dense(64, Initializer.HE_UNIFORM), ReLU(), Dense(10)), (64,))
    task = Task(network, SoftmaxCrossEntropy(), Shards(len(images), 0.2, batch_size=32, shards=3, seed=13))
    params = network.initial(seed=13)
    for step in range(EPOCHS * task.shards.steps_per_epoch):
        total = tree_sum([task.gradient(data, params, step, shard) for shard in range(3)])
        params -= np.float32(LEARNING_RATE) / total.sums.count * total.vector
    held_out = tree_sum([task.evaluate(data, params, shard) for shard in range(3)])
    assert held_out.count == 359
    assert held_out.scores["accuracy"][0] / held_out.count >= 0.96
