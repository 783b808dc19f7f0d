"""Whatever a client sends, it gets an answer or a documented error, and nothing of the inside of the service."""

from collections.abc import Iterator

import grpc
import pytest

from chainrule.v1.training_job_pb2 import TrainingJob
from tests.api.predicting import infer, infer_request
from tests.api.running import X
from tests.fuzz.calling import METHODS, Outcome, call, no_thread_dies, problem, resident_bytes, tidy
from tests.fuzz.campaign import attack
from tests.fuzz.world import World, world

SEED = 1
CALLS = {
    "CreateTrainingJob": 250,
    "ModelInfer": 60,
    "UploadDataset": 60,
    "UploadModel": 60,
    "EvaluateModel": 40,
    "TrainOnline": 6,  # each of which wants a job of its own
}
FEW_CALLS = 15
MOST_GROWTH = 100 << 20
"""Of memory, over all calls: the sums of what they send are many times that."""

UNLIKE_OK = {"PauseTrainingJob", "ResumeTrainingJob", "CancelTrainingJob", "DeleteTrainingJob"}
"""Which of a job that has ended and one that is queued can only be done with one."""
USED = {"DeleteDataset", "DeleteModel"}
"""Which are refused while a job or an alias needs the thing."""

GET = "chainrule.v1.TrainingService/GetTrainingJob"
LIST = "chainrule.v1.TrainingService/ListTrainingJobs"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with no_thread_dies() as died, world(tmp_path_factory.mktemp("fuzz")) as made:
        yield made
    assert not died


@pytest.fixture(scope="module")
def memory(found: World) -> Iterator[None]:
    """Holds what all calls together may have added to the memory of the process."""
    for path in METHODS:
        attack(found, path, 2, SEED)
    before = resident_bytes()
    yield
    assert resident_bytes() - before < MOST_GROWTH


@pytest.mark.parametrize("path", METHODS)
def test_what_is_varied_was_good(path: str, found: World) -> None:
    for seed in found.seeds(METHODS[path]):
        outcome = call(found, path, [message.SerializeToString() for message in seed])
        tidy(found, path, outcome)
        expected = {grpc.StatusCode.OK}
        if METHODS[path].server_streaming:
            expected.add(grpc.StatusCode.DEADLINE_EXCEEDED)
        if METHODS[path].name in UNLIKE_OK | USED:
            expected.add(grpc.StatusCode.FAILED_PRECONDITION)
        if outcome.code not in expected and not found.knows(METHODS[path]):
            pytest.skip("tests/fuzz/world.py has no good call to it yet, and an empty message isn't one")
        assert outcome.code in expected, outcome


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize("path", METHODS)
def test_messages_that_are_almost_right(path: str, found: World) -> None:
    codes = attack(found, path, CALLS.get(METHODS[path].name, FEW_CALLS), SEED)
    if found.knows(METHODS[path]):
        assert len(codes) > 1, codes  # some are good and some are not


def test_after_all_that_it_works_as_ever(found: World) -> None:
    job = found.service.create()
    assert found.service.get(job.name).state == TrainingJob.QUEUED
    assert found.service.cancel(job.name).state == TrainingJob.CANCELLED
    assert infer(found.service, infer_request("@production", X)).outputs[0].shape == [len(X), 3]


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome(grpc.StatusCode.INTERNAL, "an error", "", "", []), "INTERNAL is no code"),
        (Outcome(grpc.StatusCode.UNKNOWN, "", "", "", []), "UNKNOWN is no code"),
        (Outcome(grpc.StatusCode.DEADLINE_EXCEEDED, "", "", "", []), "DEADLINE_EXCEEDED is no code"),
        (Outcome(grpc.StatusCode.NOT_FOUND, "there is no job", "", "", []), "without a reason"),
        (Outcome(grpc.StatusCode.NOT_FOUND, "KeyError: 'x'", "A", "chainrule", []), "tells of 'KeyError'"),
        (Outcome(grpc.StatusCode.NOT_FOUND, "in /tmp/a", "A", "chainrule", []), "tells of '/tmp/'"),
        (Outcome(grpc.StatusCode.NOT_FOUND, "none", "A", "chainrule", [b"\x0a\x1f at line 3 of jobs.py"]), "'.py'"),
        (Outcome(grpc.StatusCode.OK, "", "", "", [b"\x0a<class 'int'>"]), "tells of '<class '"),
    ],
    ids=lambda value: value if isinstance(value, str) else "outcome",
)
def test_what_must_not_come_back_is_seen(outcome: Outcome, said: str) -> None:
    assert said in problem(GET, [b""], outcome)


def test_a_client_may_be_told_what_it_said() -> None:
    outcome = Outcome(grpc.StatusCode.INVALID_ARGUMENT, "name: is '/tmp/x'", "INVALID_FIELD", "chainrule", [])
    assert problem(GET, [b"\x0a\x06/tmp/x"], outcome) == ""
    assert problem(LIST, [b""], outcome, known="/t" + "mp") == ""
    assert problem(LIST, [b""], outcome) != ""


def test_everything_that_is_served_is_called() -> None:
    assert {path.rpartition("/")[0] for path in METHODS} >= {
        *(f"chainrule.v1.{name}Service" for name in ("Training", "Dataset", "Model")),
        "inference.GRPCInferenceService",
    }
