"""One call with any bytes, and whether what came of it is what a client may get."""

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from grpc_status import rpc_status

from chainrule.v1 import dataset_service_pb2 as datasets_pb
from chainrule.v1 import model_service_pb2 as models_pb
from chainrule.v1.training_job_pb2 import TrainingJob
from service.api.errors import CODES
from service.api.server import SERVICES
from tests.api.running import SECONDS, refused
from tests.fuzz.world import World

METHODS: dict[str, MethodDescriptor] = {
    f"{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods
}
"""Everything that is served, found from what is served."""

OURS = tuple(service.full_name for service in SERVICES if not service.full_name.startswith("grpc."))
DOCUMENTED = set(CODES.values())
STREAM_SECONDS = 0.25
"""How long an answer of many messages is listened to: a watch may have no end."""
MOST_ANSWERS = 50

LEAK = re.compile(
    r"Traceback|\b[A-Z]\w*(?:Error|Exception|Warning)\b|<class |object at 0x|\bNoneType\b|\bself\."
    r"|\.py\b|site-packages|(?<![\w.])/(?:tmp|home|root|usr|var|opt|etc|proc|srv|work)/"
)
"""What betrays the inside of the service: names of exceptions, of types, of files."""


@dataclass(frozen=True)
class Outcome:
    """What came of a call."""

    code: grpc.StatusCode
    message: str
    reason: str
    domain: str
    answers: Sequence[bytes]


def call(world: World, path: str, messages: Sequence[bytes]) -> Outcome:
    """Makes a call, whatever the messages are."""
    method = METHODS[path]
    channel: Any = world.service.channel
    one, many = messages[0] if messages else b"", iter(messages)
    answers: list[bytes] = []
    try:
        match method.client_streaming, method.server_streaming:
            case False, False:
                answers.append(channel.unary_unary(f"/{path}")(one, timeout=SECONDS))
            case True, False:
                answers.append(channel.stream_unary(f"/{path}")(many, timeout=SECONDS))
            case False, True:
                answers += _listen(channel.unary_stream(f"/{path}")(one, timeout=STREAM_SECONDS))
            case True, True:
                answers += _listen(channel.stream_stream(f"/{path}")(many, timeout=STREAM_SECONDS))
    except grpc.RpcError as error:
        found = refused(error)
        return Outcome(found.code, found.message, found.reason, found.domain, [_details(error)])
    return Outcome(grpc.StatusCode.OK, "", "", "", answers)


def _listen(stream: Any) -> Iterator[bytes]:
    for number, answer in enumerate(stream, start=1):
        yield answer
        if number == MOST_ANSWERS:
            stream.cancel()
            return


def _details(error: Any) -> bytes:
    status: Any = rpc_status.from_call(error)
    return status.SerializeToString() if status else b""


def problem(path: str, messages: Sequence[bytes], outcome: Outcome, known: str = "") -> str:
    """What is wrong with what came of a call; "" if nothing is. Clients may be told what they know."""
    method, code = METHODS[path], outcome.code
    is_ours = path.partition("/")[0] in OURS
    if code == grpc.StatusCode.DEADLINE_EXCEEDED and method.server_streaming:
        return ""
    if code != grpc.StatusCode.OK and code.value[0] not in DOCUMENTED:
        return f"{code.name} is no code that a client may get: {outcome.message}"
    if code != grpc.StatusCode.OK and is_ours and (not outcome.reason or outcome.domain != "chainrule"):
        return f"{code.name} comes without a reason: {outcome.message}"
    said = " ".join([outcome.message, *(answer.decode(errors="replace") for answer in outcome.answers)])
    said = said.replace(known, "") if known else said
    asked = " ".join(message.decode(errors="replace") for message in messages)
    for leak in LEAK.finditer(said):
        # What the client has written itself may be repeated to it.
        if is_ours and leak[0] not in asked:
            return f"{code.name} tells of {leak[0]!r}: {said[max(0, leak.start() - 200) : leak.end() + 200]}"
    return ""


def tidy(world: World, path: str, outcome: Outcome) -> None:
    """Takes back what a call has made or removed, so that the next one finds the same world."""
    if METHODS[path].name == "TrainOnline":  # of a stream that was refused, some may have been good
        world.renew_online()
        return
    if outcome.code != grpc.StatusCode.OK:
        return
    made = _resource(path, outcome)
    if made.startswith("jobs/") and made not in (world.job, world.queued, world.trained):
        with suppress(grpc.RpcError):  # one that was only validated, or has ended
            world.service.cancel(made)
            world.service.delete(made)
    elif made.startswith("datasets/") and made != "datasets/flowers":
        world.service.datasets.DeleteDataset(datasets_pb.DeleteDatasetRequest(name=made), timeout=SECONDS)
    elif made.startswith("models/") and made != world.model:
        world.service.models.DeleteModel(models_pb.DeleteModelRequest(name=made), timeout=SECONDS)
    if METHODS[path].name.startswith(("Delete", "Resume", "Pause", "Cancel")):
        world.restore()


def _resource(path: str, outcome: Outcome) -> str:
    """The name of what a call has made, if it makes something."""
    if not METHODS[path].name.startswith(("Create", "Upload", "Import")):
        return ""
    kinds: dict[str, Any] = {"TrainingJob": TrainingJob, "Dataset": datasets_pb.Dataset, "Model": models_pb.Model}
    kind = kinds[METHODS[path].output_type.name]
    return str(kind.FromString(outcome.answers[0]).name)


def resident_bytes() -> int:
    """The memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4_096


@contextmanager
def no_thread_dies() -> Iterator[list[str]]:
    """The exceptions that threads have died of, while the context is open."""
    died: list[str] = []
    before = threading.excepthook
    threading.excepthook = lambda args: died.append(f"{args.thread and args.thread.name}: {args.exc_value!r}")
    try:
        yield died
    finally:
        threading.excepthook = before
