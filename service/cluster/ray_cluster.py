"""The Ray cluster: warm workers that are lent to jobs, warm trainers, and datasets in the object store.

Starting a process takes a second or two, which is longer than many a job. So workers and trainers belong to no job:
they are started ahead, lent, and taken back.
"""

import logging
import mmap
import os
import secrets
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import ray
import structlog
from ray._private import ray_constants
from ray.autoscaler.sdk import request_resources
from ray.exceptions import GetTimeoutError, RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from service.cluster import trainer_actor
from service.cluster.cluster import ClusterError, P, R, Room
from service.cluster.pulse import Pulse
from service.cluster.ray_feed import RayFeed
from service.cluster.ray_help import RayHelp
from service.cluster.ray_workers import Patience
from service.cluster.terms import say
from service.data.datasets import Dataset
from service.jobs.events import Progress, RateAsked
from service.training.session import Gone, News, Order, Training
from service.training.timing import Timing
from worker import actor as worker_actor
from worker.actor import Arriving, BlockRefs, Columns
from worker.arrays import Array
from worker.columns import block_rows
from worker.segment import sweep
from worker.task import Data

JOIN_SECONDS = 10.0
"""How long a cluster that is joined may take to accept a connection."""

HEAD_SECONDS = 45.0
"""How long the head of a cluster that is joined may be away, as when it is started again. Ray gives up after 60."""

WARM_WORKERS = 2
"""How many idle workers are kept for the next job."""

LEAST_HELD_BYTES = 8 << 20
"""What a worker may hold of a column where the object store is tiny."""

DATASETS_KEPT = 4
"""How many columns stay in the object store for the next job."""

_log = structlog.get_logger(__name__)


class RayCluster:
    """Implements service.cluster.cluster.Cluster with Ray."""

    def __init__(
        self, address: str | None, local_slots: int, prefix: str, patience: Patience | None = None, **init: Any
    ) -> None:
        """Joins the cluster at `address`, or starts one on this machine with room for `local_slots` workers.

        Names of shared memory begin with `prefix`; whatever a predecessor left under it is removed. `init` goes on to
        ray.init. Must be made before any gRPC object exists in this process. Raises ClusterError.
        """
        self._prefix = prefix
        self._grows = address is not None
        self._patience = patience or Patience()
        self._lock = threading.Lock()
        self._idle: list[Any] = []
        self._trainer: Any = None
        self._wanted: int | None = None
        self._columns: OrderedDict[tuple[str, str, int], BlockRefs] = OrderedDict()
        sweep(prefix)
        _connect(address, local_slots, init)
        self._pulse = Pulse(HEAD_SECONDS if address else 0.0)
        self._left = threading.Event()
        if self._grows:
            where = ray.get_runtime_context().gcs_address
            threading.Thread(target=say, args=(where, self._left), name="terms", daemon=True).start()
        self._idle = [self._start_worker() for _ in range(min(WARM_WORKERS, self.room().workers))]
        self._trainer = self._start_trainer()
        self._help = RayHelp(lambda: () if self.missing() else tuple(self._idle))

    def close(self) -> None:
        """Leaves the cluster, and ends it if it was started here."""
        self._left.set()
        self._pulse.close()
        ray.shutdown()
        sweep(self._prefix)

    def room(self) -> Room:
        nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        here = ray.get_runtime_context().get_node_id()
        own: dict[str, float] = next((node["Resources"] for node in nodes if node["NodeID"] == here), {})
        stores = [int(node["Resources"].get("object_store_memory", 0)) for node in nodes]
        return Room(
            workers=sum(int(node["Resources"].get("CPU", 0)) for node in nodes),
            memory_bytes=int(own.get("memory", 0)),
            held_bytes=_held_bytes(min(stores, default=0)),
            grows=self._grows,
        )

    def want(self, workers: int) -> None:
        """Asks Ray's autoscaler for so many cores, if there may be one; it keeps to its own least and most.

        Only for one more than there are at a time: what goes beyond its most it ignores as a whole.
        """
        if not self._grows:
            return
        cores = min(workers, self.room().workers + 1)
        if cores != self._wanted:
            request_resources(num_cpus=cores)
            self._wanted = cores

    def missing(self) -> str:
        return self._pulse.missing()

    def watch(self, lost: Callable[[str], None]) -> None:
        """Calls `lost` with the reason, from a thread, once the cluster is gone for good."""
        self._pulse.watch(lost)

    @contextmanager
    def train(self, order: Order, dataset: Dataset, data: Data, workers: int) -> Iterator[Training]:
        arrays = (data.inputs, data.targets, data.weights)
        columns = tuple(
            self._stored(dataset, name, np.asarray(array))
            for name, array in zip(order.spec.columns, arrays, strict=False)
        )
        prefix = f"{self._prefix}{order.job_id}-{secrets.token_hex(4)}-"
        with self._lock:
            trainer, self._trainer = self._trainer or self._start_trainer(), None
        training = RayTraining(self, trainer, prefix)
        try:
            training.lend(workers)
            source = columns if order.spec.online is None else Arriving(trainer)
            training.start(order, source, prefix, self._patience)
            yield training
        finally:
            training.close()
            sweep(prefix)

    def help_with(self, work: Callable[[P], R], part: P) -> "Future[R] | None":
        return self._help.ask(work, part)

    def borrow(self) -> Any:
        """A worker for a job."""
        with self._lock:
            return self._idle.pop() if self._idle else self._start_worker()

    def give_back(self, worker: Any, job: str) -> None:
        """Takes a worker back from a job, to keep it warm or to end it."""
        worker.leave.remote(job)
        with self._lock:
            if len(self._idle) < WARM_WORKERS:
                self._idle.append(worker)
                return
        ray.kill(worker, no_restart=True)

    def answer(self, ref: Any) -> Any:
        """What a trainer answers. Raises RayActorError or GetTimeoutError if it is lost."""
        return ray.get(ref, timeout=self._patience.trainer_seconds)

    def keep_trainer(self) -> None:
        """Makes sure that a trainer is ready for the next job."""
        with self._lock:
            self._trainer = self._trainer or self._start_trainer()

    def _start_worker(self) -> Any:
        actor_class: Any = worker_actor.Worker
        return actor_class.options(**worker_actor.OPTIONS).remote()

    def _start_trainer(self) -> Any:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor_class: Any = trainer_actor.TrainerActor
        return actor_class.options(scheduling_strategy=here, **trainer_actor.OPTIONS).remote()

    def _stored(self, dataset: Dataset, name: str, array: Array) -> BlockRefs:
        """A column in the object store, in blocks; put there once for as long as it is in use."""
        key = (dataset.id, dataset.sha256, dataset.column(name) or 0)
        with self._lock:
            if key not in self._columns:
                held = self.room().held_bytes
                rows = block_rows(array[:1].nbytes, len(array), held)
                # A slice of a mapped file is copied as it is put: only plain arrays are stored without pickling.
                refs = tuple(ray.put(np.array(array[start : start + rows])) for start in range(0, len(array), rows))
                _let_go(array)
                self._columns[key] = BlockRefs(refs, rows, held)
                while len(self._columns) > DATASETS_KEPT:
                    self._columns.popitem(last=False)
            self._columns.move_to_end(key)
            return self._columns[key]


def _let_go(array: Array) -> None:
    """Drops the pages of a file that an array is mapped from, which would stay in memory beside the store's copy."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


class RayTraining:
    """A trainer in a process of its own."""

    def __init__(self, cluster: RayCluster, trainer: Any, job: str) -> None:
        """`job` is what workers call it by."""
        self._cluster = cluster
        self._trainer = trainer
        self._job = job
        self.feed = RayFeed(trainer, cluster.answer)
        self._lent: dict[int, Any] = {}
        self._starting: Any = None
        self._is_started = False

    def start(self, order: Order, columns: Columns, prefix: str, patience: Patience) -> None:
        """Has it begin, without waiting for that: one that can't is found out as one that is lost later."""
        self._starting = self._trainer.start.remote(order, columns, prefix, patience, self._lent)

    def news(self, acknowledged: int, timeout: float) -> News:
        """What is new; that it is gone, if its process has ended or doesn't answer."""
        try:
            if not self._is_started:
                self._cluster.answer(self._starting)
                self._is_started = True
                self._cluster.keep_trainer()
            news: News = self._cluster.answer(self._trainer.news.remote(acknowledged, timeout))
            return news
        except (RayActorError, GetTimeoutError) as error:
            _log.warning("a trainer was lost", error=type(error).__name__)
            return News([], Progress(), Timing(), Gone("its trainer was lost; goes on from its last checkpoint"))

    def halt(self) -> None:
        self._trainer.halt.remote()

    def ask(self, rate: RateAsked) -> None:
        self._trainer.ask.remote(rate)  # one that is lost has its successor start with it

    def lend(self, workers: int) -> None:
        for number in range(workers):
            if number not in self._lent:
                self._lent[number] = self._cluster.borrow()
        surplus = [self._lent.pop(number) for number in list(self._lent) if number >= workers]
        if self._is_started:
            with suppress(RayError):
                self._cluster.answer(self._trainer.lend.remote(self._lent))
        for worker in surplus:
            self._cluster.give_back(worker, self._job)

    def close(self) -> None:
        """Ends the trainer, and takes the workers back."""
        ray.kill(self._trainer, no_restart=True)
        for worker in self._lent.values():
            self._cluster.give_back(worker, self._job)
        self._lent = {}


def _held_bytes(store_bytes: int) -> int:
    """How much of a column a worker may hold, given the smallest object store: an eighth, as others hold parts too."""
    return max(store_bytes // 8, LEAST_HELD_BYTES)


def _connect(address: str | None, local_slots: int, init: dict[str, Any]) -> None:
    # Ray would run workers at nice 15: on few cores a trainer at nice 0 then starves them.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _secure(is_started_here=not address)
    try:
        if address:
            _check_answers(address)
        ray.init(
            address=address or "local",
            num_cpus=None if address else local_slots,
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            namespace="chainrule",
            **init,
        )
    except (RayError, ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = f"join the Ray cluster at {address}" if address else "start Ray on this machine"
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise ClusterError(f"can't {where}: {why}") from error


def _secure(*, is_started_here: bool) -> None:
    """Has a cluster of our own want a token that its processes alone know, and listen on the loopback interface alone.

    One that is joined has what its owner gave it: RAY_AUTH_MODE and RAY_AUTH_TOKEN are handed on.
    """
    if is_started_here:
        # Ray wants a token of its own accord, by default one that it keeps in the home directory for all to read.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    # Where Ray is for one machine alone, it binds to 127.0.0.1. On Linux no argument asks for that: given that address,
    # it takes the machine's own, and listens everywhere. Its processes read the variable; this one did already.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0" if is_started_here else "1"
    ray_constants.ENABLE_RAY_CLUSTER = not is_started_here


def _check_answers(address: str) -> None:
    """Raises OSError if nobody is at HOST:PORT, which Ray takes minutes to find out."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdecimal() and int(port) < 1 << 16:
        socket.create_connection((host.strip("[]"), int(port)), JOIN_SECONDS).close()
