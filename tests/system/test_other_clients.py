"""A client that knows nothing but the service's own description of its contract: buf, by reflection."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.system.coordinator import Coordinator
from tests.system.processes import run

pytestmark = pytest.mark.system

JOB = {
    "display_name": "Asked for by buf",
    "spec": {
        "data": {"dataset": "datasets/digits"},
        "network": {"layers": [{"dense": {"units": 32}}, {"tanh": {}}, {"dense": {"units": 10}}]},
        "loss": {"softmax_cross_entropy": {}},
        "epochs": 3,
    },
}


def call(coordinator: Coordinator, method: str, request: dict[str, Any], directory: Path) -> list[dict[str, Any]]:
    """Calls a method; gives every message of the answer."""
    url = f"http://{coordinator.grpc}/chainrule.v1.{method}"
    buf = str(Path(sys.executable).with_name("buf"))
    command = [buf, "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", json.dumps(request), url]
    code, out, err = run(command, directory, HOME=str(directory), XDG_CACHE_HOME=str(directory))
    assert code == 0, err
    # One object after the other, each over many lines.
    messages, decoder, rest = [], json.JSONDecoder(), out.strip()
    while rest:
        message, end = decoder.raw_decode(rest)
        messages.append(message)
        rest = rest[end:].lstrip()
    return messages


def test_a_job_from_its_creation_to_its_end(coordinator: Coordinator, tmp_path: Path) -> None:
    (job,) = call(coordinator, "TrainingService/CreateTrainingJob", {"training_job": JOB}, tmp_path)
    assert job["state"] == "QUEUED"
    assert job["spec"]["optimizer"]["adam"] == {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-08}

    updates = call(coordinator, "TrainingService/WatchTrainingJob", {"name": job["name"]}, tmp_path)
    events = [update["event"] for update in updates if "event" in update]
    assert [int(event["number"]) for event in events] == list(range(1, len(events) + 1))
    assert [event["epochCompleted"]["epoch"] for event in events if "epochCompleted" in event] == [1, 2, 3]
    ended = events[-1]["stateChanged"]
    assert ended["state"] == "SUCCEEDED"

    (model,) = call(coordinator, "ModelService/GetModel", {"name": ended["result"]["model"]}, tmp_path)
    assert model["parametersSha256"] == ended["result"]["parametersSha256"]
    (health,) = call(coordinator, "TrainingService/ListTrainingJobs", {"page_size": 1}, tmp_path)
    assert health["trainingJobs"][0]["name"] == job["name"]
