"""EvaluateModel when workers are idle: they are asked for some of the rows, and nothing depends on them."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from chainrule.v1 import model_service_pb2 as pb
from service.cluster.local_cluster import LocalCluster
from tests.api.running import SECONDS, Service, npz, serving
from tests.api.test_models import upload
from worker.task import ROWS_AT_ONCE

WIDTH, PARTS = 1024, 4
"""So wide that a part takes longer than it takes to ask somebody."""

_random = np.random.default_rng(7)
X = _random.standard_normal((PARTS * ROWS_AT_ONCE - 1, 4)).astype(np.float32)
Y = _random.integers(3, size=len(X))
SHAPES = [(4, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH, 3)]
TENSORS = {}
for number, shape in enumerate(SHAPES):
    TENSORS[f"l{number}.weight"] = _random.standard_normal(shape).astype(np.float32) / np.float32(shape[0] ** 0.5)
    TENSORS[f"l{number}.bias"] = np.zeros(shape[1], np.float32)
LAYERS = [{"name": f"l{number}", "dense": {"units": shape[1]}} for number, shape in enumerate(SHAPES)]


def evaluated(root: Path, cluster: LocalCluster) -> tuple[float, dict[str, float]]:
    """The loss and the scores of the model, by a coordinator with that cluster."""
    with serving(root, cluster) as service:
        service.upload("points", npz(x=X, y=Y))
        upload(service, save(TENSORS), model_id="wide", network={"layers": LAYERS}, input_shape=[4], input_column="x")
        found = judged(service)
    assert found.rows == len(X)
    return found.loss, dict(found.scores)


def judged(service: Service) -> pb.EvaluateModelResponse:
    request = pb.EvaluateModelRequest(name="models/wide", dataset="datasets/points", target_column="y")
    request.loss.softmax_cross_entropy.SetInParent()
    return service.models.EvaluateModel(request, timeout=SECONDS)


@dataclass(frozen=True)
class Idle(LocalCluster):
    """A cluster with somebody idle, who does with a part what the test says."""

    does: Callable[[Callable[[Any], Any], Any, "Future[Any]"], None] = lambda *_: None
    asked: list[int] = field(default_factory=list)

    def help_with(self, work: Callable[[Any], Any], part: Any) -> "Future[Any]":  # type: ignore[override]
        self.asked.append(len(part.inputs))
        answer: Future[Any] = Future()
        self.does(work, part, answer)
        return answer


def answers(work: Callable[[Any], Any], part: Any, answer: "Future[Any]") -> None:
    answer.set_result(work(part))


def is_lost(work: Callable[[Any], Any], part: Any, answer: "Future[Any]") -> None:  # noqa: ARG001
    answer.set_exception(ConnectionResetError("whatever it is"))


def says_nothing(work: Callable[[Any], Any], part: Any, answer: "Future[Any]") -> None:
    """As one that got stuck."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[float, dict[str, float]]:
    return evaluated(tmp_path_factory.mktemp("alone"), LocalCluster())


@pytest.mark.parametrize("does", [answers, is_lost, says_nothing])
def test_idle_workers_are_asked_and_the_outcome_is_the_same(
    does: Any, alone: tuple[float, dict[str, float]], tmp_path: Path
) -> None:
    cluster = Idle(does=does)
    begun = time.monotonic()
    assert evaluated(tmp_path, cluster) == alone
    assert time.monotonic() - begun < SECONDS
    # The first part, which shows how long one takes, and the last are judged here.
    assert cluster.asked == [ROWS_AT_ONCE] * (PARTS - 2)
