"""Jobs whose mini-batches a client sends, over gRPC: the laws, and what is refused."""

import numpy as np

from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1.model_service_pb2 import GetModelRequest
from tests.api.online import create, stream, trained
from tests.api.running import SECONDS, Service


def test_it_learns_what_it_is_sent_and_leaves_a_model(shared: Service) -> None:
    job = create(shared)
    ended, answers = trained(shared, job, 30)
    assert ended.state == job_pb.TrainingJob.SUCCEEDED
    assert [each.step for each in answers] == list(range(1, 31))
    losses = [each.loss for each in answers]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert all(each.gradient_norm > 0 for each in answers)
    assert shared.models.GetModel(GetModelRequest(name=ended.result.model), timeout=SECONDS).input_shape == [4]
    epochs = [event.epoch_completed for event in shared.events(job.name) if event.HasField("epoch_completed")]
    assert [epoch.step for epoch in epochs] == [4, 8, 12, 16, 20, 24, 28, 30]
    assert epochs[0].training_loss == np.mean(losses[:4])
    assert (ended.progress.step, ended.progress.total_steps, ended.progress.samples) == (30, 30, 240)
