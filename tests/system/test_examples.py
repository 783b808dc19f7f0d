"""Every example runs through the real product, and comes to the same bits with 1, 2 or 3 workers.

Each is shortened, and learns from meaningless numbers where its data would have to be fetched. What they reach in full
is printed by `make examples`.
"""

from collections.abc import Iterator

import pytest

from chainrule import Client
from chainrule.v1.training_job_pb2 import TrainingJob
from examples.catalog import EXAMPLES, FOLDER, Example
from examples.running import Outcome, Runner
from tests.api.running import serving
from tests.system.coordinator import Coordinator

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


class Rehearsal:
    """Runs examples shortened, those first whose models others start from."""

    def __init__(self, client: Client) -> None:
        self._runner = Runner(client, short=True, stand_in=True)
        self._models: dict[str, str] = {}

    def run(self, example: Example, workers: int) -> Outcome:
        if example.after and example.after not in self._models:
            self.run(EXAMPLES[example.after], workers)
        outcome = self._runner.run(example, self._models, workers)
        self._models[example.name] = outcome.job.result.model
        return outcome


@pytest.fixture(scope="module")
def with_ray(coordinator: Coordinator) -> Rehearsal:
    """On a coordinator as a user starts it."""
    return Rehearsal(coordinator.client)


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rehearsal]:
    """On a coordinator in this process, whose workers are threads."""
    with serving(tmp_path_factory.mktemp("examples")) as service, Client(service.addresses["grpc"]) as client:
        yield Rehearsal(client)


def test_every_job_file_is_in_the_catalog() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_comes_to_the_same_bits_with_1_2_and_3_workers(
    with_ray: Rehearsal, in_process: Rehearsal, name: str
) -> None:
    outcome = with_ray.run(EXAMPLES[name], 3)
    assert outcome.job.state == TrainingJob.SUCCEEDED, outcome.job.error
    assert outcome.score is not None
    others = [in_process.run(EXAMPLES[name], workers).job.result.parameters_sha256 for workers in (1, 2)]
    assert others == [outcome.job.result.parameters_sha256] * 2
