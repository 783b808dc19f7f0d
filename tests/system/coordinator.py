"""A real coordinator, and the job that most tests give it."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict
from prometheus_client.parser import text_string_to_metric_families

from chainrule import Client
from chainrule.coordinator import service_command
from chainrule.v1.training_event_pb2 import TrainingEvent
from chainrule.v1.training_job_pb2 import TrainingJobSpec
from tests.system.processes import Program, started, until

EPOCHS = 25
STEPS = EPOCHS * 23
"""1,438 of the 1,797 digits, 64 a step."""

LONG = 300
"""Epochs of a job that is not over before a test gets to disturb it, however busy the machine."""


def digits(**fields: Any) -> TrainingJobSpec:
    """A job of some seconds, long enough to be disturbed."""
    return ParseDict(
        {
            "data": {"dataset": "datasets/digits"},
            "network": {"layers": [{"dense": {"units": 48}}, {"relu": {}}, {"dense": {"units": 10}}]},
            "loss": {"softmax_cross_entropy": {}},
            "optimizer": {"learning_rate": 0.003},
            "epochs": EPOCHS,
            "seed": 7,
            **fields,
        },
        TrainingJobSpec(),
    )


@dataclass(frozen=True)
class Coordinator:
    """One that is ready."""

    program: Program
    grpc: str
    metrics: str
    data_dir: str

    @cached_property
    def client(self) -> Client:
        """A client of it, which is closed with it."""
        return Client(self.grpc)

    def workers(self) -> list[int]:
        """The processes of its workers."""
        return self.program.named("ray::Worker")

    def serving(self) -> list[int]:
        """Those of its workers that are at work on a job."""
        return self.program.named("ray::Worker.serve")

    def scrape(self) -> str:
        """Its metrics, as Prometheus gets them."""
        with urllib.request.urlopen(self.metrics, timeout=10) as response:  # noqa: S310 - its own http URL
            body: bytes = response.read()
        return body.decode()

    def sample(self, name: str, **labels: str) -> float | None:
        """A value from its metrics; None if there is none with these labels."""
        for family in text_string_to_metric_families(self.scrape()):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return None


@contextmanager
def running(data_dir: Path, *options: str) -> Iterator[Coordinator]:
    """A coordinator on free ports. At the end its standard input closes, and that is its end."""
    command = service_command(
        *("--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data-dir", str(data_dir)),
        *("--announce", "--until-stdin-closes", *options),
    )
    with started(command, data_dir.with_name(f"{data_dir.name}-output")) as program:
        until(lambda: program.stdout.endswith("\n") or program.has_ended())
        assert program.stdout, program.stderr
        coordinator = Coordinator(program, **json.loads(program.stdout))
        with coordinator.client:
            yield coordinator


def states(events: list[TrainingEvent]) -> list[str]:
    """The names of the states that a job went through."""
    return [
        event.state_changed.DESCRIPTOR.fields_by_name["state"]
        .enum_type.values_by_number[event.state_changed.state]
        .name
        for event in events
        if event.HasField("state_changed")
    ]


def story(client: Client, name: str) -> list[TrainingEvent]:
    """All events of a job, from its first to its last, for which it waits; checks how they are numbered."""
    events = [update for update in client.watch(name) if isinstance(update, TrainingEvent)]
    assert [event.number for event in events] == list(range(1, len(events) + 1))
    return events
