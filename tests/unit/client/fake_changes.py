"""The parts of the small service in which jobs change, and models are made of their checkpoints."""

import grpc

from chainrule.v1 import model_service_pb2 as model_messages
from chainrule.v1 import model_service_pb2_grpc, training_service_pb2_grpc
from chainrule.v1 import training_service_pb2 as training_messages
from chainrule.v1.model_service_pb2 import Model
from chainrule.v1.training_job_pb2 import TrainingJob
from tests.unit.client.refusing import not_found, refuse

ETAG = "r1"


class FakeChanges(training_service_pb2_grpc.TrainingServiceServicer):
    """Jobs whose settings are what a request says, whatever that is."""

    jobs: dict[str, TrainingJob]

    def UpdateTrainingJob(  # noqa: N802
        self, request: training_messages.UpdateTrainingJobRequest, context: grpc.ServicerContext
    ) -> TrainingJob:
        asked = request.training_job
        job = self.jobs.get(asked.name) or not_found(context, asked.name)
        if asked.etag not in ("", ETAG):
            refuse(context, grpc.StatusCode.ABORTED, f"{job.name} has been changed", "ETAG_MISMATCH", {})
        for path in request.update_mask.paths:
            if path == "labels":
                job.labels.clear()
                job.labels.update(asked.labels)
            elif path.startswith("spec."):
                name = path.removeprefix("spec.")
                setattr(job.spec, name, getattr(asked.spec, name))
            else:
                setattr(job, path, getattr(asked, path))
        return job

    def ListCheckpoints(  # noqa: N802
        self, request: training_messages.ListCheckpointsRequest, context: grpc.ServicerContext
    ) -> training_messages.ListCheckpointsResponse:
        if request.parent not in self.jobs:
            not_found(context, request.parent)
        steps = (30,) if request.page_token else (50, 40)
        return training_messages.ListCheckpointsResponse(
            checkpoints=[
                training_messages.Checkpoint(
                    name=f"{request.parent}/checkpoints/{step}", step=step, epoch=step // 10, best=step == 40
                )
                for step in steps
            ],
            next_page_token="" if request.page_token else "more",
        )


class FakePromotion(model_service_pb2_grpc.ModelServiceServicer):
    """Makes a model of every checkpoint but those of step 0."""

    def CreateModel(  # noqa: N802
        self, request: model_messages.CreateModelRequest, context: grpc.ServicerContext
    ) -> Model:
        _, job, _, step = request.checkpoint.split("/")
        if step == "0":
            not_found(context, request.checkpoint)
        return Model(
            name=f"models/{request.model_id or f'{job}-{step}'}",
            training_job=f"jobs/{job}",
            checkpoint=request.checkpoint,
            parameter_count=4810,
        )
