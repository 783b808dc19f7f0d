"""Predictions by the Open Inference Protocol: the model's own numbers, whatever way they are asked for."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import pytest
from safetensors.numpy import load

from chainrule.inference import open_inference_pb2 as pb
from chainrule.inference import open_inference_pb2_grpc as stubs
from chainrule.v1 import model_service_pb2 as models_pb
from tests.api.predicting import infer, infer_request, outputs
from tests.api.running import FLOWERS, SECONDS, Service, X, refusal, request, serving
from worker.arrays import Array


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """A coordinator and the id of its model."""
    with serving(tmp_path_factory.mktemp("data")) as service:
        service.upload("flowers", FLOWERS)
        yield service, service.end(service.create().name).result.model.removeprefix("models/")


def relu(hidden: Array) -> Array:
    result: Array = np.maximum(hidden, 0)
    return result


def by_hand(service: Service, model: str, rows: Array, between: Callable[[Array], Array] = relu) -> Array:
    """What the model's file says that it makes of some rows, in double precision."""
    sent = service.models.DownloadModel(models_pb.DownloadModelRequest(name=f"models/{model}"), timeout=SECONDS)
    tensors = {name: tensor.astype(float) for name, tensor in load(b"".join(part.data for part in sent)).items()}
    hidden = between(rows @ tensors["layers.0.weight"] + tensors["layers.0.bias"])
    result: Array = hidden @ tensors["layers.2.weight"] + tensors["layers.2.bias"]
    return result


def ask(service: Service) -> stubs.GRPCInferenceServiceStub:
    return stubs.GRPCInferenceServiceStub(service.channel)


def test_the_server_says_what_it_is(trained: tuple[Service, str]) -> None:
    service, _ = trained
    assert ask(service).ServerLive(pb.ServerLiveRequest(), timeout=SECONDS).live
    assert ask(service).ServerReady(pb.ServerReadyRequest(), timeout=SECONDS).ready
    metadata = ask(service).ServerMetadata(pb.ServerMetadataRequest(), timeout=SECONDS)
    assert (metadata.name, list(metadata.extensions)) == ("chainrule", [])
    assert metadata.version


def test_a_model_says_what_it_takes_and_gives(trained: tuple[Service, str]) -> None:
    service, model = trained
    found = ask(service).ModelMetadata(pb.ModelMetadataRequest(name=model), timeout=SECONDS)
    assert (found.name, list(found.versions)) == (model, ["1"])
    tensors = [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in (*found.inputs, *found.outputs)]
    assert tensors == [("x", "FP32", [-1, 4]), ("output", "FP32", [-1, 3])]


@pytest.mark.parametrize(
    ("name", "version", "ready"),
    [("{}", "", True), ("models/{}", "1", True), ("{}", "2", False), ("nobody", "", False), ("../x", "", False)],
)
def test_whether_a_model_is_ready(trained: tuple[Service, str], name: str, version: str, ready: bool) -> None:
    service, model = trained
    request = pb.ModelReadyRequest(name=name.format(model), version=version)
    assert ask(service).ModelReady(request, timeout=SECONDS).ready == ready


def test_it_predicts_what_its_file_says(trained: tuple[Service, str]) -> None:
    service, model = trained
    request = infer_request(model, X)
    request.id = "seven"
    request.outputs.add(name="output")
    response = infer(service, request)
    assert (response.model_name, response.model_version, response.id) == (model, "1", "seven")
    np.testing.assert_allclose(outputs(response), by_hand(service, model, X), atol=1e-5)


TYPES = {
    "FP64": ("<f8", "fp64_contents"),
    "FP32": ("<f4", "fp32_contents"),
    "FP16": ("<f2", ""),
    "INT64": ("<i8", "int64_contents"),
    "INT32": ("<i4", "int_contents"),
    "INT16": ("<i2", "int_contents"),
    "INT8": ("<i1", "int_contents"),
    "UINT64": ("<u8", "uint64_contents"),
    "UINT32": ("<u4", "uint_contents"),
    "UINT16": ("<u2", "uint_contents"),
    "UINT8": ("<u1", "uint_contents"),
    "BOOL": ("?", "bool_contents"),
}


@pytest.mark.parametrize("datatype", TYPES)
def test_every_datatype_in_either_form_gives_the_same(trained: tuple[Service, str], datatype: str) -> None:
    service, model = trained
    dtype, field = TYPES[datatype]
    rows = np.array([[0, 1, 1, 0], [1, 0, 1, 1]]).astype(dtype)
    expected = outputs(infer(service, infer_request(model, rows.astype(np.float32))))
    raw = infer_request(model, rows, datatype=datatype)
    raw.raw_input_contents[0] = rows.tobytes()
    np.testing.assert_array_equal(outputs(infer(service, raw)), expected)
    if field:
        typed = infer_request(model, rows, datatype=datatype, contents={field: rows.ravel().tolist()})
        del typed.raw_input_contents[:]
        response = infer(service, typed)
        assert not response.raw_output_contents
        np.testing.assert_array_equal(outputs(response), expected)


def test_no_rows(trained: tuple[Service, str]) -> None:
    service, model = trained
    assert outputs(infer(service, infer_request(model, X[:0]))).shape == (0, 3)


def test_a_batch_of_many_blocks_is_its_rows(trained: tuple[Service, str]) -> None:
    service, model = trained
    rows = np.random.default_rng(1).standard_normal((5_000, 4)).astype(np.float32)
    found = outputs(infer(service, infer_request(model, rows)))
    np.testing.assert_allclose(found, by_hand(service, model, rows), atol=1e-5)


def test_nothing_is_dropped_when_predicting(tmp_path: Path) -> None:
    with serving(tmp_path) as service:
        service.upload("flowers", FLOWERS)
        asked = request(epochs=1)
        layers = asked.training_job.spec.network.layers
        layers[1].dropout.rate = 0.9
        job = service.training.CreateTrainingJob(asked, timeout=SECONDS)
        model = service.end(job.name).result.model.removeprefix("models/")
        found = outputs(infer(service, infer_request(model, X)))
        np.testing.assert_allclose(found, by_hand(service, model, X, lambda hidden: hidden), atol=1e-5)


def test_many_callers_of_many_models_get_their_own_answers(tmp_path: Path) -> None:
    """With memory for one model at a time."""
    with serving(tmp_path, model_cache_bytes=200) as service:
        service.upload("flowers", FLOWERS)
        models = [service.end(service.create(epochs=1, seed=seed).name).result.model for seed in range(3)]
        expected = {model: outputs(infer(service, infer_request(model, X))) for model in models}
        assert not np.array_equal(expected[models[0]], expected[models[1]])
        with ThreadPoolExecutor(6) as pool:
            asked = models * 20
            for model, found in zip(asked, pool.map(lambda m: infer(service, infer_request(m, X)), asked), strict=True):
                np.testing.assert_array_equal(outputs(found), expected[model])


# What is refused


def contents(**fields: object) -> Callable[[pb.ModelInferRequest], object]:
    """Has the numbers come in contents."""

    def change(request: pb.ModelInferRequest) -> None:
        del request.raw_input_contents[:]
        request.inputs[0].contents.CopyFrom(pb.InferTensorContents(**fields))  # type: ignore[arg-type]

    return change


def shape(*sizes: int) -> Callable[[pb.ModelInferRequest], object]:
    def change(request: pb.ModelInferRequest) -> None:
        request.inputs[0].shape[:] = sizes

    return change


def raw(data: bytes, *more: bytes) -> Callable[[pb.ModelInferRequest], object]:
    def change(request: pb.ModelInferRequest) -> None:
        request.raw_input_contents[:] = [data, *more]

    return change


def datatype(name: str, then: Callable[[pb.ModelInferRequest], object] = lambda _: None) -> Callable[..., object]:
    def change(request: pb.ModelInferRequest) -> None:
        request.inputs[0].datatype = name
        then(request)

    return change


REFUSED: dict[str, tuple[Callable[[pb.ModelInferRequest], object], str, str]] = {
    "no model": (lambda r: setattr(r, "model_name", ""), "model_name", "is missing"),
    "a path": (lambda r: setattr(r, "model_name", "../../etc"), "model_name", 'must be "models/<id>"'),
    "no input": (lambda r: r.ClearField("inputs"), "inputs", "has 0 tensors; must have one, named 'x'"),
    "many inputs": (lambda r: [r.inputs.add() for _ in range(999)], "inputs", "has 1,000 tensors"),
    "another input": (lambda r: setattr(r.inputs[0], "name", "y"), "inputs[0].name", "the model's input is 'x'"),
    "text": (datatype("BYTES"), "inputs[0].datatype", "is 'BYTES'; must be one of FP32"),
    "no type": (datatype(""), "inputs[0].datatype", "is missing"),
    "no shape": (shape(), "inputs[0].shape", "is []; the model takes [-1, 4]"),
    "other rows": (shape(2, 5), "inputs[0].shape", "is [2, 5]; the model takes [-1, 4]"),
    "no rows axis": (shape(4), "inputs[0].shape", "is [4]; the model takes [-1, 4]"),
    "-1 rows": (shape(-1, 4), "inputs[0].shape", "is [-1, 4]"),
    "two negatives": (shape(-2, -4), "inputs[0].shape", "is [-2, -4]"),
    "2**62 rows": (shape(2**62, 4), "raw_input_contents[0]", "takes 73,786,976,294,838,206,464"),
    "a product beyond int64": (shape(2**62, 2**62), "inputs[0].shape", "the model takes [-1, 4]"),
    "many axes": (shape(*[1] * 500), "inputs[0].shape", ", ...]; the model takes"),
    "1 GiB claimed": (shape(1 << 26, 4), "raw_input_contents[0]", "has 640 bytes; FP32 of shape [67108864, 4] takes"),
    "too few bytes": (raw(b"1234"), "raw_input_contents[0]", "has 4 bytes; FP32 of shape [40, 4] takes 640"),
    "half a number": (raw(b"x" * 639), "raw_input_contents[0]", "has 639 bytes"),
    "too many raw": (raw(b"", b""), "raw_input_contents", "has 2 items; must have one"),
    "no numbers": (contents(), "inputs[0].contents.fp32_contents", "has 0 numbers; shape [40, 4] takes 160"),
    "the wrong field": (contents(int_contents=[1]), "inputs[0].contents.int_contents", "FP32 is fp32_contents"),
    "too few numbers": (contents(fp32_contents=[1]), "inputs[0].contents.fp32_contents", "has 1 numbers"),
    "2**62 rows of contents": (
        lambda r: (shape(2**62, 4)(r), contents(fp32_contents=[1])(r)),
        "inputs[0].contents.fp32_contents",
        "has 1 numbers",
    ),
    "half floats as contents": (datatype("FP16", contents()), "raw_input_contents", "the only place for FP16"),
    "out of an INT8": (
        lambda r: (datatype("INT8", contents(int_contents=[1, 2, 3, 128]))(r), shape(1, 4)(r)),
        "inputs[0].contents.int_contents",
        "has numbers from 1 to 128; INT8 goes from -128 to 127",
    ),
    "both forms": (
        lambda r: r.inputs[0].contents.fp32_contents.append(1),
        "inputs[0].contents",
        "must be left out where raw_input_contents",
    ),
    "NaN": (raw(np.full(160, np.nan, "<f4").tobytes()), "inputs[0]", "has numbers that are NaN"),
    "infinite": (raw(np.full(160, np.inf, "<f4").tobytes()), "inputs[0]", "has numbers that are NaN"),
    "beyond single precision": (
        lambda r: (datatype("FP64")(r), raw(np.full(160, 1e300).tobytes())(r)),
        "inputs[0]",
        "beyond float32",
    ),
    "another output": (lambda r: r.outputs.add(name="y"), "outputs[0].name", "the model gives 'output'"),
    "two outputs": (
        lambda r: [r.outputs.add(name="output") for _ in "ab"],
        "outputs",
        "has 2 tensors; the model gives 'output'",
    ),
    "an extension": (
        lambda r: r.outputs.add(name="output").parameters["classification"].CopyFrom(pb.InferParameter(int64_param=3)),
        "outputs[0].parameters",
        "has 'classification'",
    ),
    "a long id": (lambda r: setattr(r, "id", "x" * 2_000), "id", "has 2,000 characters"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_named(trained: tuple[Service, str], case: str) -> None:
    service, model = trained
    change, field, text = REFUSED[case]
    request = infer_request(model, X)
    change(request)
    found = refusal(lambda: infer(service, request))
    assert found.code == grpc.StatusCode.INVALID_ARGUMENT
    assert list(found.fields) == [field]
    assert text in found.fields[field]


@pytest.mark.parametrize("name", ["nobody", "@nobody", "models/@nobody"])
def test_a_model_that_is_not_there(trained: tuple[Service, str], name: str) -> None:
    service, model = trained
    calls: list[Callable[[], object]] = [
        lambda: infer(service, infer_request(name, X)),
        lambda: ask(service).ModelMetadata(pb.ModelMetadataRequest(name=name), timeout=SECONDS),
    ]
    for call in calls:
        found = refusal(call)
        assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
        assert name.removeprefix("models/") in found.message
    request = infer_request(model, X)
    request.model_version = "2"
    assert refusal(lambda: infer(service, request)).code == grpc.StatusCode.NOT_FOUND


def test_outputs_that_no_response_has_room_for(tmp_path: Path) -> None:
    """Four numbers in, thirty thousand out."""
    with serving(tmp_path) as service:
        service.upload("flowers", FLOWERS)
        wide = service.end(service.create(network__layers__2__dense__units=30_000, epochs=1).name).result.model
        found = refusal(lambda: infer(service, infer_request(wide, X)))
        assert found.fields == {
            "inputs[0].shape": "has 40 rows, whose outputs take 4,800,000 bytes; a response has room for 34 rows"
        }
        assert outputs(infer(service, infer_request(wide, X[:34]))).shape == (34, 30_000)


def test_a_model_without_memory_for_it(tmp_path: Path) -> None:
    with serving(tmp_path, model_cache_bytes=100) as service:
        service.upload("flowers", FLOWERS)
        model = service.end(service.create(epochs=1).name).result.model
        found = refusal(lambda: infer(service, infer_request(model, X)))
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MODEL_TOO_LARGE")
        assert "--model-cache-bytes" in found.message


def test_a_model_that_is_deleted_is_not_found(tmp_path: Path) -> None:
    """Though it was at hand."""
    with serving(tmp_path) as service:
        service.upload("flowers", FLOWERS)
        model = service.end(service.create(epochs=1).name).result.model
        infer(service, infer_request(model, X))
        (tmp_path / model).rename(tmp_path / "models" / ".gone")
        assert refusal(lambda: infer(service, infer_request(model, X))).code == grpc.StatusCode.NOT_FOUND
        (tmp_path / "models" / ".gone").rename(tmp_path / model)
        assert outputs(infer(service, infer_request(model, X))).shape == (40, 3)
