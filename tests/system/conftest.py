"""One coordinator for most of this folder: it takes seconds to start."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from chainrule import Client
from chainrule.samples import make_sample
from chainrule.v1.training_job_pb2 import TrainingJob
from tests.system.coordinator import LONG, Coordinator, digits, running


@pytest.fixture(scope="package")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coordinator]:
    """A coordinator with room for eight workers, which has the digits."""
    with running(tmp_path_factory.mktemp("coordinator") / "data", "--local-workers", "8") as started:
        started.client.upload_dataset(make_sample("digits"), "digits")
        yield started


@pytest.fixture
def client(coordinator: Coordinator) -> Client:
    """A client of the coordinator."""
    return coordinator.client


@pytest.fixture(scope="package")
def undisturbed(coordinator: Coordinator) -> TrainingJob:
    """The job `digits()` as it ends if nothing happens."""
    return coordinator.client.wait(coordinator.client.create_job(digits()).name)


@pytest.fixture(scope="package")
def quiet(coordinator: Coordinator) -> TrainingJob:
    """The job `digits(epochs=LONG)` as it ends if nothing happens."""
    return coordinator.client.wait(coordinator.client.create_job(digits(epochs=LONG)).name)


@pytest.fixture(scope="package")
def until_the_end() -> Iterator[ExitStack]:
    """Contexts that are left after all tests of the folder."""
    with ExitStack() as stack:
        yield stack
