"""Models that come and go: whole, checked and as announced, or refused with a reason."""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
import pytest
from google.protobuf import json_format
from safetensors.numpy import load, save

from chainrule.v1 import model_service_pb2 as pb
from chainrule.v1 import network_pb2
from tests.api.running import SECONDS, Service, refusal
from tests.unit.service.unreliable import GatedCluster
from worker.arrays import Array

NETWORK = network_pb2.Network(
    layers=[
        network_pb2.Layer(name="body", dense=network_pb2.Dense(units=4)),
        network_pb2.Layer(tanh=network_pb2.Tanh()),
        network_pb2.Layer(name="head", dense=network_pb2.Dense(units=3)),
    ]
)
_random = np.random.default_rng(8)
TENSORS: dict[str, Array] = {
    "layers.0.weight": _random.standard_normal((4, 4)).astype(np.float32),
    "layers.0.bias": _random.standard_normal(4).astype(np.float32),
    "layers.2.weight": _random.standard_normal((4, 3)).astype(np.float32),
    "layers.2.bias": _random.standard_normal(3).astype(np.float32),
}
METADATA = {"network": json_format.MessageToJson(NETWORK), "input_shape": "[4]"}
FILE = save(TENSORS)
HERE: dict[str, Any] = {"network": NETWORK, "input_shape": [4]}

INVALID, EXISTS = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS
NOT_NOW, MISSING = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND


def head(data: bytes, **fields: Any) -> pb.UploadModelRequest:
    announced: dict[str, Any] = {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return pb.UploadModelRequest(header=pb.UploadModelHeader(**{**announced, **fields}))


def chunks(data: bytes, size: int = 300) -> list[pb.UploadModelRequest]:
    return [
        pb.UploadModelRequest(chunk=pb.ModelChunk(offset=start, data=data[start : start + size]))
        for start in range(0, len(data), size)
    ]


def upload(service: Service, data: bytes, **fields: Any) -> pb.Model:
    return service.models.UploadModel(iter([head(data, **fields), *chunks(data)]), timeout=SECONDS)


def download(service: Service, name: str) -> bytes:
    parts = service.models.DownloadModel(pb.DownloadModelRequest(name=name), timeout=SECONDS)
    return b"".join(part.data for part in parts)


def delete(service: Service, name: str) -> None:
    service.models.DeleteModel(pb.DeleteModelRequest(name=name), timeout=SECONDS)


def get(service: Service, name: str) -> pb.Model:
    return service.models.GetModel(pb.GetModelRequest(name=name), timeout=SECONDS)


def bits(tensors: Mapping[str, Array]) -> dict[str, tuple[Any, bytes]]:
    return {name: (tensor.shape, tensor.tobytes()) for name, tensor in sorted(tensors.items())}


def files(service: Service) -> list[str]:
    root = Path(service.addresses["data_dir"]) / "models"
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*"))


def test_a_model_is_what_was_uploaded(service: Service) -> None:
    model = upload(service, FILE, model_id="own", input_column="pixels", **HERE)
    flat = np.concatenate([TENSORS[name].ravel() for name in TENSORS])
    assert (model.name, model.training_job, model.parameter_count) == ("models/own", "", 35)
    assert (list(model.input_shape), model.input_column) == ([4], "pixels")
    assert model.parameters_sha256 == hashlib.sha256(flat.tobytes()).hexdigest()
    assert [layer.name for layer in model.network.layers] == ["body", "", "head"]
    assert get(service, "models/own") == model
    data = download(service, "models/own")
    assert bits(load(data)) == bits(TENSORS)
    again = upload(service, data)  # our own file says all there is to say
    assert again.name not in ("models/own", "models/")
    assert (again.network, again.parameters_sha256, again.input_column) == (
        model.network,
        model.parameters_sha256,
        "pixels",
    )
    delete(service, "models/own")
    assert refusal(lambda: get(service, "models/own")).code == MISSING
    assert upload(service, save(TENSORS, METADATA), model_id="own").parameters_sha256 == model.parameters_sha256


def test_a_trained_model_goes_out_and_in(service: Service) -> None:
    job = service.end(service.create().name)
    trained = get(service, job.result.model)
    copy = upload(service, download(service, trained.name), model_id="copy")
    assert (copy.network, copy.parameters_sha256) == (trained.network, trained.parameters_sha256)
    assert (trained.training_job, copy.training_job) == (job.name, "")
    started = service.end(service.create(initial_model="models/copy", epochs=1).name)
    assert started.result.training_loss < job.result.training_loss + 0.1


def test_other_types_become_single_precision(service: Service) -> None:
    # Numbers that half precision holds exactly, and bfloat16 too.
    halves = {name: np.round(tensor * 8) / 8 for name, tensor in TENSORS.items()}
    expected = hashlib.sha256(np.concatenate([t.ravel() for t in halves.values()]).tobytes()).hexdigest()
    for dtype in (np.float16, np.float64):
        data = save({name: tensor.astype(dtype) for name, tensor in halves.items()})
        assert upload(service, data, **HERE).parameters_sha256 == expected
    assert upload(service, bfloat16(halves), **HERE).parameters_sha256 == expected


def bfloat16(tensors: Mapping[str, Array]) -> bytes:
    """A file as other libraries write it; NumPy has no such type."""
    header, body = dict[str, Any](), b""
    for name, tensor in tensors.items():
        data = (tensor.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        header[name] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def changed(**tensors: Any) -> bytes:
    """The file with some tensors changed, "_" for a dot, or left out where that is None."""
    given = {name.replace("_", "."): tensor for name, tensor in tensors.items()}
    return save({name: tensor for name, tensor in {**TENSORS, **given}.items() if tensor is not None})


BROKEN = TENSORS["layers.2.bias"].copy()
BROKEN[1] = np.nan
NO_FILE = "is not a model's file in the safetensors format: it is damaged, of another format, or has a header "

WRONG: dict[str, tuple[bytes, dict[str, Any], dict[str, str]]] = {
    "a tensor that is missing": (
        changed(layers_2_bias=None),
        HERE,
        {"tensors.layers.2.bias": "is missing; must be there, of shape (3,)"},
    ),
    "tensors of no layer": (
        changed(layers_1_scale=np.ones(2), x=np.ones(1)),
        HERE,
        dict.fromkeys(("tensors.layers.1.scale", "tensors.x"), "is none of the network's parameters; leave it out"),
    ),
    "tensors of other shapes": (
        changed(layers_0_weight=np.ones((4, 5)), layers_2_bias=np.ones((3, 1))),
        HERE,
        {
            "tensors.layers.0.weight": "has shape (4, 5); must have (4, 4)",
            "tensors.layers.2.bias": "has shape (3, 1); must have (3,)",
        },
    ),
    "integers": (
        changed(layers_0_bias=np.ones(4, np.int32)),
        HERE,
        {"tensors.layers.0.bias": "is of type I32; must be F64, F32, F16, BF16"},
    ),
    "numbers that are none": (
        changed(layers_2_bias=BROKEN, layers_0_bias=np.full(4, 1e300)),
        HERE,
        {
            "tensors.layers.0.bias": "has 4 elements that are NaN, infinite or beyond single precision",
            "tensors.layers.2.bias": "has 1 elements that are NaN, infinite or beyond single precision",
        },
    ),
    "no network": (
        FILE,
        {},
        {"header.network": "is missing, and so is it in the file's metadata; give the network and its input_shape"},
    ),
    "a shape alone": (FILE, {"input_shape": [4]}, {"header.network": "is missing; input_shape comes with the network"}),
    "a network that doesn't fit the shape": (
        FILE,
        {"network": NETWORK, "input_shape": []},
        {"header.network": "layers[0]: dense takes rows of shape (..., features), but rows of shape () reach it"},
    ),
    "a network that is wrong": (
        FILE,
        {"network": network_pb2.Network(layers=[network_pb2.Layer()]), "input_shape": [4]},
        {"header.network.layers[0]": "says nothing; set one of "},
    ),
    "a network of absurd size": (
        FILE,
        {
            "network": network_pb2.Network(layers=[network_pb2.Layer(dense=network_pb2.Dense(units=10**6))] * 2),
            "input_shape": [4],
        },
        {"header.network": "has 1,000,006,000,000 parameters and makes "},
    ),
    "a shape of absurd size": (FILE, {**HERE, "input_shape": [2**60]}, {"header.input_shape": "must have at most 8 "}),
    "no shape at all": (FILE, {"network": NETWORK}, {"header.network": "layers[0]: dense takes rows"}),
    "metadata that is no network": (
        save(TENSORS, {**METADATA, "network": "{]"}),
        {},
        {"metadata.network": "is not a chainrule.v1.Network in JSON"},
    ),
    "metadata that goes very deep": (
        save(TENSORS, {"network": '{"a":' * 50_000, "input_shape": "[" * 50_000}),
        {},
        {
            "metadata.network": "is not a chainrule.v1.Network in JSON",
            "metadata.input_shape": "is not a list of whole numbers in JSON",
        },
    ),
    "metadata without a shape": (
        save(TENSORS, {"network": METADATA["network"]}),
        {},
        {"metadata.input_shape": "is not a list of whole numbers in JSON"},
    ),
    "metadata with a shape that is none": (
        save(TENSORS, {**METADATA, "input_shape": "[4.5]"}),
        {},
        {"metadata.input_shape": "is not a list of whole numbers in JSON"},
    ),
    "something else": (b"PK\3\4" + bytes(300), HERE, {"chunk.data": NO_FILE}),
    "half a file": (FILE[:-20], HERE, {"chunk.data": NO_FILE}),
    "a file with something behind": (FILE + b"x", HERE, {"chunk.data": NO_FILE}),
    "four bytes": (b"none", HERE, {"chunk.data": NO_FILE}),
    "a header of absurd size": (
        (1 << 40).to_bytes(8, "little") + bytes(20),
        HERE,
        {"chunk.data": NO_FILE},
    ),
    "a wrong id": (FILE, {**HERE, "model_id": "../x"}, {"header.model_id": "is '../x'; must have 1 to 63"}),
    "a wrong checksum": (FILE, {**HERE, "sha256": "0" * 64}, {"header.sha256": "is 0000"}),
    "no checksum": (FILE, {**HERE, "sha256": ""}, {"header.sha256": "must be the file's SHA-256"}),
    "no size": (FILE, {**HERE, "size_bytes": 0}, {"header.size_bytes": "is 0; must be the file's size, above 0"}),
    "more than announced": (FILE, {**HERE, "size_bytes": 310}, {"chunk.data": "goes to byte "}),
    "less than announced": (FILE, {**HERE, "size_bytes": 10**5}, {"header.size_bytes": "is 100,000, but the upload "}),
    "a column that is none": (FILE, {**HERE, "input_column": "\n"}, {"header.input_column": "must be at most 100 "}),
}


@pytest.mark.parametrize(("data", "fields", "wrong"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_and_leaves_nothing(
    shared: Service, data: bytes, fields: dict[str, Any], wrong: dict[str, str]
) -> None:
    before = files(shared)
    found = refusal(lambda: upload(shared, data, **fields))
    assert found.code == INVALID
    assert set(found.fields) == set(wrong)
    for field, text in wrong.items():
        assert text in found.fields[field]
    assert files(shared) == before


@pytest.mark.parametrize(
    "messages", [[], chunks(FILE), [pb.UploadModelRequest()], [head(FILE, **HERE)] * 2], ids=lambda each: len(each)
)
def test_an_upload_begins_with_its_header(shared: Service, messages: list[pb.UploadModelRequest]) -> None:
    found = refusal(lambda: shared.models.UploadModel(iter(messages), timeout=SECONDS))
    assert (found.code, list(found.fields)) == (INVALID, ["payload"])


def test_parts_come_in_order(shared: Service) -> None:
    first, *rest = chunks(FILE)
    for sent in (rest, [first, first, *rest]):
        messages = iter([head(FILE, **HERE), *sent])
        found = refusal(partial(shared.models.UploadModel, messages, timeout=SECONDS))
        assert (found.code, list(found.fields)) == (INVALID, ["chunk.offset"])


def test_an_id_is_taken_once(service: Service) -> None:
    upload(service, FILE, model_id="own", **HERE)
    found = refusal(lambda: upload(service, FILE, model_id="own", **HERE))
    assert (found.code, found.reason) == (EXISTS, "MODEL_EXISTS")
    job = service.end(service.create().name)
    delete(service, job.result.model)
    found = refusal(lambda: upload(service, FILE, model_id=job.name.removeprefix("jobs/"), **HERE))
    assert (found.code, found.message) == (
        EXISTS,
        f"{job.result.model} is the model of {job.name}; choose another id",
    )


def test_a_file_may_be_too_large(service: Service) -> None:
    found = refusal(lambda: upload(service, FILE, **{**HERE, "size_bytes": 2 << 30}))
    assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MODEL_TOO_LARGE")


def test_what_can_not_be_deleted(gated: Service, cluster: GatedCluster) -> None:
    assert refusal(lambda: delete(gated, "models/nobody")).code == MISSING
    assert refusal(lambda: delete(gated, "nobody")).code == INVALID
    job = gated.create()
    name = job.name.replace("jobs/", "models/")
    found = refusal(lambda: delete(gated, name))
    assert (found.code, found.reason) == (NOT_NOW, "MODEL_IN_USE")
    assert found.message == f"{job.name} is just making {name}; cancel that first, or wait for its end"
    cluster.gate.set()
    gated.end(job.name)
    delete(gated, name)
    assert gated.models.ListModels(pb.ListModelsRequest(), timeout=SECONDS).models == []


def test_a_download_says_what_comes(service: Service) -> None:
    model = upload(service, FILE, **HERE)
    first = next(iter(service.models.DownloadModel(pb.DownloadModelRequest(name=model.name), timeout=SECONDS)))
    assert (first.size_bytes, first.sha256) == (model.size_bytes, model.sha256)


def test_a_model_as_onnx(service: Service) -> None:
    model = upload(service, FILE, input_column="pixels", **HERE)
    request = pb.DownloadModelRequest(name=model.name, format=pb.Model.ONNX)
    first, *rest = service.models.DownloadModel(request, timeout=SECONDS)
    data = first.data + b"".join(part.data for part in rest)
    assert (first.size_bytes, first.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    hidden = np.tanh(x @ TENSORS["layers.0.weight"] + TENSORS["layers.0.bias"])
    expected = hidden @ TENSORS["layers.2.weight"] + TENSORS["layers.2.bias"]
    np.testing.assert_allclose(session.run(["output"], {"pixels": x})[0], expected, rtol=1e-5, atol=1e-5)
    request.format = 9  # type: ignore[assignment]
    assert refusal(lambda: list(service.models.DownloadModel(request, timeout=SECONDS))).fields == {
        "format": "has the unknown value 9; SAFETENSORS or ONNX"
    }
