"""From Create to the first step, on a service that is running."""

import time
from statistics import median

from benchmarks.cases import Case
from benchmarks.ours import Service
from chainrule.v1.training_job_pb2 import TrainingProgress


def seconds_to_first_step(service: Service, case: Case, times: int) -> float:
    """The median time by a client's clock, up to the first progress with a step, which comes somewhat late."""
    service.end(service.create(case))  # its dataset is uploaded and in the object store
    taken = []
    for _ in range(times):
        time.sleep(3.0)  # as any service that isn't flooded: the workers of the last job are warm again
        began = time.perf_counter()
        job = service.create(case)
        for update in service.client.watch(job.name):
            if update.step if isinstance(update, TrainingProgress) else update.WhichOneof("kind") == "epoch_completed":
                break
        taken.append(time.perf_counter() - began)
        service.end(job)
    return median(taken)
