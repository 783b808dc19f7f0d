"""The law of crashes: what was acknowledged holds, and what was not can be asked for again.

A coordinator without Ray is killed at random moments while a client creates, uploads, pauses, cancels, deletes, and its
jobs write checkpoints. After each restart everything that the client was told is looked for. In the end all jobs of the
same specification have the same bits, and nothing on the disk is damaged.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any

import grpc

from chainrule.v1 import dataset_service_pb2 as datasets_pb
from chainrule.v1 import model_service_pb2 as models_pb
from chainrule.v1 import training_event_pb2 as event_pb
from chainrule.v1 import training_job_pb2 as job_pb
from chainrule.v1 import training_service_pb2 as pb
from service.backup.verifying import verify
from tests.api.running import FLOWERS, SECONDS, Service, serving

AT_WORK = frozenset({"QUEUED", "STARTING", "RUNNING", "SUCCEEDED"})
GONE = "GONE"
MOST_JOBS = 12
EPOCHS = 25
LONGEST_LIFE = 0.7
"""Seconds from a coordinator's start to its end, at the most."""

REFUSED = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)
Process = Any  # one of multiprocessing's, whose contexts have classes of their own


class Broken(Exception):
    """The law was broken; the message says how."""


def serve(directory: str, ready: Connection) -> None:
    """Serves until it is killed, or nobody is at the other end any more."""
    with serving(Path(directory), checkpoint_seconds=0.02) as service:
        ready.send(service.addresses["grpc"])
        ready.poll(None)


class Crashes:
    """A client that remembers what it was told, and a coordinator that is killed again and again."""

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory = directory
        self._random = Random(seed)
        self._allowed: dict[str, frozenset[str]] = {}
        """The states that a job may be in, by its name, as far as the client was told."""
        self._requests: dict[str, str] = {}
        """The request ids of acknowledged jobs, by their names."""
        self._asked: set[str] = set()
        """Request ids that were not answered."""
        self._datasets: dict[str, bool | None] = {}
        """Whether there is a dataset; None if that can't be known."""
        self._events: dict[str, list[event_pb.TrainingEvent]] = {}
        self.acknowledged = 0
        """How many calls changed something."""
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.api.running"])

    def run(self, kills: int) -> None:
        """Raises Broken."""
        for _ in range(kills):
            process, service = self._start()
            threading.Timer(self._random.uniform(0, LONGEST_LIFE), os.kill, (process.pid, signal.SIGKILL)).start()
            try:
                self._check(service)
                while True:
                    self._random.choice(self._actions())(service)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            finally:
                service.channel.close()
                process.join(SECONDS)
        process, service = self._start()
        try:
            self._check(service)
            self._finish(service)
            if problems := verify(self._directory).problems:
                raise Broken(f"damaged: {problems}")
        finally:
            service.channel.close()
            process.kill()
            process.join(SECONDS)

    def _start(self) -> tuple[Process, Service]:
        here, there = self._context.Pipe()
        process = self._context.Process(target=serve, args=(str(self._directory), there), daemon=True)
        process.start()
        there.close()
        if not here.poll(SECONDS):
            raise Broken("the coordinator isn't ready")
        try:
            address = here.recv()
        except EOFError:
            raise Broken("the coordinator did not start; what it said is above") from None
        self._pipe = here  # whose end would be the coordinator's
        return process, Service(grpc.insecure_channel(address), {"grpc": address}, lambda: None)

    def _actions(self) -> list[Callable[[Service], None]]:
        return [self._create, self._create, self._upload, self._delete_dataset, self._watch, *self._changes()]

    def _changes(self) -> list[Callable[[Service], None]]:
        paused, ended = frozenset({"PAUSED", "SUCCEEDED"}), frozenset({"CANCELLED"})

        def change(method: str, message: Any, after: frozenset[str]) -> Callable[[Service], None]:
            def call(service: Service) -> None:
                names = [name for name, allowed in self._allowed.items() if allowed != {GONE}]
                if names:
                    name = self._random.choice(names)
                    stub = getattr(service.training, method)
                    self._change(name, after, lambda: stub(message(name=name), timeout=SECONDS))

            return call

        return [
            change("PauseTrainingJob", pb.PauseTrainingJobRequest, paused),
            change("ResumeTrainingJob", pb.ResumeTrainingJobRequest, AT_WORK),
            change("CancelTrainingJob", pb.CancelTrainingJobRequest, ended),
            change("DeleteTrainingJob", pb.DeleteTrainingJobRequest, frozenset({GONE})),
        ]

    def _change(self, name: str, after: frozenset[str], call: Callable[[], object]) -> None:
        before = self._allowed[name]
        self._allowed[name] = before | after
        try:
            call()
        except grpc.RpcError as error:
            if error.code() not in REFUSED:
                raise
            self._allowed[name] = before
        else:
            self._allowed[name] = after
            self.acknowledged += 1

    def _create(self, service: Service) -> None:
        if len(self._requests) + len(self._asked) < MOST_JOBS:
            self._ask(service, f"request-{self._random.getrandbits(64):x}")

    def _ask(self, service: Service, request_id: str) -> None:
        self._asked.add(request_id)
        service.upload("flowers", FLOWERS)
        created = service.create(epochs=EPOCHS, seed=3, request_id=request_id, display_name=request_id)
        self._asked.remove(request_id)
        self._requests[created.name] = request_id
        self._allowed[created.name] = AT_WORK
        self.acknowledged += 1

    def _upload(self, service: Service) -> None:
        name = f"flowers-{self._random.randrange(5)}"
        self._datasets[name] = None if not self._datasets.get(name) else True
        service.upload(name, FLOWERS)
        self._datasets[name] = True
        self.acknowledged += 1

    def _delete_dataset(self, service: Service) -> None:
        there = [name for name, is_there in self._datasets.items() if is_there]
        if there:
            name = self._random.choice(there)
            self._datasets[name] = None
            service.datasets.DeleteDataset(datasets_pb.DeleteDatasetRequest(name=f"datasets/{name}"), timeout=SECONDS)
            self._datasets[name] = False
            self.acknowledged += 1

    def _watch(self, service: Service) -> None:
        """Some of the events that a job has now."""
        names = [name for name, allowed in self._allowed.items() if GONE not in allowed]
        if not names:
            return
        name = self._random.choice(names)
        seen: list[event_pb.TrainingEvent] = []
        last = service.get(name).last_event
        for update in service.watch(name):
            if update.HasField("event"):
                seen.append(update.event)
            if len(seen) >= last:
                break
        self._compare(name, seen)

    def _compare(self, name: str, seen: list[event_pb.TrainingEvent]) -> None:
        before = self._events.get(name, [])
        for one, other in zip(before, seen, strict=False):
            if one != other:
                raise Broken(f"{name}: event {one.number} was {one}; is {other}")
        self._events[name] = max(before, seen, key=len)

    def _check(self, service: Service) -> None:
        """Whether all that the client was told is so."""
        for name, allowed in self._allowed.items():
            found = self._state(service, name)
            if found not in allowed:
                raise Broken(f"{name} is {found}; the client was told that it is {' or '.join(sorted(allowed))}")
            # What wasn't answered is settled now: what a job is can't be told from what it may become.
            settled = AT_WORK if found in AT_WORK - {"SUCCEEDED"} else frozenset({found, "SUCCEEDED"})
            self._allowed[name] = settled & allowed if settled & allowed else allowed
        for name, is_there in self._datasets.items():
            found_there = self._has_dataset(service, name)
            if is_there is not None and is_there != found_there:
                raise Broken(f"datasets/{name} is {'there' if found_there else 'not there'}")
            self._datasets[name] = found_there
        for name in self._events:
            if GONE not in self._allowed[name] and self._events[name]:
                number = len(self._events[name])
                if service.get(name).last_event < number:
                    raise Broken(f"{name} lost event {number}")
        for request_id in sorted(self._asked):
            self._ask(service, request_id)
        listed = service.training.ListTrainingJobs(pb.ListTrainingJobsRequest(page_size=100), timeout=SECONDS)
        names = [job.display_name for job in listed.training_jobs]
        if len(set(names)) != len(names):
            raise Broken(f"a request made two jobs: {sorted(names)}")

    def _finish(self, service: Service) -> None:
        """Has every job come to its end: all the same bits, and each event once."""
        results = set()
        for name, allowed in self._allowed.items():
            if self._state(service, name) == "PAUSED":
                service.training.ResumeTrainingJob(pb.ResumeTrainingJobRequest(name=name), timeout=SECONDS)
            if self._state(service, name) in (GONE, "CANCELLED"):
                continue
            self._compare(name, service.events(name))
            ended = service.get(name)
            numbers = [event.number for event in self._events[name]]
            if numbers != list(range(1, ended.last_event + 1)):
                raise Broken(f"{name} lacks events, or has some twice: {numbers}")
            if ended.state != job_pb.TrainingJob.SUCCEEDED:
                raise Broken(f"{name}, of which {sorted(allowed)} was to be expected, ended as {ended}")
            service.models.GetModel(models_pb.GetModelRequest(name=f"models/{name[5:]}"), timeout=SECONDS)
            results.add(ended.result.parameters_sha256)
        if len(results) > 1:
            raise Broken(f"jobs of the same specification came to different parameters: {results}")

    def _state(self, service: Service, name: str) -> str:
        try:
            return str(job_pb.TrainingJob.State.Name(service.get(name).state))
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return GONE
            raise

    def _has_dataset(self, service: Service, name: str) -> bool:
        try:
            service.datasets.GetDataset(datasets_pb.GetDatasetRequest(name=f"datasets/{name}"), timeout=SECONDS)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                return False
            raise
        return True
