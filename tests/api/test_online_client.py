"""Client.train_online against a coordinator that really serves, and goes away."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf import json_format

from chainrule import Client, DatasetFileError, FailedPrecondition, InvalidRequest, NotFound
from chainrule.v1 import training_job_pb2 as job_pb
from service.cluster.local_cluster import LocalCluster
from tests.api.online import BATCH, ONLINE
from tests.api.running import X, Y, serving

STEPS = 22


def spec(**changes: Any) -> job_pb.TrainingJobSpec:
    return json_format.ParseDict({**ONLINE, **changes}, job_pb.TrainingJobSpec())


def rows(step: int) -> dict[str, Any]:
    """Other rows for each step."""
    chosen = np.arange(BATCH * (step - 1), BATCH * step) % len(X)
    return {"x": X[chosen], "y": Y[chosen]}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with (
        serving(tmp_path_factory.mktemp("data"), LocalCluster(slots=64)) as service,
        Client(service.addresses["grpc"]) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def undisturbed(client: Client) -> tuple[job_pb.TrainingJob, list[float]]:
    """A job to its end, one batch after the other, and the losses."""
    with client.train_online(spec()) as session:
        losses = [session.step(**rows(step)).loss for step in range(1, STEPS + 1)]
        return session.finish(), losses


def test_a_session_ends_with_a_model(client: Client, undisturbed: tuple[job_pb.TrainingJob, list[float]]) -> None:
    job, losses = undisturbed
    assert job.state == job_pb.TrainingJob.SUCCEEDED
    assert client.predict(job.result.model, X).shape == (len(X), 3)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


def test_batches_that_are_sent_ahead_give_the_same(
    client: Client, undisturbed: tuple[job_pb.TrainingJob, list[float]]
) -> None:
    with client.train_online(spec(workers=3)) as session:
        answers = list(session.steps(map(rows, range(1, STEPS + 1))))
        assert [answer.step for answer in answers] == list(range(1, STEPS + 1))
        assert [answer.loss for answer in answers] == undisturbed[1]
        assert session.answered == STEPS
        assert session.finish().result.parameters_sha256 == undisturbed[0].result.parameters_sha256


def test_a_session_that_was_left_is_gone_on_with(
    client: Client, undisturbed: tuple[job_pb.TrainingJob, list[float]]
) -> None:
    with client.train_online(spec()) as session:
        name = "jobs/" + session.job.rpartition("/")[2]
        list(session.steps(map(rows, range(1, 11))))
    with client.train_online(name) as session:
        assert session.answered == 10
        losses = [answer.loss for answer in session.steps(map(rows, range(11, STEPS + 1)))]
        assert losses == undisturbed[1][10:]
        assert session.finish().result.parameters_sha256 == undisturbed[0].result.parameters_sha256


def test_a_session_goes_on_when_its_coordinator_comes_back(
    tmp_path: Path, undisturbed: tuple[job_pb.TrainingJob, list[float]]
) -> None:
    """Twice, each time with batches under way; with a checkpoint from four steps ago at the most."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    losses: list[float] = []
    job = ""
    with Client(listen) as client:
        for last in (7, 15, STEPS):
            with serving(tmp_path, listen=listen):
                if not job:
                    session = client.train_online(spec())
                    job = session.job
                losses += [answer.loss for answer in session.steps(map(rows, range(len(losses) + 1, last + 1)))]
                if last == STEPS:
                    ended = session.finish()
        session.close()
    assert losses == undisturbed[1]
    assert ended.result.parameters_sha256 == undisturbed[0].result.parameters_sha256


def test_what_a_job_cannot_take_is_told_and_the_session_can_be_gone_on_with(client: Client) -> None:
    with client.train_online(spec()) as session:
        session.step(**rows(1))
        with pytest.raises(InvalidRequest, match=r"of 'x' is \[7, 4\]; must be \[8, 4\]"):
            session.step(x=X[:7], y=Y[:7])
        with pytest.raises(DatasetFileError, match="'x' is an array of <U5; must be of numbers"):
            session.step(x=["seven"], y=Y[:8])
        with pytest.raises(DatasetFileError, match="a message may have 4,194,304: make batch_size smaller"):
            session.step(x=np.zeros((8, 200_000)), y=Y[:8])
        assert session.step(**rows(2)).step == 2


def test_a_job_that_is_not_there_or_has_ended_or_is_no_such_job_is_refused(
    client: Client, undisturbed: tuple[job_pb.TrainingJob, list[float]]
) -> None:
    with pytest.raises(NotFound):
        client.train_online("nobody")
    with pytest.raises(FailedPrecondition, match="has ended: it is SUCCEEDED"):
        client.train_online(undisturbed[0].name)


def test_one_who_finds_that_somebody_else_sent_stops(client: Client) -> None:
    with client.train_online(spec()) as first:
        first.step(**rows(1))
        first.close()
        with client.train_online(first.job) as second:
            second.step(**rows(2))
        with pytest.raises(FailedPrecondition, match="has taken 2 steps, and this session sent 1: somebody else"):
            first.step(**rows(2))


def test_the_example_of_the_documentation_runs_as_it_stands(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[2].joinpath("docs", "online.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(example.replace("127.0.0.1:50051", client.address), {})  # noqa: S102 - our own page
    printed = capsys.readouterr().out  # the coordinator's log is there, too
    (answer,) = re.findall(r"^(100) (\S+) (\S+)$", printed, re.MULTILINE)
    (prediction,) = re.findall(r"^\[\[(\S+)]]$", printed, re.MULTILINE)
    _, loss, norm = answer
    assert 0 < float(loss) < 0.3  # of sin, whose mean square is about 0.5
    assert float(norm) > 0
    assert abs(float(prediction) - np.sin(0.6)) < 0.4
