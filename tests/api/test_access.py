"""Who may do what: tokens, scopes, owners, limits of each principal, and the audit log."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_status import rpc_status
from safetensors.numpy import save

from chainrule import Client, PermissionDenied, ServiceError, Unauthenticated
from chainrule.inference import open_inference_pb2
from chainrule.v1 import dataset_service_pb2, model_service_pb2, online_pb2, training_service_pb2
from chainrule.v1.network_pb2 import Network
from service.access.principals import Scope
from service.api.guard import NEEDED
from tests.api.principals import SCOPES, TOKENS, Metadata, bearer, line, write_tokens
from tests.api.running import FLOWERS, SECONDS, Service, refusal, request, serving
from tests.unit.service.unreliable import GatedCluster

METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for module in (
        training_service_pb2,
        dataset_service_pb2,
        model_service_pb2,
        open_inference_pb2,
        health_pb2,
        reflection_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
"""Every method of every service that is served; that these are all, reflection tells in test_server.py."""

CLOSED = {path: needed for path, needed in NEEDED.items() if needed is not None}


@contextmanager
def guarding(directory: Path, *names: str, **settings: Any) -> Iterator[Service]:
    """A coordinator that asks for tokens, of those named or of all, on workers that compute nothing."""
    cluster, data = GatedCluster(slots=4), directory / "data"
    data.mkdir(exist_ok=True)
    with serving(data, cluster, auth_tokens=write_tokens(directory, *names), **settings) as service:
        yield service
        cluster.gate.set()


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Service]:
    """A test's own, with the flowers, which are alice's."""
    with guarding(tmp_path) as service:
        with client(service, "alice") as alice:
            alice.upload_dataset(FLOWERS, "flowers")
        yield service


@pytest.fixture(scope="module")
def shared_guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """For tests that change nothing."""
    with guarding(tmp_path_factory.mktemp("guarded")) as service:
        yield service


def client(service: Service, name: str) -> Client:
    return Client(service.addresses["grpc"], token=TOKENS[name], timeout=SECONDS)


def create(by: Client, **changes: Any) -> str:
    asked = request(**changes)
    return by.create_job(asked.training_job, request_id=asked.request_id or None).name


def call(service: Service, path: str, metadata: Metadata, data: bytes = b"") -> grpc.StatusCode:
    """Calls any method with some bytes; the status that comes of it, by one answer at the most."""
    method = METHODS[path]
    sends, gets = method.client_streaming, method.server_streaming
    kind = f"{'stream' if sends else 'unary'}_{'stream' if gets else 'unary'}"
    stub: Any = getattr(service.channel, kind)(path)
    try:
        answer = stub(iter([data]) if sends else data, timeout=SECONDS, metadata=metadata)
        if gets:
            next(iter(answer), None)
            answer.cancel()
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


def test_every_method_has_its_scope() -> None:
    assert set(METHODS) == set(NEEDED)


@pytest.mark.parametrize("path", NEEDED)
def test_a_scope_opens_what_it_is_for(path: str, shared_guarded: Service) -> None:
    """The requests are empty, so that what is let through is refused for that, and changes nothing."""
    needed = NEEDED[path]
    refused = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
    stranger = call(shared_guarded, path, ())
    assert (stranger == grpc.StatusCode.UNAUTHENTICATED) == (needed is not None)
    for name, scope in SCOPES.items():
        found = call(shared_guarded, path, bearer(name))
        may = needed is None or Scope[scope.upper()] >= needed
        assert (found not in refused) if may else (found == grpc.StatusCode.PERMISSION_DENIED), name


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        ((), "TOKEN_MISSING"),
        ((("authorization", f"Bearer {TOKENS['alice']}x"),), "TOKEN_INVALID"),
        ((("authorization", f"Bearer {TOKENS['alice'][:-1]}"),), "TOKEN_INVALID"),
        ((("authorization", "Bearer "),), "TOKEN_INVALID"),
        ((("authorization", f"Basic {TOKENS['alice']}"),), "TOKEN_INVALID"),
        ((("authorization", TOKENS["alice"]),), "TOKEN_INVALID"),
        ((*bearer("alice"), *bearer("root")), "TOKEN_INVALID"),
        ((("authorization", line("alice", "train", TOKENS["alice"]).split()[2]),), "TOKEN_INVALID"),
    ],
    ids=["none", "longer", "shorter", "empty", "other scheme", "no scheme", "two", "its hash"],
)
def test_without_a_token_that_is_known(sent: Metadata, reason: str, shared_guarded: Service) -> None:
    asked = training_service_pb2.ListTrainingJobsRequest()
    found = refusal(lambda: shared_guarded.training.ListTrainingJobs(asked, timeout=SECONDS, metadata=sent))
    assert (found.code, found.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert "token" in found.message
    assert TOKENS["alice"] not in found.message


def test_strangers_have_nothing_parsed(shared_guarded: Service) -> None:
    assert call(shared_guarded, _path("CreateTrainingJob"), (), b"\xff" * 20) == grpc.StatusCode.UNAUTHENTICATED
    known = call(shared_guarded, _path("CreateTrainingJob"), bearer("alice"), b"\xff" * 20)
    assert known == grpc.StatusCode.INVALID_ARGUMENT


def test_a_scope_that_is_too_small_is_named(shared_guarded: Service) -> None:
    with client(shared_guarded, "reader") as reader, pytest.raises(PermissionDenied) as error:
        create(reader)
    assert (error.value.reason, str(error.value)) == (
        "SCOPE_TOO_SMALL",
        "'reader' has the scope read, and this needs train; whoever runs the service can give a token with that scope",
    )


def test_what_one_makes_another_cannot_end(guarded: Service) -> None:
    with client(guarded, "alice") as alice, client(guarded, "bob") as bob, client(guarded, "root") as root:
        name = create(alice)
        assert bob.get_job(name).created_by == alice.get_dataset("flowers").created_by == "alice"
        model = _upload_model(alice)
        assert bob.get_model(model).created_by == "alice"
        for change in (bob.pause_job, bob.resume_job, bob.cancel_job, bob.delete_job):
            _not_owner(lambda change=change: change(name), name)  # type: ignore[misc]
        _not_owner(lambda: bob.update_job(name, priority=7), name)
        _not_owner(lambda: bob.delete_model(model), model)
        start = online_pb2.TrainOnlineRequest(start=online_pb2.OnlineStart(name=name))
        sent = guarded.training.TrainOnline(iter([start]), timeout=SECONDS, metadata=bearer("bob"))
        assert refusal(lambda: next(sent)).reason == "NOT_OWNER"
        alice.cancel_job(name)
        _not_owner(lambda: bob.delete_job(name), name)
        _not_owner(lambda: bob.delete_dataset("flowers"), "datasets/flowers")
        alice.delete_job(name)
        root.delete_model(model)
        root.delete_dataset("flowers")


def test_what_was_made_before_there_were_principals_is_an_admin_s(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with serving(tmp_path / "data", GatedCluster()) as service:
        service.upload("flowers", FLOWERS)
    with (
        guarding(tmp_path) as service,
        client(service, "bob") as bob,
        client(service, "root") as root,
    ):
        _not_owner(lambda: bob.delete_dataset("flowers"), "datasets/flowers")
        root.delete_dataset("flowers")


def test_a_model_is_its_job_s_creator_s(tmp_path: Path) -> None:
    with serving(tmp_path, auth_tokens=write_tokens(tmp_path)) as service, client(service, "alice") as alice:
        alice.upload_dataset(FLOWERS, "flowers")
        job = alice.wait(create(alice))
        assert alice.get_model(job.result.model).created_by == "alice"
        with client(service, "bob") as bob:
            _not_owner(lambda: bob.delete_model(job.result.model), job.result.model)


def test_request_ids_are_each_principal_s_own(guarded: Service) -> None:
    with client(guarded, "alice") as alice, client(guarded, "bob") as bob:
        name = create(alice, request_id="once")
        assert create(alice, request_id="once") == name
        with pytest.raises(ServiceError) as error:
            create(alice, request_id="once", epochs=7)
        assert (error.value.code, error.value.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        others = create(bob, request_id="once", epochs=7)
        assert others != name
        assert (create(alice, request_id="once"), create(bob, request_id="once", epochs=7)) == (name, others)


def test_calls_in_a_second_are_limited_for_each(tmp_path: Path) -> None:
    asked = training_service_pb2.ListTrainingJobsRequest()
    with guarding(tmp_path, calls_per_second=1.0) as service:

        def ask(name: str) -> object:
            return service.training.ListTrainingJobs(asked, timeout=SECONDS, metadata=bearer(name))

        ask("alice")
        with pytest.raises(grpc.RpcError) as error:
            ask("alice")
        refused: Any = error.value
        assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = error_details_pb2.RetryInfo()
        status: Any = rpc_status.from_call(refused)
        assert any(detail.Unpack(retry) for detail in status.details)
        seconds = retry.retry_delay.ToNanoseconds() / 1e9
        assert 0 < seconds <= 1
        ask("bob")
        time.sleep(seconds)
        ask("alice")


def test_calls_at_a_time_are_limited_for_each(tmp_path: Path) -> None:
    with guarding(tmp_path, concurrent_calls=2) as service:
        with client(service, "alice") as alice:
            alice.upload_dataset(FLOWERS, "flowers")
            name = create(alice)
        watched = training_service_pb2.WatchTrainingJobRequest(name=name)

        def watch(by: str) -> Any:
            stream = service.training.WatchTrainingJob(watched, timeout=SECONDS, metadata=bearer(by))
            next(stream)
            return stream

        streams = [watch("alice"), watch("alice")]
        found = refusal(lambda: watch("alice"))
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CONCURRENT_CALLS")
        streams.append(watch("bob"))
        streams[0].cancel()
        streams.append(_until_allowed(lambda: watch("alice")))
        for stream in streams:
            stream.cancel()
        with client(service, "alice") as alice:
            _until_allowed(lambda: alice.cancel_job(name))


def test_jobs_that_have_not_ended_are_limited_for_each(tmp_path: Path) -> None:
    with (
        guarding(tmp_path, unfinished_jobs=1) as service,
        client(service, "alice") as alice,
        client(service, "bob") as bob,
    ):
        alice.upload_dataset(FLOWERS, "flowers")
        name = create(alice, request_id="once")
        with pytest.raises(ServiceError) as error:
            create(alice)
        assert (error.value.code, error.value.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_JOBS")
        assert create(alice, request_id="once") == name
        others = create(bob)
        alice.cancel_job(name)
        for made, by in ((others, bob), (create(alice), alice)):
            by.cancel_job(made)


def test_tokens_are_read_again(tmp_path: Path) -> None:
    with (
        guarding(tmp_path, "alice") as service,
        client(service, "alice") as alice,
        client(service, "bob") as bob,
    ):
        with pytest.raises(Unauthenticated):
            list(bob.jobs())
        path = write_tokens(tmp_path, "bob")
        list(bob.jobs())
        with pytest.raises(Unauthenticated):
            list(alice.jobs())
        path.write_text("nonsense\n")  # keeps in force what was before
        list(bob.jobs())
        path.unlink()
        list(bob.jobs())


def test_the_audit_log_tells_who_did_what(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with guarding(tmp_path) as service:
        with client(service, "alice") as alice, client(service, "bob") as bob, client(service, "reader") as reader:
            alice.upload_dataset(FLOWERS, "flowers")
            name = create(alice, display_name="payload")
            list(bob.jobs())
            for refused in (
                lambda: bob.cancel_job(name),
                lambda: bob.delete_job("none"),
                lambda: create(reader),
                lambda: bob.set_model_alias("production", "none"),
            ):
                with pytest.raises(ServiceError):
                    refused()
            alice.cancel_job(name)
        call(service, _path("CreateTrainingJob"), ())
    text = (data / "audit.log").read_text()
    lines = [json.loads(each) for each in text.splitlines()]
    training, datasets = "chainrule.v1.TrainingService", "chainrule.v1.DatasetService"
    assert [(each["principal"], each["method"], each["resource"], each["outcome"]) for each in lines] == [
        ("alice", f"{datasets}/UploadDataset", "datasets/flowers", "OK"),
        ("alice", f"{training}/CreateTrainingJob", name, "OK"),
        ("bob", f"{training}/CancelTrainingJob", name, "PERMISSION_DENIED"),
        ("bob", f"{training}/DeleteTrainingJob", "jobs/none", "NOT_FOUND"),
        ("reader", f"{training}/CreateTrainingJob", "", "PERMISSION_DENIED"),
        ("bob", "chainrule.v1.ModelService/SetModelAlias", "models/@production", "PERMISSION_DENIED"),
        ("alice", f"{training}/CancelTrainingJob", name, "OK"),
    ]
    assert all(each["peer"].startswith("ipv4:127.0.0.1:") and each["time"] for each in lines)
    assert not any(secret in text for secret in (*TOKENS.values(), "payload", "Bearer"))
    assert (data / "audit.log").stat().st_mode & 0o777 == 0o600


def test_metrics_want_a_token_too(shared_guarded: Service) -> None:
    url = shared_guarded.addresses["metrics"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(url, timeout=SECONDS)  # noqa: S310 - our own address
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKENS['reader']}"})  # noqa: S310
    with urllib.request.urlopen(asked, timeout=SECONDS) as answer:  # noqa: S310 - our own address
        assert b"chainrule_jobs" in answer.read()


def _path(method: str) -> str:
    return f"/chainrule.v1.TrainingService/{method}"


def _not_owner(change: Callable[[], object], resource: str) -> None:
    with pytest.raises(PermissionDenied) as error:
        change()
    assert error.value.reason == "NOT_OWNER"
    assert resource in str(error.value)


def _until_allowed(make: Callable[[], Any]) -> Any:
    """What comes of a call once the service has noticed that others have ended."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            return make()
        except (grpc.RpcError, ServiceError):
            assert time.monotonic() < end
            time.sleep(0.01)


def _upload_model(by: Client) -> str:
    network = json_format.ParseDict({"layers": [{"dense": {"units": 1}}]}, Network())
    tensors = {"layers.0.weight": np.zeros((2, 1), np.float32), "layers.0.bias": np.zeros(1, np.float32)}
    return by.upload_model(save(tensors), "mine", network=network, input_shape=[2]).name
