"""Datasets and models, as clients see them."""

from collections.abc import Sequence

from google.protobuf import json_format

from chainrule.v1 import dataset_service_pb2 as datasets_pb
from chainrule.v1 import model_service_pb2 as models_pb
from chainrule.v1 import network_pb2, training_job_pb2
from chainrule.v1.preparation_pb2 import Windows
from service.data.datasets import Dataset
from service.models.registry import Model
from service.wire.datasets import format_value, group_messages
from service.wire.fields import fill
from service.wire.job import timestamp


def dataset_message(dataset: Dataset) -> datasets_pb.Dataset:
    """The resource for a dataset."""
    columns = [
        datasets_pb.Column(
            name=column.name,
            dtype=column.dtype,
            row_shape=column.row_shape,
            min=column.min,
            max=column.max,
            nonfinite_count=column.nonfinite_count,
            mean=column.mean,
            standard_deviation=column.standard_deviation,
            distinct_count=column.distinct_count,
            longest_text=column.longest_text,
        )
        for column in dataset.columns
    ]
    return datasets_pb.Dataset(
        name=dataset.name,
        rows=dataset.rows,
        columns=columns,
        size_bytes=dataset.size_bytes,
        sha256=dataset.sha256,
        create_time=timestamp(dataset.created),
        format=format_value(dataset.format),
        groups=group_messages(dataset.groups),
        stored_bytes=dataset.stored_bytes,
        created_by=dataset.created_by,
    )


def model_message(model: Model, aliases: Sequence[str] = ()) -> models_pb.Model:
    """The resource for a model with its aliases."""
    origin, windows = model.origin, None
    if model.windows:
        windows = Windows()
        fill(windows, model.windows)
    return models_pb.Model(
        name=model.name,
        training_job=f"jobs/{model.job_id}" if model.job_id else "",
        checkpoint="jobs/{}/checkpoints/{}".format(*model.checkpoint) if model.checkpoint else "",
        learning_rate_changes=[
            training_job_pb2.LearningRateChange(step=step, learning_rate=rate)
            for step, rate in (origin.rates if origin else ())
        ],
        network=json_format.Parse(model.layers_json, network_pb2.Network()),
        input_shape=model.input_shape,
        parameter_count=model.parameter_count,
        parameters_sha256=model.parameters_sha256,
        validation_loss=model.validation_loss,
        validation_accuracy=model.validation_accuracy,
        validation_scores=model.validation_scores,
        size_bytes=model.size_bytes,
        sha256=model.sha256,
        create_time=timestamp(model.created),
        input_column=model.input_column,
        loss=json_format.Parse(origin.loss_json, network_pb2.Loss()) if origin and origin.loss_json else None,
        spec=json_format.Parse(origin.spec_json, training_job_pb2.TrainingJobSpec())
        if origin and origin.spec_json
        else None,
        dataset_sha256=origin.dataset_sha256 if origin else "",
        aliases=aliases,
        classes=model.classes,
        windows=windows,
        created_by=model.created_by,
    )
