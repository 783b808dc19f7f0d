"""What a model is to be judged by, and what it came to."""

from google.protobuf import json_format

from chainrule.v1 import model_service_pb2 as pb
from chainrule.v1 import training_job_pb2
from service.errors import Violations
from service.models.evaluation import Judgement, Question
from service.models.registry import Model
from service.wire.names import parse_name
from service.wire.network import model_loss, parse_loss


def parse_question(request: pb.EvaluateModelRequest, model: Model) -> Question:
    """What a request asks of a model; what it leaves out is as in the model's job. Raises InvalidArgument."""
    violations = Violations()
    dataset = parse_name(request.dataset, "datasets", "dataset", violations)
    if request.HasField("loss"):
        loss = parse_loss(request.loss, "loss", violations)
    elif model.origin and model.origin.loss_json:
        loss = model_loss(model.origin.loss_json)
    else:
        loss = None
        violations.add("loss", f"is missing; it is not known which one {model.name} was trained with")
    violations.raise_any()
    assert loss is not None  # noqa: S101 - a missing one was noted
    return Question(
        dataset=dataset,
        input_column=request.input_column or model.input_column,
        target_column=request.target_column or _target_column(model),
        weight_column=request.weight_column,
        loss=loss,
    )


def judgement_message(model: Model, judgement: Judgement, seconds: float) -> pb.EvaluateModelResponse:
    """The response."""
    return pb.EvaluateModelResponse(
        model=model.name,
        loss=judgement.loss,
        scores=judgement.scores,
        rows=judgement.rows,
        duration_seconds=seconds,
    )


def _target_column(model: Model) -> str:
    if model.origin is None or not model.origin.spec_json:
        target = model.preparation.target if model.preparation else None
        return target.column if target else "y"
    return json_format.Parse(model.origin.spec_json, training_job_pb2.TrainingJobSpec()).data.target_column
