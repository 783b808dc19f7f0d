"""What follows from the number of a step: its learning rate, and the update that it belongs to.

A step is a mini-batch. Where several share an update, the last of them makes it, as does the last of an epoch: so
nothing is carried over into the next epoch, and updates can be counted without having been counted.
"""

from dataclasses import dataclass

from service.jobs.events import LearningRateChanged
from service.jobs.spec import JobSpec

MOST_UPDATES = 2048
"""At the most so many updates lie between two looks at the layers. A look costs the shortest steps as much as
five of them, and long ones a small part of one."""


@dataclass(frozen=True)
class Pace:
    """Pure functions of the number of a step, counted from 0 over all epochs."""

    spec: JobSpec
    steps_per_epoch: int
    rates: tuple[LearningRateChanged, ...] = ()
    """Learning rates that hold in place of the specification's, in the order in which they were asked for."""

    @property
    def total_steps(self) -> int:
        """How many steps there are at the most."""
        return self.steps_per_epoch * self.spec.epochs

    def base(self, step: int) -> float:
        """The learning rate before its schedule: of those that hold by then, the one that was asked for last."""
        held = (change.learning_rate for change in reversed(self.rates) if change.step <= step)
        return next(held, self.spec.learning_rate)

    def rate(self, step: int) -> float:
        """The learning rate that the schedule says."""
        return self.base(step) * self.spec.schedule.at(step, self.steps_per_epoch, self.total_steps)

    def ends_update(self, step: int) -> bool:
        """Whether the parameters are updated at the end of the step."""
        done = step % self.steps_per_epoch + 1
        return done % self.spec.accumulate == 0 or done == self.steps_per_epoch

    def update(self, step: int) -> int:
        """The number of the update that a step belongs to, counted from 0."""
        epoch, within = divmod(step, self.steps_per_epoch)
        return epoch * self._updates_per_epoch + within // self.spec.accumulate

    def next_look(self, step: int) -> int:
        """The first step, from a given one on, in which the layers are looked at.

        Such a step makes an update; and that is among the first twenty, or of the later ones every second, fourth and
        so on, as their number doubles; or the last.
        """
        spacing = min(_spacing(number := self.update(step) + 1), MOST_UPDATES)
        epoch, within = divmod(-(-number // spacing) * spacing - 1, self._updates_per_epoch)
        last = min((within + 1) * self.spec.accumulate, self.steps_per_epoch)
        return min(epoch * self.steps_per_epoch + last, self.total_steps) - 1

    def is_told(self, step: int) -> bool:
        """Whether such a look becomes an event: ever fewer do, 10 to 20 every time that the number of steps doubles."""
        number = self.update(step) + 1
        return number % _spacing(number) == 0 or step + 1 == self.total_steps

    @property
    def _updates_per_epoch(self) -> int:
        return -(-self.steps_per_epoch // self.spec.accumulate)


def _spacing(number: int) -> int:
    """How far apart the looks are around an update, counted from 1, at the least."""
    return 1 << max((number // 10).bit_length() - 1, 0)
