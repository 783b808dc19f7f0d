"""What a report is made of: the job, all its events, and what is still there of its dataset and its model."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from chainrule.cli.follow import events_so_far
from chainrule.client import Client
from chainrule.errors import NotFound, PermissionDenied
from chainrule.v1.dataset_service_pb2 import Dataset
from chainrule.v1.model_service_pb2 import Model
from chainrule.v1.training_event_pb2 import EpochCompleted, TrainingEvent
from chainrule.v1.training_health_pb2 import Diagnosis, HealthSampled
from chainrule.v1.training_job_pb2 import TrainingJob


@dataclass(frozen=True)
class Finding:
    """Something that was wrong, and the step at which it no longer was, or not in the same way; None while it is."""

    diagnosis: Diagnosis
    until: int | None


@dataclass(frozen=True)
class History:
    """A job as far as it got."""

    job: TrainingJob
    events: Sequence[TrainingEvent]
    dataset: Dataset | None = None
    """None if it has been deleted, or may not be seen by whoever asks."""
    model: Model | None = None
    """None if there is none yet, or no longer, or as with the dataset."""

    @property
    def epochs(self) -> list[EpochCompleted]:
        """In order."""
        return [event.epoch_completed for event in self.events if event.HasField("epoch_completed")]

    @property
    def looks(self) -> list[HealthSampled]:
        """At the layers, in order."""
        return [event.health_sampled for event in self.events if event.HasField("health_sampled")]

    @property
    def findings(self) -> list[Finding]:
        """All that was ever wrong, in the order in which it was found."""
        return list(self._findings())

    def _findings(self) -> Iterator[Finding]:
        for index, event in enumerate(self.events):
            if event.HasField("diagnosed"):
                found = event.diagnosed.diagnosis
                yield Finding(found, self._end_of(found.trouble, index + 1))

    def _end_of(self, trouble: int, after: int) -> int | None:
        for event in self.events[after:]:
            if event.HasField("recovered") and event.recovered.trouble == trouble:
                return event.recovered.step
            if event.HasField("diagnosed") and event.diagnosed.diagnosis.trouble == trouble:
                return event.diagnosed.diagnosis.step
        return None


def collect(client: Client, name: str) -> History:
    """All that the service knows of a job at this moment. Raises NotFound if there is no such job."""
    events = list(events_so_far(client, name))
    job = client.get_job(name)
    dataset = model = None
    with suppress(NotFound, PermissionDenied):
        dataset = client.get_dataset(job.spec.data.dataset) if job.spec.data.dataset else None
    with suppress(NotFound, PermissionDenied):
        model = client.get_model(job.result.model) if job.result.model else None
    return History(job, events, dataset, model)
