"""A service in small: real gRPC servers on port 0 whose servicers keep everything in memory and follow a script."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from google.protobuf.empty_pb2 import Empty

from chainrule.inference import open_inference_pb2_grpc
from chainrule.v1 import dataset_service_pb2 as dataset_messages
from chainrule.v1 import dataset_service_pb2_grpc, model_service_pb2_grpc, training_service_pb2_grpc
from chainrule.v1 import model_service_pb2 as model_messages
from chainrule.v1 import training_service_pb2 as training_messages
from chainrule.v1.dataset_service_pb2 import Dataset
from chainrule.v1.model_service_pb2 import Model
from chainrule.v1.training_event_pb2 import EpochCompleted, StateChanged, TrainingEvent
from chainrule.v1.training_job_pb2 import ConfusionRow, TrainingJob, TrainingProgress, TrainingResult
from chainrule.v1.training_service_pb2 import WatchTrainingJobResponse
from tests.unit.client.fake_changes import FakeChanges, FakePromotion
from tests.unit.client.fake_inference import FakeInference
from tests.unit.client.refusing import not_found, refuse

PAGE = 2  # resources on a page, so that a few make several
MODEL_FILE = bytes(range(256)) * 5_000
SHA256 = hashlib.sha256(b"parameters").hexdigest()
ENDS = (TrainingJob.SUCCEEDED, TrainingJob.FAILED, TrainingJob.CANCELLED)


def story(
    accuracies: Sequence[float] = (0.5, 0.97), end: TrainingJob.State.ValueType = TrainingJob.SUCCEEDED
) -> list[TrainingEvent]:
    """The events of a job with so many epochs that ends in this state."""
    result = TrainingResult(
        model="models/m1",
        parameters_sha256=SHA256,
        training_loss=0.1,
        training_accuracy=0.99,
        validation_loss=0.2,
        validation_accuracy=accuracies[-1],
        duration_seconds=1.5,
        validation_scores={"accuracy": accuracies[-1], "f1": 0.9683, "top_5_accuracy": 0.999},
        confusion=[ConfusionRow(counts=[12, 0]), ConfusionRow(counts=[1, 2.5])],
    )
    last = StateChanged(state=end)
    if end == TrainingJob.SUCCEEDED:
        last.result.CopyFrom(result)
    if end == TrainingJob.FAILED:
        last.error.reason, last.error.message = "TRAINING_DIVERGED", "the loss is infinite at step 3"
    epochs = [
        TrainingEvent(
            epoch_completed=EpochCompleted(
                epoch=n,
                step=10 * n,
                training_loss=1 / n,
                validation_accuracy=a,
                validation_scores={"accuracy": a, "f1": a},
            )
        )
        for n, a in enumerate(accuracies, start=1)
    ]
    events = [
        TrainingEvent(state_changed=StateChanged(state=TrainingJob.QUEUED)),
        TrainingEvent(state_changed=StateChanged(state=TrainingJob.RUNNING)),
        *epochs,
        TrainingEvent(state_changed=last),
    ]
    for number, event in enumerate(events, start=1):
        event.number = number
    return events


@dataclass
class FakeTraining(FakeChanges):
    """Jobs that take their course while they are watched."""

    events: list[TrainingEvent] = field(default_factory=story)
    drops: list[int] = field(default_factory=list)
    """For each of the first streams: after how many messages it breaks."""
    endless: bool = False
    """Whether a watch goes on until the job is cancelled."""
    jobs: dict[str, TrainingJob] = field(default_factory=dict)
    watched_after: list[int] = field(default_factory=list)
    created: list[training_messages.CreateTrainingJobRequest] = field(default_factory=list)
    TrainOnline = training_service_pb2_grpc.TrainingServiceServicer.TrainOnline  # see fake_online.py

    def CreateTrainingJob(  # noqa: N802 - gRPC's name
        self, request: training_messages.CreateTrainingJobRequest, context: grpc.ServicerContext
    ) -> TrainingJob:
        self.created.append(request)
        if request.training_job.spec.epochs == 666:
            wrong = {"training_job.spec.epochs": "must be 1 to 665", "training_job.spec.shards": "must be above 0"}
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "2 fields are wrong", "INVALID_JOB", wrong)
        job = TrainingJob()
        job.CopyFrom(request.training_job)
        job.name, job.state = f"jobs/j{len(self.jobs) + 1}", TrainingJob.QUEUED
        job.create_time.FromSeconds(1_750_000_000)
        if not request.validate_only:
            self.jobs[job.name] = job
        return job

    def GetTrainingJob(  # noqa: N802
        self, request: training_messages.GetTrainingJobRequest, context: grpc.ServicerContext
    ) -> TrainingJob:
        return self.jobs.get(request.name) or not_found(context, request.name)

    def ListTrainingJobs(  # noqa: N802
        self,
        request: training_messages.ListTrainingJobsRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> training_messages.ListTrainingJobsResponse:
        names, token = page(sorted(self.jobs), request.page_token)
        return training_messages.ListTrainingJobsResponse(
            training_jobs=[self.jobs[name] for name in names], next_page_token=token
        )

    def CancelTrainingJob(  # noqa: N802
        self, request: training_messages.CancelTrainingJobRequest, context: grpc.ServicerContext
    ) -> TrainingJob:
        job = self.jobs.get(request.name) or not_found(context, request.name)
        if job.state in ENDS:
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, f"{job.name} has ended", "JOB_ENDED", {})
        job.state = TrainingJob.CANCELLED
        return job

    def PauseTrainingJob(  # noqa: N802
        self, request: training_messages.PauseTrainingJobRequest, context: grpc.ServicerContext
    ) -> TrainingJob:
        job = self.jobs.get(request.name) or not_found(context, request.name)
        if job.state in (*ENDS, TrainingJob.PAUSED):
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, f"{job.name} can't be paused", "JOB_NOT_ACTIVE", {})
        job.state = TrainingJob.PAUSED
        return job

    def ResumeTrainingJob(  # noqa: N802
        self, request: training_messages.ResumeTrainingJobRequest, context: grpc.ServicerContext
    ) -> TrainingJob:
        job = self.jobs.get(request.name) or not_found(context, request.name)
        if job.state != TrainingJob.PAUSED:
            refuse(context, grpc.StatusCode.FAILED_PRECONDITION, f"{job.name} isn't paused", "JOB_NOT_PAUSED", {})
        job.state = TrainingJob.QUEUED
        return job

    def DeleteTrainingJob(  # noqa: N802
        self, request: training_messages.DeleteTrainingJobRequest, context: grpc.ServicerContext
    ) -> Empty:
        return Empty() if self.jobs.pop(request.name, None) else not_found(context, request.name)

    def WatchTrainingJob(  # noqa: N802
        self, request: training_messages.WatchTrainingJobRequest, context: grpc.ServicerContext
    ) -> Iterator[WatchTrainingJobResponse]:
        job = self.jobs.get(request.name) or not_found(context, request.name)
        self.watched_after.append(request.after_event)
        left = self.drops.pop(0) if self.drops else None
        for event in self.events[request.after_event :]:
            for message in (WatchTrainingJobResponse(event=event), WatchTrainingJobResponse(progress=progress(event))):
                if left == 0:
                    context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
                left = left and left - 1
                yield message
            if event.WhichOneof("kind") == "state_changed":
                change = event.state_changed
                job.state, job.last_event = change.state, max(job.last_event, event.number)
                job.result.CopyFrom(change.result)
                job.error.CopyFrom(change.error)
            while self.endless and job.state == TrainingJob.RUNNING and context.is_active():
                yield WatchTrainingJobResponse(progress=progress(event))


def progress(event: TrainingEvent) -> TrainingProgress:
    """A snapshot as it might follow an event."""
    step = event.epoch_completed.step
    return TrainingProgress(step=step, total_steps=20, samples=64 * step, samples_per_second=1e4, workers=2)


@dataclass
class FakeDatasets(dataset_service_pb2_grpc.DatasetServiceServicer):
    """Datasets that are nothing but bytes; an upload is held against its header."""

    files: dict[str, bytes] = field(default_factory=dict)
    chunks: list[int] = field(default_factory=list)
    parts: dict[str, bytes] = field(default_factory=dict)
    """What has arrived of uploads that broke off, by checksum."""
    drops: list[int] = field(default_factory=list)
    """After how many chunks each of the first streams breaks."""
    headers: list[dataset_messages.UploadDatasetHeader] = field(default_factory=list)
    imports: list[dataset_messages.ImportDatasetRequest] = field(default_factory=list)

    def UploadDataset(  # noqa: N802
        self, request_iterator: Iterator[dataset_messages.UploadDatasetRequest], context: grpc.ServicerContext
    ) -> Dataset:
        header = next(request_iterator).header
        self.headers.append(header)
        data = self.parts.get(header.sha256, b"")
        name = f"datasets/{header.dataset_id}"
        if name in self.files:
            refuse(context, grpc.StatusCode.ALREADY_EXISTS, f"{name} exists", "DATASET_EXISTS", {})
        left = self.drops.pop(0) if self.drops else None
        for request in request_iterator:
            if left == 0:
                context.abort(grpc.StatusCode.UNAVAILABLE, "going down")
            left = left and left - 1
            assert request.chunk.offset == len(data)
            data += request.chunk.data
            self.chunks.append(len(request.chunk.data))
            self.parts[header.sha256] = data
        assert (len(data), hashlib.sha256(data).hexdigest()) == (header.size_bytes, header.sha256)
        self.files[name] = data
        return self._describe(name)

    def QueryUpload(  # noqa: N802
        self,
        request: dataset_messages.QueryUploadRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> dataset_messages.QueryUploadResponse:
        return dataset_messages.QueryUploadResponse(committed_bytes=len(self.parts.get(request.sha256, b"")))

    def ImportDataset(  # noqa: N802
        self,
        request: dataset_messages.ImportDatasetRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> Dataset:
        self.imports.append(request)
        name = f"datasets/{request.dataset_id}"
        self.files[name] = b"imported"
        return self._describe(name)

    def GetDataset(  # noqa: N802
        self, request: dataset_messages.GetDatasetRequest, context: grpc.ServicerContext
    ) -> Dataset:
        return self._describe(request.name) if request.name in self.files else not_found(context, request.name)

    def ListDatasets(  # noqa: N802
        self,
        request: dataset_messages.ListDatasetsRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> dataset_messages.ListDatasetsResponse:
        names, token = page(sorted(self.files), request.page_token)
        return dataset_messages.ListDatasetsResponse(datasets=map(self._describe, names), next_page_token=token)

    def DeleteDataset(  # noqa: N802
        self, request: dataset_messages.DeleteDatasetRequest, context: grpc.ServicerContext
    ) -> Empty:
        return Empty() if self.files.pop(request.name, None) is not None else not_found(context, request.name)

    def _describe(self, name: str) -> Dataset:
        data = self.files[name]
        dataset = Dataset(name=name, rows=3, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        dataset.columns.add(name="x", dtype="float32", row_shape=[64], max=16.0, mean=4.9, standard_deviation=6.0)
        dataset.columns.add(name="y", dtype="int64", max=9, distinct_count=10)
        return dataset


@dataclass
class FakeModels(FakePromotion):
    """Models that all have the same file."""

    names: tuple[str, ...] = ("models/m1", "models/m2", "models/m3")
    sent: bytes = MODEL_FILE
    """What a download brings, whatever the description says."""
    formats: list[int] = field(default_factory=list)
    """Of the downloads."""
    uploads: dict[str, tuple[model_messages.UploadModelHeader, bytes]] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    loss: str = "softmax_cross_entropy"
    evaluations: list[model_messages.EvaluateModelRequest] = field(default_factory=list)

    def GetModel(  # noqa: N802
        self, request: model_messages.GetModelRequest, context: grpc.ServicerContext
    ) -> Model:
        return self._describe(self.named(request.name) or not_found(context, request.name))

    def EvaluateModel(  # noqa: N802
        self, request: model_messages.EvaluateModelRequest, context: grpc.ServicerContext
    ) -> model_messages.EvaluateModelResponse:
        self.evaluations.append(request)
        name = self.named(request.name) or not_found(context, request.name)
        scores = {"accuracy": 0.972, "f1": 0.5}
        return model_messages.EvaluateModelResponse(
            model=name, loss=0.25, scores=scores, rows=1797, duration_seconds=0.5
        )

    def SetModelAlias(  # noqa: N802
        self, request: model_messages.SetModelAliasRequest, context: grpc.ServicerContext
    ) -> Model:
        self.aliases[request.alias] = self.named(request.name) or not_found(context, request.name)
        return self._describe(self.aliases[request.alias])

    def DeleteModelAlias(  # noqa: N802
        self, request: model_messages.DeleteModelAliasRequest, context: grpc.ServicerContext
    ) -> Empty:
        found = self.aliases.pop(request.alias, None)
        return Empty() if found else not_found(context, f"models/@{request.alias}")

    def named(self, name: str) -> str:
        """The name of the model that a name stands for; "" if there is none."""
        name = self.aliases.get(name.removeprefix("models/@"), name)
        return name if name in self.names else ""

    def _describe(self, name: str) -> Model:
        model = describe_model(name)
        getattr(model.loss, self.loss).SetInParent()
        model.aliases.extend(sorted(alias for alias, of in self.aliases.items() if of == name))
        return model

    def ListModels(  # noqa: N802
        self,
        request: model_messages.ListModelsRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> model_messages.ListModelsResponse:
        names, token = page(self.names, request.page_token)
        return model_messages.ListModelsResponse(models=map(self._describe, names), next_page_token=token)

    def DownloadModel(  # noqa: N802
        self,
        request: model_messages.DownloadModelRequest,
        context: grpc.ServicerContext,  # noqa: ARG002
    ) -> Iterator[model_messages.DownloadModelResponse]:
        self.formats.append(request.format)
        if request.format == Model.ONNX:
            yield model_messages.DownloadModelResponse(
                data=b"onnx", size_bytes=4, sha256=hashlib.sha256(b"onnx").hexdigest()
            )
            return
        for offset in range(0, len(self.sent), 1_000_000):
            yield model_messages.DownloadModelResponse(offset=offset, data=self.sent[offset : offset + 1_000_000])

    def UploadModel(  # noqa: N802
        self, request_iterator: Iterator[model_messages.UploadModelRequest], context: grpc.ServicerContext
    ) -> Model:
        header = next(request_iterator).header
        name = f"models/{header.model_id or 'made'}"
        if name in self.names:
            refuse(context, grpc.StatusCode.ALREADY_EXISTS, f"{name} exists", "MODEL_EXISTS", {})
        data = b"".join(request.chunk.data for request in request_iterator)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (header.size_bytes, header.sha256)
        self.uploads[name] = (header, data)
        self.names += (name,)
        return describe_model(name)

    def DeleteModel(  # noqa: N802
        self, request: model_messages.DeleteModelRequest, context: grpc.ServicerContext
    ) -> Empty:
        if request.name not in self.names:
            not_found(context, request.name)
        self.names = tuple(name for name in self.names if name != request.name)
        return Empty()


def describe_model(name: str) -> Model:
    """A model with MODEL_FILE as its file."""
    sha256 = hashlib.sha256(MODEL_FILE).hexdigest()
    return Model(
        name=name,
        parameter_count=4810,
        validation_accuracy=0.97,
        size_bytes=len(MODEL_FILE),
        sha256=sha256,
        input_column="x",
    )


def page(names: Sequence[str], token: str) -> tuple[Sequence[str], str]:
    """One page, and the token of the next."""
    start = int(token or 0)
    return names[start : start + PAGE], str(start + PAGE) if start + PAGE < len(names) else ""


@dataclass
class FakeService:
    """All of it, at an address."""

    training: FakeTraining = field(default_factory=FakeTraining)
    datasets: FakeDatasets = field(default_factory=FakeDatasets)
    models: FakeModels = field(default_factory=FakeModels)
    inference: FakeInference = field(init=False)
    address: str = ""

    def __post_init__(self) -> None:
        self.inference = FakeInference(self.models.named)


@contextmanager
def serving(service: FakeService, address: str = "127.0.0.1:0") -> Iterator[FakeService]:
    """Answers gRPC at a free port, or at `address`, for as long as the block lasts."""
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    training_service_pb2_grpc.add_TrainingServiceServicer_to_server(service.training, server)
    dataset_service_pb2_grpc.add_DatasetServiceServicer_to_server(service.datasets, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service.models, server)
    open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service.inference, server)
    service.address = f"127.0.0.1:{server.add_insecure_port(address)}"
    server.start()
    try:
        yield service
    finally:
        server.stop(grace=None).wait()
