"""Errors on their way to a client: a code, a reason and the fields, within what a client's headers hold."""

from typing import Any

import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2

from service.api.errors import CODES, status
from service.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    Violation,
    Violations,
)

HEADERS = 8192
"""What a gRPC client takes by default, in bytes of names and values."""


def unpack(answer: status_pb2.Status, kind: type) -> Any:
    found = kind()
    assert any(detail.Unpack(found) for detail in answer.details)
    return found


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (InvalidArgument.of("a", "is 1"), code_pb2.INVALID_ARGUMENT, "INVALID_FIELD"),
        (InvalidArgument.of("a", "is 1", "BAD"), code_pb2.INVALID_ARGUMENT, "BAD"),
        (NotFound("jobs/a"), code_pb2.NOT_FOUND, "JOB_NOT_FOUND"),
        (NotFound("datasets/a"), code_pb2.NOT_FOUND, "DATASET_NOT_FOUND"),
        (AlreadyExists("there", "TAKEN"), code_pb2.ALREADY_EXISTS, "TAKEN"),
        (FailedPrecondition("not now", "BUSY"), code_pb2.FAILED_PRECONDITION, "BUSY"),
        (ResourceExhausted("full", "FULL"), code_pb2.RESOURCE_EXHAUSTED, "FULL"),
        (Unavailable("stopping", "STOPPING"), code_pb2.UNAVAILABLE, "STOPPING"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_error_has_a_code_and_a_reason(error: ServiceError, code: int, reason: str) -> None:
    answer = status(error)
    info = unpack(answer, error_details_pb2.ErrorInfo)
    assert (answer.code, answer.message) == (code, error.message)
    assert (info.reason, info.domain) == (reason, "chainrule")


def test_the_table_has_the_whole_tree() -> None:
    assert set(CODES) == set(ServiceError.__subclasses__())
    assert len(set(CODES.values())) == len(CODES)


def test_fields_are_named() -> None:
    found = Violations()
    found.raise_any()
    found.add("a.b", "is 1; must be 2")
    found.add("c[3]", "is missing")
    with pytest.raises(InvalidArgument) as refused:
        found.raise_any()
    answer = status(refused.value)
    assert answer.message == "a.b: is 1; must be 2; c[3]: is missing"
    fields = unpack(answer, error_details_pb2.BadRequest).field_violations
    assert [(v.field, v.description) for v in fields] == [("a.b", "is 1; must be 2"), ("c[3]", "is missing")]


def headers(answer: status_pb2.Status) -> int:
    """What an answer takes in headers: the message percent-encoded, the whole in base64."""
    message = sum(1 if character.isascii() else 3 * len(character.encode()) for character in answer.message)
    return message + len(answer.SerializeToString()) * 4 // 3


MANY = [
    [Violation(f"training_job.spec.network.layers[{n}]", "says nothing; set one of dense, relu") for n in range(1000)],
    [Violation("field", "x" * 100_000)],
    [Violation("field", "\N{SNOWMAN}" * 100_000), Violation("other", "is 1")],
    [Violation("field", "\N{SNOWMAN}" * 80), *[Violation("other", "\N{PILE OF POO}" * 20)] * 50],
]


@pytest.mark.parametrize("violations", MANY, ids=["many", "long", "long in characters", "many in characters"])
def test_an_answer_fits_into_headers(violations: list[Violation]) -> None:
    answer = status(InvalidArgument(violations))
    assert headers(answer) < HEADERS - 1000
    shown = unpack(answer, error_details_pb2.BadRequest).field_violations
    assert [v.field for v in shown] == [v.field for v in violations[: len(shown)]]
    assert 1 <= len(shown) <= len(violations)
    left = len(violations) - len(shown)
    assert answer.message.endswith(f"; and {left:,} more") == (left > 0)
