"""A coordinator to be fuzzed, with one of everything, and for each method the messages of good calls to it."""

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from chainrule.inference import open_inference_pb2 as inference_pb
from chainrule.v1 import dataset_service_pb2 as datasets_pb
from chainrule.v1 import model_service_pb2 as models_pb
from chainrule.v1 import training_service_pb2 as pb
from chainrule.v1.training_job_pb2 import TrainingJob, TrainingJobSpec
from service.cluster.local_cluster import LocalCluster, LocalTraining
from service.cluster.local_workers import LocalWorkers
from service.data.datasets import Dataset
from service.training.session import Order, Training
from tests.api import online
from tests.api.predicting import infer_request
from tests.api.running import ENDED, FLOWERS, SECONDS, SPEC, Service, X, head, parts, request, serving
from worker.blocks import Block
from worker.task import Data

SLOTS = 5
HELD = 4
"""Those of a job that takes no step. The last one is for a job that takes what batches come."""


class HeldWorkers(LocalWorkers):
    """Workers that take no step until they are let go."""

    def __init__(self, order: Order, data: Data, count: int, let_go: threading.Event) -> None:
        super().__init__(order.task, data, count, order.spec.precision.dtype)
        self._let_go = let_go

    def gradients(self, step: int, *, look: bool = False) -> Sequence[Block]:
        self._let_go.wait()
        return super().gradients(step, look=look)


@dataclass(frozen=True)
class HeldCluster(LocalCluster):
    """A cluster that jobs can be made to keep busy, so that whatever is created meanwhile stays in the queue."""

    slots: int = SLOTS
    let_go: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def train(self, order: Order, dataset: Dataset, data: Data, workers: int) -> Iterator[Training]:
        if order.spec.online is not None:
            with super().train(order, dataset, data, workers) as online:
                yield online
            return
        training = LocalTraining(order, HeldWorkers(order, data, workers, self.let_go))
        try:
            yield training
        finally:
            training.halt()


@dataclass
class World:
    """What clients find at the coordinator."""

    service: Service
    imports: Path
    """A folder with a file that may be imported."""
    job: str = ""
    """One that has ended."""
    trained: str = ""
    """One that has checkpoints."""
    queued: str = ""
    online: str = ""
    """One that waits for its first mini-batch."""
    model: str = ""
    file: bytes = b""
    _seeds: Mapping[str, Sequence[Sequence[Message]]] = field(default_factory=dict)

    def stands(self, name: str, *, ended: bool = True) -> bool:
        """Whether there is a job, dataset or model of that name, and if it is a job, whether it may have ended."""
        if not name:
            return False
        kinds: dict[str, tuple[Any, Any]] = {
            "jobs": (self.service.training.GetTrainingJob, pb.GetTrainingJobRequest),
            "datasets": (self.service.datasets.GetDataset, datasets_pb.GetDatasetRequest),
            "models": (self.service.models.GetModel, models_pb.GetModelRequest),
        }
        get, asked = kinds[name.partition("/")[0]]
        try:
            found = get(asked(name=name), timeout=SECONDS)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                return False
            raise
        return ended or found.state not in ENDED

    def restore(self) -> None:
        """Makes again what a call has removed or ended."""
        if not self.stands("datasets/flowers"):
            self.service.upload("flowers", FLOWERS)
        if not self.stands(self.job):
            self.job = self._create().name
            self.service.cancel(self.job)
        if not self.stands(self.online, ended=False):
            self.online = online.create(self.service, workers=1, max_workers=1, shards=1, priority=100).name
            for _ in self.service.watch(self.online):
                if self.service.get(self.online).state == TrainingJob.RUNNING:
                    break
        if not self.stands(self.queued, ended=False):
            self.queued = self._create().name
        if not self.stands(self.model):
            self.service.models.UploadModel(iter(model_upload(self.model, self.file)), timeout=SECONDS)
        alias = models_pb.SetModelAliasRequest(name=self.model, alias="production")
        self.service.models.SetModelAlias(alias, timeout=SECONDS)
        self._seeds = self._good_calls()

    def _create(self) -> TrainingJob:
        """A job that stays in the queue: it wants more workers than are ever free, also between two jobs online."""
        return self.service.create(min_workers=SLOTS - HELD + 1)

    def renew_online(self) -> None:
        """Has a job in the place of the one that has got some mini-batches, or has ended."""
        with suppress(grpc.RpcError):
            self.service.cancel(self.online)
        self.restore()

    def knows(self, method: MethodDescriptor) -> bool:
        """Whether there are good calls to a method here."""
        return method.name in self._seeds

    def seeds(self, method: MethodDescriptor) -> Sequence[Sequence[Message]]:
        """The messages of good calls to a method; of one that nobody has thought of here, an empty message."""
        if self.knows(method):
            return self._seeds[method.name]
        return [[message_factory.GetMessageClass(method.input_type)()]]

    def _good_calls(self) -> Mapping[str, Sequence[Sequence[Message]]]:
        """By the method's name; whatever takes nothing, or next to nothing, is left out."""
        about_a_job = (
            *(pb.GetTrainingJobRequest, pb.CancelTrainingJobRequest, pb.PauseTrainingJobRequest),
            *(pb.ResumeTrainingJobRequest, pb.DeleteTrainingJobRequest, pb.WatchTrainingJobRequest),
        )
        named: dict[str, Sequence[type[Message]]] = {
            self.job: about_a_job,
            self.queued: about_a_job,
            "datasets/flowers": (datasets_pb.GetDatasetRequest, datasets_pb.DeleteDatasetRequest),
            self.model: (models_pb.GetModelRequest, models_pb.DeleteModelRequest, models_pb.DownloadModelRequest),
            self.model.removeprefix("models/"): (inference_pb.ModelReadyRequest, inference_pb.ModelMetadataRequest),
        }
        by_name: dict[str, list[list[Message]]] = {}
        for name, kinds in named.items():
            for kind in kinds:
                made: Any = kind()
                made.name = name
                by_name.setdefault(kind.DESCRIPTOR.name.removesuffix("Request"), []).append([made])
        digest = hashlib.sha256(FLOWERS).hexdigest()
        csv = b"a,b,kind\n" + b"".join(b"%d,%d.5,k%d\n" % (n, n, n % 3) for n in range(30))
        gathered = [
            datasets_pb.ColumnGroup(name="x", columns=["*"]),
            datasets_pb.ColumnGroup(name="y", columns=["kind"]),
        ]
        asked = models_pb.EvaluateModelRequest(name="models/@production", dataset="datasets/flowers")
        return {
            **by_name,
            "CreateTrainingJob": [[request()], [request(request_id="again")], *([job] for job in _jobs(self.model))],
            "TrainOnline": [[online.start(self.online, after_step=0), *map(online.batch, (1, 2, 3)), online.FINISH]],
            "UpdateTrainingJob": [[_update(self.queued)]],
            "ListCheckpoints": [[pb.ListCheckpointsRequest(parent=self.trained, page_size=1)]],
            "CreateModel": [[models_pb.CreateModelRequest(checkpoint=f"{self.trained}/checkpoints/@latest")]],
            "ListTrainingJobs": [[pb.ListTrainingJobsRequest(page_size=1)]],
            "UploadDataset": [
                [head("uploaded", FLOWERS), *parts(FLOWERS)],
                [head("table", csv, format=datasets_pb.Dataset.CSV, groups=gathered), *parts(csv)],
            ],
            "QueryUpload": [
                [datasets_pb.QueryUploadRequest(dataset_id="flowers", size_bytes=len(FLOWERS), sha256=digest)]
            ],
            "ImportDataset": [
                [datasets_pb.ImportDatasetRequest(dataset_id="imported", uri=f"file://{self.imports}/flowers.npz")]
            ],
            "ListDatasets": [[datasets_pb.ListDatasetsRequest(page_size=1)]],
            "ListModels": [[models_pb.ListModelsRequest(page_size=1)]],
            "UploadModel": [model_upload("uploaded", self.file)],
            "EvaluateModel": [[asked]],
            "SetModelAlias": [[models_pb.SetModelAliasRequest(name=self.model, alias="staging")]],
            "DeleteModelAlias": [[models_pb.DeleteModelAliasRequest(alias="production")]],
            "ModelInfer": [[infer_request("@production", X[:3])], [_typed()]],
            "Check": [[health_pb2.HealthCheckRequest(service="chainrule.v1.TrainingService")]],
            "ServerReflectionInfo": [
                [
                    reflection_pb2.ServerReflectionRequest(list_services=""),
                    reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"),
                    reflection_pb2.ServerReflectionRequest(file_by_filename="chainrule/v1/network.proto"),
                ]
            ],
        }


@contextmanager
def world(directory: Path) -> Iterator[World]:
    """A coordinator with a dataset, a job that has ended, its model with an alias, and all of its workers held."""
    imports, data = directory / "imports", directory / "data"
    imports.mkdir()
    data.mkdir()
    (imports / "flowers.npz").write_bytes(FLOWERS)
    cluster = HeldCluster()
    settings = {
        "max_dataset_bytes": 50_000,
        "max_model_bytes": 100_000,
        "total_dataset_bytes": 10_000_000,
        "unfinished_upload_seconds": 1.0,
        "checkpoint_seconds": 0.0,
        "import_root": [str(imports)],
        "calls_per_second": 1e9,
        "online_wait_seconds": 24 * 3600.0,
    }
    with serving(data, cluster, **settings) as service:
        made = World(service, imports)
        service.upload("flowers", FLOWERS)
        cluster.let_go.set()
        made.trained = service.create().name
        made.model = service.end(made.trained).result.model
        downloaded = service.models.DownloadModel(models_pb.DownloadModelRequest(name=made.model), timeout=SECONDS)
        made.file = b"".join(part.data for part in downloaded)
        cluster.let_go.clear()
        busy = service.create(workers=HELD, min_workers=HELD, max_workers=HELD, shards=HELD, epochs=1_000)
        try:
            made.restore()
            yield made
        finally:
            cluster.let_go.set()
            service.cancel(busy.name)


def model_upload(model: str, file: bytes) -> list[models_pb.UploadModelRequest]:
    """The messages that upload a model's file."""
    header = models_pb.UploadModelHeader(
        model_id=model.removeprefix("models/"), size_bytes=len(file), sha256=hashlib.sha256(file).hexdigest()
    )
    sent = [models_pb.ModelChunk(offset=at, data=file[at : at + 700]) for at in range(0, len(file), 700)]
    return [models_pb.UploadModelRequest(header=header), *(models_pb.UploadModelRequest(chunk=part) for part in sent)]


def _update(name: str) -> pb.UpdateTrainingJobRequest:
    """A change of some of what may be changed."""
    job = TrainingJob(name=name, spec=TrainingJobSpec(priority=7))
    return pb.UpdateTrainingJobRequest(training_job=job, update_mask=FieldMask(paths=["spec.priority"]))


def _typed() -> inference_pb.ModelInferRequest:
    """A request whose numbers are in fields instead of raw bytes."""
    asked = infer_request("@production", X[:2], contents={"fp32_contents": X[:2].ravel()})
    del asked.raw_input_contents[:]
    return asked


def _jobs(model: str) -> Iterator[pb.CreateTrainingJobRequest]:
    """Jobs that use as much of the contract as fits the flowers, which are four numbers and one of three classes."""
    inner = [{"dense": {"units": 4}}, {"layerNorm": {}}, {"dropout": {"rate": 0.1}}]
    last = {"dense": {"units": 3}, "name": "last", "learningRateScale": 0.5}
    branch = {"layers": [{"dense": {"units": 2}}, {"gelu": {}}]}
    networks: list[list[dict[str, Any]]] = [
        [{"residual": {"layers": inner}}, {"batchNorm": {}}, {"concatenate": {"branches": [branch, branch]}}, last],
        [{"reshape": {"shape": [2, 2, 1]}}, {"conv2d": {"filters": 2, "kernelSize": [2]}}, {"flatten": {}}, last],
        [
            *(
                {"reshape": {"shape": [4, 1]}},
                {"positionalEncoding": {}},
                {"lstm": {"units": 4, "returnSequences": True}},
            ),
            *({"multiHeadAttention": {"heads": 2}}, {"gru": {"units": 2}}, last),
        ],
        [{"quantum": {"qubits": 4}}, last],
    ]
    schedule: dict[str, Any] = {"oneCycle": {}}
    learning = {"learningRate": 0.01, "adamw": {"weightDecay": 0.01}, "schedule": schedule, "clipNorm": 1.0}
    bounds = {"minWorkers": 1, "workers": 2, "maxWorkers": 3, "priority": 5, "earlyStopping": {"patience": 2}}
    prepared = {
        "dataset": "datasets/flowers",
        "features": [{"columns": ["x"], "standardise": {}}],
        "target": {"classes": {}},
        "split": "LAST",
    }
    changed: list[dict[str, Any]] = [
        *({"network": {"layers": layers}} for layers in networks),
        {"optimizer": learning, **bounds},
        {"data": prepared},
        {"initialModel": model},
    ]
    for changes in changed:
        made = pb.CreateTrainingJobRequest()
        json_format.ParseDict({"trainingJob": {"spec": {**SPEC, **changes}}}, made)
        yield made
