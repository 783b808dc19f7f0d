"""The faults. Each is a function that makes one happen to a job, and raises NotSurvived if that isn't survived."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc

from service.training.checkpoints import Checkpoints
from tests.chaos.coordinator import SECONDS, until
from tests.chaos.stage import Skipped, Stage, send
from tests.chaos.training import Following, check, check_failed, measure

KILL, STOP, GO_ON = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT
DISK_BYTES = 12 << 20
SGD: dict[str, Any] = {"optimizer": {"learningRate": 1e30, "sgd": {}}}
TOO_FAST: dict[str, Any] = {"optimizer": {"learningRate": 3e18}, "onDivergence": "ROLLBACK"}
"""Adam moves every parameter by about the rate: this one overflows in a step, half of a half of it in the validation,
and an eighth not at all."""


def worker_killed(stage: Stage) -> None:
    """One worker, up to three times."""
    job = stage.job()
    for _ in range(stage.random.randint(1, 3)):
        stage.phase(job)
        send(KILL, [stage.pick_worker()])
    stage.check_same(job)


def all_workers_killed(stage: Stage) -> None:
    """All of them at once."""
    job = stage.job(workers=stage.random.randint(2, 4))
    stage.phase(job)
    send(KILL, stage.coordinator.workers())
    stage.check_same(job)


def trainer_killed(stage: Stage) -> None:
    """The job's trainer, and the one that is kept ready."""
    job = stage.job()
    stage.phase(job)
    send(KILL, stage.coordinator.trainers())
    stage.check_same(job)


def idle_killed(stage: Stage) -> None:
    """The workers and the trainer that wait for a job."""
    send(KILL, [*stage.coordinator.workers(), *stage.coordinator.trainers()])
    stage.check_same(stage.job())


def coordinator_killed(stage: Stage) -> None:
    """The coordinator; sometimes it is back before its old trainer is gone."""
    job = stage.job()
    stage.phase(job)
    stage.coordinator.kill(KILL)
    stage.shortly(3.0)
    stage.coordinator.start()
    stage.check_same(job)


def coordinator_terminated(stage: Stage) -> None:
    """The coordinator, in the orderly way."""
    job = stage.job()
    stage.phase(job)
    stage.coordinator.kill(signal.SIGTERM)
    stage.coordinator.check_nothing_left()
    stage.coordinator.start()
    stage.check_same(job)


def raylet_killed(stage: Stage) -> None:
    """Ray's process for this machine."""
    _lose_ray(stage, "raylet/raylet", "raylet of this machine")


def head_killed(stage: Stage) -> None:
    """Ray's process for the whole cluster."""
    _lose_ray(stage, "gcs/gcs_server", "head")


def _lose_ray(stage: Stage, process: str, told: str) -> None:
    """The coordinator ends with a reason, and its jobs go on when it is started again."""
    job = stage.job()
    stage.phase(job)
    send(KILL, stage.coordinator.processes(process))
    code = stage.coordinator.ended()
    log = stage.coordinator.log.read_text()
    check(code == 1 and "the Ray cluster is lost" in log and told in log, f"the coordinator ended with {code}: {log}")
    stage.coordinator.start()
    stage.check_same(job)


def worker_slow(stage: Stage) -> None:
    """A worker that stands still for longer than a straggler may, and goes on while others have done its work."""
    job = stage.job()
    job.reach(1)
    stage.shortly()
    stopped = stage.pick_worker()
    before = len(job.epochs())
    send(STOP, [stopped])
    until(lambda: job.has_ended() or len(job.epochs()) > before + 1, f"{job.name} goes on without its slow worker")
    send(GO_ON, [stopped])
    stage.check_same(job)


def worker_stuck(stage: Stage) -> None:
    """A worker that stands still until it is given up."""
    job = stage.job()
    job.reach(1)
    stopped = stage.pick_worker()
    send(STOP, [stopped])
    stage.check_same(job)
    with suppress(ProcessLookupError):
        os.kill(stopped, GO_ON)


def idle_worker_stuck(stage: Stage) -> None:
    """Workers that stand still before a job wants them."""
    send(STOP, stage.coordinator.workers())
    stage.check_same(stage.job(minWorkers=2))


def trainer_stuck(stage: Stage) -> None:
    """A trainer that stands still until it is given up; the one that is kept ready too."""
    job = stage.job()
    stage.phase(job)
    send(STOP, stage.coordinator.trainers())
    stage.check_same(job)


def checkpoint_damaged(stage: Stage) -> None:
    """The newest checkpoint, while the coordinator is away."""
    job = stage.job()
    job.reach_checkpoint()
    stage.phase(job)
    stage.coordinator.kill(KILL)
    until(lambda: not stage.coordinator.trainers(), "the old trainer ends")
    newest = max((stage.coordinator.data / "checkpoints" / job.id).glob("step-*"))
    content = bytearray(newest.read_bytes())
    if stage.random.random() < 0.5:
        content[stage.random.randrange(len(content))] ^= 1 << stage.random.randrange(8)
    else:
        del content[stage.random.randrange(len(content)) :]
    newest.write_bytes(content)
    stage.coordinator.start()
    stage.check_same(job)


def disk_full(stage: Stage) -> None:
    """The disk under all that the coordinator keeps."""
    job = stage.job()
    job.reach_checkpoint()
    with _filled(stage.coordinator.data / "filler"):
        until(
            lambda: job.has_ended() or "no space left" in stage.coordinator.log.read_text(), "the full disk is noticed"
        )
        kept = Checkpoints(stage.coordinator.data / "checkpoints" / job.id).load()
        check(kept is not None and kept.step > 0, "no checkpoint can be read")
    check_failed(job, "STORAGE_FULL")
    stage.check_same(stage.job())


@contextmanager
def _filled(path: Path) -> Iterator[None]:
    """Inside, there is no room beside a file."""
    try:
        with path.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(bytes(4096)):
                continue
        yield
    finally:
        path.unlink()


def diverged(stage: Stage) -> None:
    """A learning rate that makes the loss NaN."""
    message = check_failed(stage.job(**SGD), "TRAINING_DIVERGED")
    named = "in step 2 " in message and "come out of layers.2 (dense)" in message
    check(named, f"step and layer are not both named: {message}")


def rolled_back(stage: Stage) -> None:
    """The same, with a job that goes on at a smaller rate; undisturbed, and again with other workers and a kill."""
    yardstick = stage.job(**TOO_FAST, workers=1)
    measured = measure(yardstick)
    check(bool(yardstick.of_kind("rolled_back")), "it was not rolled back")
    job = stage.job(**TOO_FAST, workers=3)
    stage.phase(job)
    send(KILL, stage.random.choice([stage.coordinator.workers(), stage.coordinator.trainers()]))
    check(measure(job) == measured, f"it went another way than undisturbed: {job.story()}")
    told, expected = job.of_kind("rolled_back"), yardstick.of_kind("rolled_back")
    check(told == expected, f"rolled back {told}, undisturbed {expected}")


def paused(stage: Stage) -> None:
    """Paused and resumed, also in quick succession; some jobs write no checkpoint for that."""
    job = stage.job(onDivergence=stage.random.choice(["FAIL", "ROLLBACK"]))
    stage.phase(job)
    for _ in range(stage.random.randint(4, 10)):
        try:
            job.pause()
            stage.shortly(0.3)
            job.resume()
        except grpc.RpcError:
            check(job.job().state == job.job().SUCCEEDED, f"it can't be paused and resumed: {job.story()}")
            break
        stage.shortly(stage.random.choice([0.05, 1.0]))
    stage.check_same(job)


def competing(stage: Stage) -> None:
    """Several jobs that want more workers than there are."""
    jobs: list[Following] = []
    for _ in range(4):
        workers = stage.random.randint(1, 4)
        bounds = {"minWorkers": stage.random.randint(1, workers), "maxWorkers": stage.random.randint(workers, 4)}
        jobs.append(stage.job(workers=workers, priority=stage.random.randint(-2, 2), **bounds))
        stage.shortly(2.0)
    if stage.random.random() < 0.5:
        send(KILL, [stage.pick_worker()])
    stage.check_same(*jobs)


FAULTS: dict[str, Callable[[Stage], None]] = {
    fault.__name__.replace("_", "-"): fault
    for fault in (
        worker_killed,
        all_workers_killed,
        trainer_killed,
        idle_killed,
        coordinator_killed,
        coordinator_terminated,
        raylet_killed,
        head_killed,
        worker_slow,
        worker_stuck,
        idle_worker_stuck,
        trainer_stuck,
        checkpoint_damaged,
        disk_full,
        diverged,
        rolled_back,
        paused,
        competing,
    )
}


@contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """A directory with a disk of its own, of a few megabytes. Raises Skipped where none can be mounted."""
    if os.geteuid() != 0:
        raise Skipped("only root can mount a small disk to be filled")
    path.mkdir(parents=True)
    command = ["/bin/mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise Skipped(f"no small disk can be mounted: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        deadline = time.monotonic() + SECONDS
        while subprocess.run(["/bin/umount", path], capture_output=True, check=False).returncode:
            if time.monotonic() > deadline:
                subprocess.run(["/bin/umount", "--lazy", path], check=False)
                break
            time.sleep(0.1)
