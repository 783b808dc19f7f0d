"""A machine whose results would have other bits, or whose clock is wrong, does not work for a coordinator."""

import json
import platform
import subprocess
import sys
import time
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from service.cluster.members import Member
from service.cluster.terms import terms, trouble
from service.cluster.workers import WorkersError
from worker.actor import Membership
from worker.task import Computation
from worker.versions import SAME, versions


def test_a_machine_like_the_coordinators_may_join() -> None:
    assert trouble(terms()) == ""


def test_versions_are_of_all_that_decides_the_bits() -> None:
    assert versions().startswith("Chainrule ")
    assert f"NumPy {np.__version__}, " in versions()
    assert "blas" in versions()


@pytest.mark.parametrize("other", ["NumPy 1.26.4", "Chainrule 9.9.9"])
def test_other_versions_are_turned_away(other: str) -> None:
    said = trouble(json.dumps({"versions": other, "time": time.time()}).encode())
    assert said == f"the coordinator has {other}, and this machine {versions()}; {SAME}"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the kinds are those of x86")
def test_a_processor_whose_sums_are_others_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for kind in ("Haswell", "Sandybridge"):
        monkeypatch.setenv("OPENBLAS_CORETYPE", kind)
        command = [sys.executable, "-c", "from worker.versions import versions; print(versions())"]
        found.append(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert found[0] != found[1]


@pytest.mark.parametrize(("seconds", "is_wrong"), [(-3600, True), (-70, True), (-50, False), (50, False), (70, True)])
def test_a_clock_that_is_far_off_is_turned_away(seconds: float, is_wrong: bool) -> None:
    said = trouble(json.dumps({"versions": versions(), "time": time.time() + seconds}).encode())
    assert bool(said) == is_wrong
    if is_wrong:
        assert "the coordinator's clock says 20" in said
        assert "timedatectl" in said


@pytest.mark.parametrize(("found", "told"), [("NumPy 1.26.4", "NumPy 1.26.4"), ("", "older versions")])
def test_a_worker_that_came_by_another_way_computes_nothing(found: str, told: str) -> None:
    """As where `ray start` made the node, such as KubeRay's."""
    answer: Future[Membership] = Future()
    answer.set_result(Membership(1, "node", shared=False, versions=found))
    call: Any = SimpleNamespace(remote=lambda *_: SimpleNamespace(future=lambda: answer))
    actor = SimpleNamespace(join=SimpleNamespace(options=lambda **_: call))
    member = Member("job", 0, actor, 30.0, lambda: None)
    task = cast("Computation", None)
    assert not member.join(task, (), None)
    with pytest.raises(WorkersError, match=f"a worker has {told}, and the coordinator {versions()}; run the same"):
        member.join(task, (), None)
    assert member.membership is None
