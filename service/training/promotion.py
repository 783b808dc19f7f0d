"""Models of checkpoints: what a job had learned by some step, to be used like what it ends with.

A copy in the registry and not a view of the checkpoint, since models never change and checkpoints come and go.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from service.access.principals import caller
from service.errors import AlreadyExists, FailedPrecondition, NotFound
from service.jobs.events import LearningRateChanged
from service.jobs.jobs import Jobs
from service.models.blueprint import Blueprint
from service.models.registry import Model, Models, Origin
from service.training.checkpoints import Checkpoints, Saved
from service.training.state import TrainingState
from service.training.wishes import known_rates
from worker.arrays import Shape
from worker.network import Network

LATEST, BEST = "@latest", "@best"
MOST_LOOKS = 3
"""How often to look for a checkpoint that moves on while it is looked for."""


def with_rates(origin: Origin, rates: tuple[LearningRateChanged, ...], steps: int) -> Origin:
    """The origin of parameters after so many steps, with the learning rates that these were taken with."""
    held = tuple((change.step, change.learning_rate) for change in rates if change.step < steps)
    return replace(origin, rates=held)


@dataclass(frozen=True)
class Promotion:
    """Makes models of checkpoints."""

    models: Models
    jobs: Jobs
    directory: Path
    """Below which each job has its checkpoints."""
    read: Callable[[str, Shape], Network]
    """Makes a network of a model's layers in JSON and its input shape."""

    def saved(self, job_id: str) -> list[Saved]:
        """The checkpoints that a job has now, the newest first. Raises NotFound."""
        self.jobs.get(job_id)
        return Checkpoints(self.directory / job_id).saved()

    def make(self, job_id: str, which: str, model_id: str = "") -> Model:
        """A model of a job's checkpoint: that of a step, "@latest" or "@best".

        If the same call made it before, it is returned as it is. Raises NotFound, FailedPrecondition, AlreadyExists.
        """
        job = self.jobs.get(job_id)
        if made := self._made(job_id, which, model_id):  # the checkpoint itself may be gone since
            return made
        state = self._state(job_id, which)
        blueprint = Blueprint.read(self.directory / job_id)
        network = self.read(blueprint.layers_json, blueprint.input_shape) if blueprint else None
        if blueprint is None or network is None or network.size != state.params.size:
            raise FailedPrecondition(
                f"{job.name} was trained by an older version, which didn't write down what makes a model of its "
                "checkpoints; one that goes on does",
                reason="CHECKPOINT_TOO_OLD",
            )
        model_id = model_id or f"{job_id}-{state.step}"
        best = state.best_epoch if state.best_epoch and state.best_epoch.step == state.step else None
        return self.models.add(
            model_id,
            network,
            blueprint.layers_json,
            state.params,
            (best.validation_loss, best.validation_accuracy, best.validation_scores) if best else (None, None, {}),
            datetime.now(UTC),
            blueprint.input_column,
            with_rates(blueprint.origin, known_rates(job.rates, state.unacknowledged), state.step),
            caller().name,
            (job_id, state.step),
        )

    def _made(self, job_id: str, which: str, model_id: str) -> Model | None:
        """What the same call made. Raises AlreadyExists if the id is another model's."""
        model_id = model_id or ("" if which in (LATEST, BEST) else f"{job_id}-{which}")
        if not model_id:
            return None
        if self.jobs.has(model_id):
            raise AlreadyExists(
                f"models/{model_id} is the model of jobs/{model_id}; choose another id", reason="MODEL_EXISTS"
            )
        try:
            made = self.models.get(model_id)
        except NotFound:
            return None
        if (
            made.checkpoint is None
            or made.checkpoint[0] != job_id
            or which not in (LATEST, BEST, str(made.checkpoint[1]))
        ):
            self.models.check_free(model_id)
        return made

    def _state(self, job_id: str, which: str) -> TrainingState:
        """What a checkpoint holds. Raises NotFound, or FailedPrecondition if it is damaged."""
        checkpoints = Checkpoints(self.directory / job_id)
        name = f"jobs/{job_id}/checkpoints/{which}"
        for _ in range(MOST_LOOKS):
            wanted = (saved for saved in checkpoints.saved() if which in (LATEST, str(saved.step)))
            if which == BEST:
                wanted = (saved for saved in checkpoints.saved() if saved.best)
            if (found := next(wanted, None)) is None:
                break
            try:
                return checkpoints.read(found)
            except FileNotFoundError:  # given way to newer ones meanwhile
                continue
            except ValueError:
                raise FailedPrecondition(f"{name} is damaged; take another", reason="CHECKPOINT_DAMAGED") from None
        raise NotFound(name)
