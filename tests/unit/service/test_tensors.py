"""Whatever a client sends as a tensor is taken as it says, or refused; nothing is made that was only claimed."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.inference import open_inference_pb2 as pb
from service.errors import InvalidArgument
from service.wire.tensors import DATATYPES, asked_outputs, input_rows

SIZES = st.one_of(st.integers(-2, 4), st.integers(-(2**63), 2**63 - 1))
NUMBERS = st.lists(st.integers(-(2**31), 2**31 - 1), max_size=9)


@st.composite
def requests(draw: st.DrawFn) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(raw_input_contents=draw(st.lists(st.binary(max_size=40), max_size=2)))
    for _ in range(draw(st.sampled_from((1, 1, 1, 0, 2)))):
        shape = draw(st.one_of(st.lists(SIZES, max_size=4), st.tuples(SIZES, st.just(2))))
        tensor = request.inputs.add(
            name=draw(st.sampled_from(("x", "x", "x", "y"))),
            datatype=draw(st.sampled_from((*DATATYPES, "BYTES", "", "fp32"))),
            shape=shape,
        )
        if draw(st.booleans()):
            tensor.contents.int_contents.extend(draw(NUMBERS))
        if draw(st.booleans()):
            tensor.contents.fp32_contents.extend(draw(NUMBERS))
    return request


@settings(max_examples=300, deadline=None)
@given(requests(), st.sampled_from(((2,), (), (0,), (1, 2))))
def test_what_is_taken_is_what_was_sent(request: pb.ModelInferRequest, row_shape: tuple[int, ...]) -> None:
    try:
        rows = input_rows(request, "x", row_shape)
    except InvalidArgument:
        return
    assert rows.shape == tuple(request.inputs[0].shape)
    assert rows.shape[1:] == row_shape
    sent = request.raw_input_contents
    dtype = np.dtype(DATATYPES[request.inputs[0].datatype][0])
    if sent:
        assert math.prod(rows.shape) * dtype.itemsize == len(sent[0])
    else:
        contents = request.inputs[0].contents
        assert rows.ravel().tolist() == [*contents.int_contents, *contents.fp32_contents]


@given(st.lists(st.sampled_from(("output", "class", "y", "")), max_size=3), st.booleans())
def test_outputs_that_are_given(names: list[str], has_classes: bool) -> None:
    given = ("output", "class") if has_classes else ("output",)
    wanted = [pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in names]
    request = pb.ModelInferRequest(outputs=wanted)
    try:
        found = asked_outputs(request, given)
    except InvalidArgument:
        assert not set(names) <= set(given) or len(names) > len(given)
    else:
        assert set(found) == set(names or given) <= set(given)
