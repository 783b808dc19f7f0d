"""Every trouble on a job that has it, really trained: it alone is told, and nothing of a healthy job of that kind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.cluster.local_workers import LocalWorkers
from service.cluster.workers import OF_ORDER, Computed, Spent, packed
from service.jobs.events import Event, Failed, Starting, StateChanged, Succeeded
from service.jobs.health import Diagnosed, Trouble
from service.jobs.job import advance, is_no_news
from service.jobs.spec import OnDivergence
from service.training.checkpoints import Checkpoints
from service.training.diagnostics import told
from service.training.state import Diverged
from service.training.trainer import Trainer
from tests.unit.service.examples import NOON, job
from tests.unit.service.suffering import CASES, FEATURES, Plan
from tests.unit.service.training_run import NEVER, Run, in_memory
from worker.network import Network
from worker.task import Task


class Uneven(LocalWorkers):
    """Two workers, of which one takes `slow` times as long for its shards as the other."""

    slow: float = 1.0

    def spent(self) -> Spent:
        times = self.slow
        computed = (
            Computed(worker, int((1, times)[worker] * forward), int((1, times)[worker] * backward), shards)
            for _, forward, backward, shards in OF_ORDER.iter_unpack(super().spent().computed)
            for worker in (0, 1)
        )
        return Spent(computed=packed(*computed))


def trained(plan: Plan) -> list[Event]:
    """What a job's trainer tells, and how it ends."""
    of = plan.spec
    network = Network(of.layers, (FEATURES,))
    assert of.loss is not None
    task = Task(network, of.loss, of.shards_of(plan.rows))
    with in_memory() as directory:
        run = Run(Path(directory), NEVER, of, plan.data)
        workers = Uneven(task, plan.data, of.workers, of.precision.dtype)
        workers.slow = plan.slow
        trainer = Trainer(of, task, workers, Checkpoints(Path(directory), of.keep_last), NEVER, run.outbox, run.stop)
        try:
            _, epoch = trainer.train()
        except Diverged as error:
            return [*run.events, StateChanged(Failed("TRAINING_DIVERGED", str(error)))]
    losses = (epoch.training_loss, epoch.training_accuracy, epoch.validation_loss, epoch.validation_accuracy)
    end = Succeeded("", *losses, duration_seconds=1.0, epoch=epoch.epoch, confusion=trainer.confusion)
    return [*run.events, StateChanged(end)]


def diagnosed(plan: Plan) -> list[Diagnosed]:
    """All that is said to be wrong with a job, from its beginning to its end."""
    made, found = job(StateChanged(Starting()), of=plan.spec, rows=plan.rows), []
    for event in trained(plan):
        if not is_no_news(made, event):
            for each in told(made, event):
                made = advance(made, each, NOON)
                found += [each] if isinstance(each, Diagnosed) else []
    return found


FAILS: dict[str, Any] = {"on_divergence": OnDivergence.FAIL, "learning_rate": 4.0}


@pytest.mark.parametrize("trouble", CASES)
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_a_job_that_suffers_is_told_from_one_that_does_not(trouble: Trouble) -> None:
    case = CASES[trouble]
    assert {each.diagnosis.trouble for each in diagnosed(case.ill)} == {trouble}
    assert diagnosed(case.well) == []


def test_every_trouble_has_its_case() -> None:
    assert set(CASES) == set(Trouble)


def test_a_job_that_fails_of_its_divergence_is_told_so_at_its_end() -> None:
    failing = replace(CASES[Trouble.DIVERGENCE].ill, spec=replace(CASES[Trouble.DIVERGENCE].ill.spec, **FAILS))
    newest = diagnosed(failing)[-1].diagnosis
    assert newest.trouble is Trouble.DIVERGENCE
    assert "is NaN or infinite in step" in newest.evidence
    assert newest.step > 0
