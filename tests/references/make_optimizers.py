"""Writes optimizers.npz: what PyTorch's optimizers and schedules make of given gradients and losses, in float64.

python -m tests.references.make_optimizers      with PyTorch installed; made with 2.13
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

FILE = Path(__file__).with_name("optimizers.npz")
STEPS, EPOCHS, STEPS_PER_EPOCH = 25, 8, 5
RATE = 0.05

RULES: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, RATE),
    "l2": lambda p: torch.optim.SGD([{"params": p[:1], "weight_decay": 0.1}, {"params": p[1:]}], RATE),
    "momentum": lambda p: torch.optim.SGD(p, RATE, momentum=0.9),
    "nesterov": lambda p: torch.optim.SGD(p, RATE, momentum=0.8, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, RATE),
    "adamw": lambda p: torch.optim.AdamW([{"params": p[:1]}, {"params": p[1:], "weight_decay": 0.0}], RATE),
    "adagrad": lambda p: torch.optim.Adagrad(p, RATE),
    "rmsprop": lambda p: torch.optim.RMSprop(p, RATE),
    "centered": lambda p: torch.optim.RMSprop(p, RATE, alpha=0.9, centered=True),
    "rmsprop_momentum": lambda p: torch.optim.RMSprop(p, RATE, momentum=0.7),
    "clip_norm": lambda p: torch.optim.SGD(p, RATE),
    "clip_value": lambda p: torch.optim.SGD(p, RATE),
}
"""The first parameter is a matrix and the second a vector, which isn't decayed."""

CLIPS: dict[str, Callable[[Any], Any]] = {
    "clip_norm": lambda p: torch.nn.utils.clip_grad_norm_(p, 1.5),
    "clip_value": lambda p: torch.nn.utils.clip_grad_value_(p, 0.5),
}

schedules = torch.optim.lr_scheduler
BY_STEP: dict[str, Callable[[Any], Any]] = {
    "cosine": lambda o: schedules.CosineAnnealingLR(o, EPOCHS * STEPS_PER_EPOCH, eta_min=0.1),
    "one_cycle": lambda o: schedules.OneCycleLR(o, 1.0, total_steps=EPOCHS * STEPS_PER_EPOCH),
}
BY_EPOCH: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: schedules.StepLR(o, 3, gamma=0.5),
    "milestones": lambda o: schedules.MultiStepLR(o, [2, 3, 7], gamma=0.1),
    "exponential": lambda o: schedules.ExponentialLR(o, 0.9),
}
LOSSES = [5.0, 4.0, 4.0, 4.5, 3.95, 3.0, 3.1, 3.2, 3.3, 3.4, 3.5, 3.6, 2.0, 2.1]


def walked(name: str, start: Any, gradients: Any) -> Iterator[Any]:
    """The parameters after each step, matrix and vector in a row."""
    params = [torch.nn.Parameter(torch.tensor(part)) for part in (start[:6].reshape(3, 2), start[6:])]
    optimizer = RULES[name](params)
    for gradient in gradients:
        params[0].grad, params[1].grad = torch.tensor(gradient[:6].reshape(3, 2)), torch.tensor(gradient[6:])
        if clip := CLIPS.get(name):
            clip(params)
        optimizer.step()
        yield np.concatenate([param.detach().numpy().ravel() for param in params])


def rates(make: Callable[[Any], Any], count: int) -> list[float]:
    """The learning rate of so many steps, of a rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    schedule, found = make(optimizer), []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def plateau() -> list[float]:
    """The learning rate after each of LOSSES."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    # PyTorch waits until there were more than `patience` epochs, Chainrule until there were as many.
    schedule = schedules.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=1, threshold=0.1, threshold_mode="abs", min_lr=0.2
    )
    found = []
    for loss in LOSSES:
        schedule.step(loss)
        found.append(optimizer.param_groups[0]["lr"])
    return found


def main() -> None:
    """Writes the file."""
    random = np.random.default_rng(5)
    start, gradients = random.standard_normal(8), random.standard_normal((STEPS, 8))
    results: dict[str, Any] = {f"rule.{name}": np.array(list(walked(name, start, gradients))) for name in RULES}
    results |= {f"rate.{name}": np.array(rates(make, EPOCHS * STEPS_PER_EPOCH)) for name, make in BY_STEP.items()}
    results |= {f"rate.{name}": np.array(rates(make, EPOCHS)) for name, make in BY_EPOCH.items()}
    np.savez_compressed(FILE, start=start, gradients=gradients, losses=LOSSES, plateau=plateau(), **results)


if __name__ == "__main__":
    main()
