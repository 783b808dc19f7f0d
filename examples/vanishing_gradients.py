"""Shows how gradients vanish on their way down through sigmoids, and how ReLU and residual blocks keep them.

    python examples/vanishing_gradients.py docs/vanishing-gradients.svg

Trains four networks of ten hidden layers each on the handwritten digits, and draws for each the norm of the gradient
of every layer's weights: before the first step, and at the end. A table of the same numbers is printed.
"""

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from chainrule.samples import make_sample
from service.training.optimizers import Sgd
from service.training.update import Update
from worker import scores
from worker.blocks import Block
from worker.gradient import Gradient, Sums, tree_sum
from worker.initializers import Initializer
from worker.layers import Dense, Layer, ReLU, Residual, Sigmoid, Tanh
from worker.losses import SoftmaxCrossEntropy
from worker.network import Network
from worker.shards import Shards
from worker.task import Data, Task

DEPTH, UNITS, EPOCHS, RATE, BATCH, SHARDS, SEED = 10, 32, 20, 0.1, 64, 4, 7


@dataclass(frozen=True)
class Run:
    """What one network's training showed."""

    name: str
    before: list[float]
    """The norm of the mean gradient of each dense layer's weights over all training rows, from the first layer on."""
    after: list[float]
    accuracy: float
    """On the held-out rows, at the end."""


def main() -> None:
    """Trains, prints, draws."""
    parser = argparse.ArgumentParser(description="Gradients by depth, for sigmoid, tanh, ReLU and residual blocks.")
    parser.add_argument("figure", type=Path, help="where to write the SVG")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help=f"default {EPOCHS}")
    arguments = parser.parse_args()
    glorot, he = Initializer.GLOROT_UNIFORM, Initializer.HE_NORMAL
    runs = [
        trained(
            "sigmoid", [layer for _ in range(DEPTH) for layer in (Dense(UNITS, glorot), Sigmoid())], arguments.epochs
        ),
        trained("tanh", [layer for _ in range(DEPTH) for layer in (Dense(UNITS, glorot), Tanh())], arguments.epochs),
        trained("ReLU", [layer for _ in range(DEPTH) for layer in (Dense(UNITS, he), ReLU())], arguments.epochs),
        trained("residual sigmoid", residual(), arguments.epochs),
    ]
    for run in runs:
        print(f"{run.name}: {run.accuracy:.1%} of the held-out digits after {arguments.epochs} epochs")
        print("  gradient norm by layer, before: " + " ".join(f"{norm:.1e}" for norm in run.before))
        print("  gradient norm by layer, after:  " + " ".join(f"{norm:.1e}" for norm in run.after))
    arguments.figure.write_text(drawn(runs))


def residual() -> list[Layer]:
    """The same sigmoids, each pair of layers with a way around it."""
    blocks = [Residual((Dense(UNITS), Sigmoid(), Dense(UNITS))) for _ in range((DEPTH - 1) // 2)]
    return [Dense(UNITS), Sigmoid(), *blocks]


def trained(name: str, hidden: list[Layer], epochs: int) -> Run:
    """Trains one network with plain gradient descent, every step in shards as a job's are."""
    columns = np.load(io.BytesIO(make_sample("digits")), allow_pickle=False)
    data = Data(columns["x"], columns["y"])
    network = Network((*hidden, Dense(10)), (64,))
    task = Task(network, SoftmaxCrossEntropy(), Shards(len(columns["x"]), 0.2, BATCH, SHARDS, SEED))
    params = network.initial(SEED)
    update = Update(network.size, params.dtype, network.learned)
    before = norms(task, data, params)
    for step in range(epochs * task.shards.steps_per_epoch):
        blocks = [Block(shard, 1, task.gradient(data, params, step, shard)) for shard in range(SHARDS)]
        update.apply(Sgd(), params, update.average(blocks, SHARDS), {}, RATE, step)
    sums: Sums = tree_sum([task.evaluate(data, params, shard) for shard in range(SHARDS)])
    return Run(name, before, norms(task, data, params), scores.values(task.scores, sums.scores)["accuracy"])


def norms(task: Task, data: Data, params: np.ndarray) -> list[float]:
    """The norm of the mean gradient of every weight matrix, over one epoch's rows at the same parameters."""
    steps = range(task.shards.steps_per_epoch)
    total: Gradient = tree_sum([task.gradient(data, params, step, shard) for step in steps for shard in range(SHARDS)])
    weights = [slot for slot in task.network.slots if slot.key.endswith("weight")]
    return [float(np.linalg.norm(slot.view(total.vector)) / total.sums.weight) for slot in weights]


WIDTH, HEIGHT, LEFT, TOP, GAP = 320, 220, 60, 50, 40
COLOURS = ("#c0392b", "#b9770e", "#1f618d", "#1e8449")


def drawn(runs: Sequence[Run]) -> str:
    """Two panels, before and after, on one logarithmic scale."""
    values = [norm for run in runs for norm in (*run.before, *run.after)]
    low, high = int(np.floor(np.log10(min(values)))), int(np.ceil(np.log10(max(values))))
    width, height = 2 * (LEFT + WIDTH) + GAP, TOP + HEIGHT + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        "<title>Norm of the gradient of each layer's weights, by depth</title>",
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for panel, title in enumerate(("before the first step", "after training")):
        left = LEFT + panel * (WIDTH + LEFT + GAP - LEFT // 2)
        parts.append(f'<text x="{left}" y="18" font-weight="bold">{title}</text>')
        for decade in range(low, high + 1):
            y = TOP + HEIGHT * (high - decade) / (high - low)
            parts.append(f'<path d="M{left} {y:.1f}h{WIDTH}" stroke="#ddd"/>')
            parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">1e{decade}</text>')
        for place, (run, colour) in enumerate(zip(runs, COLOURS, strict=True)):
            line = run.after if panel else run.before
            points = [
                (left + 10 + (WIDTH - 20) * at / (len(line) - 1), TOP + HEIGHT * (high - np.log10(y)) / (high - low))
                for at, y in enumerate(line)
            ]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
            label = f"{run.name}, {run.accuracy:.0%}" if panel else run.name
            parts.append(
                f'<text x="{left + 82 * place - 10}" y="38" font-size="10" fill="{colour}">{escape(label)}</text>'
            )
        below = TOP + HEIGHT + 20
        parts.append(f'<text x="{left}" y="{below}">first layer</text>')
        parts.append(f'<text x="{left + WIDTH}" y="{below}" text-anchor="end">last layer</text>')
    parts.append(
        f'<text x="{LEFT}" y="{height - 8}">Norm of the mean gradient of a layer\'s weights; '
        "handwritten digits, ten hidden layers, plain gradient descent.</text>"
    )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    main()
