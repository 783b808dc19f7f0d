"""Jobs that a person trains from this machine, over the published port."""

import json
import sys
from pathlib import Path
from typing import Any

from chainrule.client import Client
from chainrule.v1.training_job_pb2 import TrainingJob
from tests.deploy.compose import run

DIGITS = "examples/digits.yaml"


def chainrule(*words: str, check: bool = True) -> str:
    """The command line on this machine."""
    return run(sys.executable, "-m", "chainrule", *words, check=check)


def learn_digits() -> Any:
    """Trains the digits; returns what the command line says in the end."""
    return json.loads(chainrule("train", DIGITS, "--json").splitlines()[-1])


def start(job: Path) -> str:
    """Starts a job; returns its name."""
    return chainrule("train", str(job), "--detach").split()[-1]


def at_work(client: Client, name: str, workers: int) -> bool:
    """Whether a job takes steps with so many workers."""
    job = client.get_job(name)
    return job.state == TrainingJob.RUNNING and job.progress.workers == workers and job.progress.step > 0
