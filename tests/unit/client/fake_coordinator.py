"""Stands in for ``python -m service``: understands its options, announces itself, and serves the fakes.

Its first argument says how it is to behave: ``well``, ``endless`` (jobs run until they are cancelled), ``inaccurate``,
``failing`` (jobs fail), ``dies`` (before it is ready), ``dies-later`` (once a job is watched), ``silent`` (is never
ready), ``mumbles`` (announces nonsense) or ``stubborn`` (does not stop when it is asked to).
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

import grpc

from chainrule.v1.training_job_pb2 import TrainingJob
from chainrule.v1.training_service_pb2 import WatchTrainingJobRequest, WatchTrainingJobResponse
from tests.unit.client.fakes import FakeService, FakeTraining, serving, story


class MortalTraining(FakeTraining):
    """Takes the whole coordinator with it when it is watched."""

    def WatchTrainingJob(  # noqa: N802 - gRPC's name
        self, request: WatchTrainingJobRequest, context: grpc.ServicerContext
    ) -> Iterator[WatchTrainingJobResponse]:
        yield from list(super().WatchTrainingJob(request, context))[:2]
        print("the disk is full", file=sys.stderr, flush=True)
        os._exit(1)


TRAININGS: dict[str, Callable[[], FakeTraining]] = {
    "endless": lambda: FakeTraining(endless=True),
    "inaccurate": lambda: FakeTraining(story(accuracies=(0.5, 0.9))),
    "failing": lambda: FakeTraining(story(end=TrainingJob.FAILED)),
    "dies-later": MortalTraining,
}


def main() -> None:
    """Serves until standard input closes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("behaviour")
    for option in ("--listen", "--metrics-listen", "--data-dir"):
        parser.add_argument(option, required=True)
    parser.add_argument("--local-workers", type=int)
    for flag in ("--announce", "--until-stdin-closes"):
        parser.add_argument(flag, action="store_true", required=True)
    arguments = parser.parse_args()
    print("starting", file=sys.stderr, flush=True)
    if arguments.behaviour == "dies":
        sys.exit(f"{arguments.data_dir} is in use by another coordinator")
    if arguments.behaviour == "silent":
        time.sleep(60)
    if arguments.behaviour == "mumbles":
        print("hello", flush=True)
        time.sleep(60)
    service = FakeService(training=TRAININGS.get(arguments.behaviour, FakeTraining)())
    with serving(service, arguments.listen):
        metrics = "http://127.0.0.1:9/metrics"
        print(json.dumps({"grpc": service.address, "metrics": metrics, "data_dir": arguments.data_dir}), flush=True)
        print("x" * 200_000, flush=True)  # more than a pipe holds
        sys.stdin.read()
        if arguments.behaviour == "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("not stopping", file=sys.stderr, flush=True)
            time.sleep(60)


if __name__ == "__main__":
    main()
