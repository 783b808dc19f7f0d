"""Triton's own client, unchanged, asks a model that was really trained."""

import io

import numpy as np
import pytest
import tritonclient.grpc as triton

from chainrule.samples import make_sample
from chainrule.v1.training_job_pb2 import TrainingJob
from tests.system.coordinator import Coordinator

pytestmark = pytest.mark.system


def test_it_classifies_the_digits(coordinator: Coordinator, undisturbed: TrainingJob) -> None:
    model = undisturbed.result.model.removeprefix("models/")
    columns = np.load(io.BytesIO(make_sample("digits")))
    images, classes = columns["x"], columns["y"]
    with triton.InferenceServerClient(coordinator.grpc) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready(model)
        assert not client.is_model_ready("nobody")
        assert client.get_server_metadata().name == "chainrule"
        described = client.get_model_metadata(model)
        rows = triton.InferInput(described.inputs[0].name, images.shape, described.inputs[0].datatype)
        rows.set_data_from_numpy(images.astype(np.float32))
        wanted = [triton.InferRequestedOutput(described.outputs[0].name)]
        answer = client.infer(model, [rows], outputs=wanted, request_id="digits").as_numpy("output")
        assert answer.shape == (len(images), 10)
        assert (answer.argmax(axis=1) == classes).mean() > 0.97
        coordinator.client.set_model_alias("production", model)
        again = client.infer("@production", [rows]).as_numpy("output")
        np.testing.assert_array_equal(again, answer)
        np.testing.assert_array_equal(coordinator.client.predict("@production", images), answer)
        assert (coordinator.sample("chainrule_predictions_total", outcome="answered") or 0) >= 3
        with pytest.raises(triton.InferenceServerException, match="there is no model models/nobody"):
            client.infer("nobody", [rows])
