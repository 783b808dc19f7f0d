"""Calls have ids, by which what is logged of them is found."""

import json
from pathlib import Path
from typing import Any

import grpc
import pytest

from chainrule.v1 import training_service_pb2 as pb
from tests.api.running import SECONDS, Service, request


def id_of(call: Any) -> str:
    """What the trailing metadata of an answer say."""
    (found,) = [value for name, value in call.trailing_metadata() if name == "x-request-id"]
    return str(found)


def named(*ids: str) -> tuple[tuple[str, str], ...]:
    return tuple(("x-request-id", each) for each in ids)


def audited(directory: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (directory / "audit.log").read_text().splitlines()]


def test_what_the_caller_sent_is_told_again_and_in_the_audit_log(service: Service, tmp_path: Path) -> None:
    create = service.training.CreateTrainingJob.with_call
    job, call = create(request(), timeout=SECONDS, metadata=named("order-17"))
    assert id_of(call) == "order-17"
    entry = audited(tmp_path)[-1]
    assert (entry["resource"], entry["call_id"]) == (job.name, "order-17")


def test_a_refusal_and_a_stream_have_one_too(service: Service) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        service.training.GetTrainingJob(pb.GetTrainingJobRequest(name="jobs/none"), metadata=named("a"))
    assert id_of(refused.value) == "a"
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
    job = service.create()
    watch: Any = service.training.WatchTrainingJob(
        pb.WatchTrainingJobRequest(name=job.name), timeout=SECONDS, metadata=named("b")
    )
    assert list(watch)
    assert id_of(watch) == "b"


@pytest.mark.parametrize("sent", [(), ("",), ("x" * 101,)], ids=["none", "empty", "long"])
def test_what_is_not_fit_to_be_logged_gives_way_to_one_of_our_own(sent: tuple[str, ...], service: Service) -> None:
    get = service.training.ListTrainingJobs.with_call
    ids = {id_of(get(pb.ListTrainingJobsRequest(), timeout=SECONDS, metadata=named(*sent))[1]) for _ in range(2)}
    assert len(ids) == 2
    assert all(len(each) == 16 and set(each) <= set("0123456789abcdef") for each in ids)


def test_two_calls_at_a_time_keep_theirs(service: Service, tmp_path: Path) -> None:
    create = service.training.CreateTrainingJob
    calls = [create.future(request(), timeout=SECONDS, metadata=named(f"call-{number}")) for number in range(20)]
    made = {call.result().name: id_of(call) for call in calls}
    found = {entry["resource"]: entry["call_id"] for entry in audited(tmp_path) if "CreateTraining" in entry["method"]}
    assert found == made
    assert set(made.values()) == {f"call-{number}" for number in range(20)}
