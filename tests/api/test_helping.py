"""EvaluateModel when workers are idle: they are asked for some of the rows, and nothing depends on them."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from chainrule.v1 import model_service_pb2 as pb
from service.cluster.local_cluster import LocalCluster
from tests.api.running import SECONDS, Service, npz, serving
from tests.api.test_models import chunks, head
from worker.task import ROWS_AT_ONCE

WIDTH, PARTS = 1024, 4
"""So wide that a part takes longer than it takes to ask somebody."""

_random = np.random.default_rng(7)
X = _random.standard_normal((PARTS * ROWS_AT_ONCE - 1, 4)).astype(np.float32)
Y = _random.integers(3, size=len(X))
SHAPES = [(4, WIDTH), (WIDTH, WIDTH), (WIDTH, WIDTH), (WIDTH, 3)]
TENSORS = {}
for number, shape in enumerate(SHAPES):
    TENSORS[f"layers.{number}.weight"] = _random.standard_normal(shape).astype(np.float32) / np.float32(shape[0] ** 0.5)
    TENSORS[f"layers.{number}.bias"] = np.zeros(shape[1], np.float32)
LAYERS = [{"dense": {"units": units}} for _, units in SHAPES]


@dataclass(frozen=True)
class Idle(LocalCluster):
    """A cluster with somebody idle, if a test says what that one does with a part."""

    does: list[Callable[[Callable[[Any], Any], Any, "Future[Any]"], None]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)

    def help_with(self, work: Callable[[Any], Any], part: Any) -> "Future[Any] | None":
        if not self.does:
            return None
        self.asked.append(len(part.inputs))
        answer: Future[Any] = Future()
        self.does[-1](work, part, answer)
        return answer


@pytest.fixture(scope="module")
def idle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Idle]]:
    """A coordinator with a model and rows to judge it by."""
    cluster = Idle()
    with serving(tmp_path_factory.mktemp("data"), cluster) as service:
        service.upload("points", npz(x=X, y=Y))
        file = save(TENSORS)
        first = head(file, model_id="wide", network={"layers": LAYERS}, input_shape=[4], input_column="x")
        service.models.UploadModel(iter([first, *chunks(file, 1 << 20)]), timeout=SECONDS)
        yield service, cluster


def judged(service: Service) -> tuple[float, dict[str, float]]:
    """The loss and the scores of the model."""
    request = pb.EvaluateModelRequest(name="models/wide", dataset="datasets/points", target_column="y")
    request.loss.softmax_cross_entropy.SetInParent()
    found = service.models.EvaluateModel(request, timeout=SECONDS)
    assert found.rows == len(X)
    return found.loss, dict(found.scores)


def answers(work: Callable[[Any], Any], part: Any, answer: "Future[Any]") -> None:
    answer.set_result(work(part))


def is_lost(work: Callable[[Any], Any], part: Any, answer: "Future[Any]") -> None:  # noqa: ARG001
    answer.set_exception(ConnectionResetError("whatever it is"))


def says_nothing(work: Callable[[Any], Any], part: Any, answer: "Future[Any]") -> None:
    """As one that got stuck."""


@pytest.mark.parametrize("does", [answers, is_lost, says_nothing])
def test_idle_workers_are_asked_and_the_outcome_is_the_same(does: Any, idle: tuple[Service, Idle]) -> None:
    service, cluster = idle
    cluster.does.clear()
    cluster.asked.clear()
    alone = judged(service)
    cluster.does.append(does)
    assert judged(service) == alone
    # The first part, which shows how long one takes, and the last are judged here.
    assert cluster.asked == [ROWS_AT_ONCE] * (PARTS - 2)
